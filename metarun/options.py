"""Groups of options that several plug-ins share. They can be read without importing jax: see `metarun.plugins`."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from metarun import folders
from metarun.ranges import Above, AtLeast, AtMost, Between


@dataclass(frozen=True)
class InnerSteps:
    """Steps of gradient descent on the support."""

    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support; 0: none
    inner_lr: Annotated[float, Above(0)] = 0.01  # step size, for a loss that is the mean over the support
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    # How the inner steps are compiled: scan compiles faster, unroll runs faster.
    loop: Literal["scan", "unroll"] = "unroll"


@dataclass(frozen=True)
class DifferentiableSteps(InnerSteps):
    """Steps of gradient descent through which the outer gradient is taken."""

    # Compute each inner step again in the backward pass, which takes less memory and more time. On a CPU it only takes
    # more time, because the compiler undoes it; there training.task_chunk saves memory.
    rematerialise: bool = False


@dataclass(frozen=True)
class InnerLoop(DifferentiableSteps):
    """Steps of gradient descent, and how the outer gradient passes through them."""

    # How the outer gradient passes through the steps: exactly, or without the Hessian (first).
    order: Literal["second", "first"] = "second"


@dataclass(frozen=True)
class SetEncoder:
    """A network that reads the support as a set and gives a vector of the task."""

    # Units of the hidden layers of the encoder, and of every network that reads its vector.
    width: Annotated[int, AtLeast(1)] = 64
    depth: Annotated[int, AtLeast(1), AtMost(100)] = 2  # layers that read each example, before their mean
    embed: Annotated[int, AtLeast(1)] = 32  # length of the vector of a task


@dataclass(frozen=True)
class Similarity:
    """How near an example is to a class, as logits."""

    distance: Literal["euclidean", "cosine"] = "euclidean"  # distance of features; euclidean is squared
    # Factor of the logits; null: 1 for euclidean, 10 for cosine.
    scale: Annotated[float, Above(0)] | None = None


@dataclass(frozen=True)
class RelationGraph:
    """A knowledge graph that smooths vectors of classes or of tasks; see `metarun/blocks/relation_graph.py`."""

    # The graph: none; family, the relations that the task family knows; or the path of a CSV file of edges,
    # a,b[,weight].
    graph: str = "none"
    # Which edges: those of the graph, or a control in which the known nodes have changed places at random: the graph
    # keeps its shape and loses its meaning.
    edges: Literal["given", "shuffled"] = "given"
    # Steps along the edges, before the vector of a new class or task attends to the nodes; 0: a control without them.
    propagation_steps: Annotated[int, AtLeast(0)] = 2
    # Weight in the loss of the squared distance between the nodes and the vectors of their classes or tasks.
    memory_weight: Annotated[float, AtLeast(0)] = 1.0

    def __post_init__(self):
        if self.graph not in ("family", "none"):  # the run's own config then names the same file anywhere
            object.__setattr__(self, "graph", str(folders.expand_home(self.graph).absolute()))


@dataclass(frozen=True)
class ClassFolders:
    """A folder with a folder of pictures for each class, how the classes are split, and how episodes are drawn."""

    folder: str  # holds a folder of pictures for each class; relative to where metarun is started
    # Classes of an episode. Null: 5, or as many as each split has, if these are fewer.
    ways: Annotated[int, AtLeast(2)] | None = None
    shots: Annotated[int, AtLeast(1)] | None = None  # support pictures of each class; null: 1
    # Query pictures of each class. Null: as many as the smallest class has left, at most 5.
    queries: Annotated[int, AtLeast(1)] | None = None
    # Classes in train, validation and test. Empty: by `shares`; a new run writes other counts if no episode fits them.
    counts: tuple[Annotated[int, AtLeast(0)], ...] = ()
    # Shares of the classes in train, validation and test, unless they are split by hand. The default is that of
    # miniImageNet, 64, 16 and 20 of 100 (Ravi and Larochelle 2017).
    shares: tuple[Annotated[float, Between(0, 1)], ...] = (0.64, 0.16, 0.2)
    # Seed of the split of the classes; not the run's seed.
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    small_classes: Literal["leave_out", "refuse"] = "leave_out"  # what to do with classes of too few pictures
    unreadable: Literal["refuse", "leave_out"] = "refuse"  # what to do with pictures that cannot be read

    # The defaults before they could be null; the hash of frozen episodes leaves them out.
    former_defaults: ClassVar[dict[str, int]] = {"ways": 5, "shots": 1, "queries": 1}
    # What a new run chooses by the folder where the config leaves it open.
    settled_options: ClassVar[tuple[str, ...]] = ("ways", "shots", "queries", "counts")
    # What frozen episodes depend on beside the content of the folder. So families that show the same pictures in other
    # ways are compared on the same episodes.
    episode_options: ClassVar[tuple[str, ...]] = (
        *("ways", "shots", "queries", "counts", "shares", "split_seed", "small_classes", "unreadable"),
    )

    def __post_init__(self):
        if not self.folder:
            raise ValueError("folder is empty", "give the folder that holds the class folders")
        # The config in the run directory then names the same folder wherever it is read.
        object.__setattr__(self, "folder", str(folders.expand_home(self.folder).absolute()))
        if self.counts and len(self.counts) != 3:
            raise ValueError("counts takes three numbers: train, validation, test")
        if len(self.shares) != 3 or not math.isclose(sum(self.shares), 1):
            raise ValueError("shares takes three numbers that add up to 1: train, validation, test")


@dataclass(frozen=True)
class Augment:
    """Random changes to pictures of the training tasks; the defaults change nothing."""

    flip: bool = False  # mirror half of the pictures left to right
    # The smallest side of a random window, as a share of the picture's side; the window is resized. 1: none.
    crop: Annotated[float, Above(0), Between(0, 1)] = 1.0
    # Scale brightness, contrast and saturation by random factors from 1 - colour to 1 + colour.
    colour: Annotated[float, Between(0, 1)] = 0.0
    rotation: Annotated[float, Between(0, 180)] = 0.0  # largest angle to either side, degrees


UNCHANGED = Augment()
