"""Groups of options that several algorithms share. They can be read without importing jax: see `metarun.plugins`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from metarun import folders
from metarun.ranges import Above, AtLeast


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
    depth: Annotated[int, AtLeast(1)] = 2  # layers that read each example, before the mean over the examples
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
