"""N-way K-shot classification of the user's own pictures by the features of a frozen network, extracted once.

The folder is laid out and split as that of image_folder. Each picture goes through the network once; its features stay
in the cache, by the digest of the weights, of the preparation and of the picture. So an episode costs as much as one of
vectors, and every algorithm works on it: with the model affine on the features themselves, with mlp on what it makes
of them.

The network is a file of weights of your own (docs/backbones.md). Without one its weights are random, which the run
says: such features are a baseline, and not what a published network gives.
"""

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from metarun import backbones, base, errors, features, losses
from metarun.data import class_folders, folder_listing
from metarun.folders import expand_home
from metarun.options import ClassFolders
from metarun.ranges import AtLeast, Between
from metarun.tasks import _folder_classes

ELSEWHERE = (
    "restore the file that the run names, or say where it lies now: task.weights=FILE, or --weights FILE"
)
LEAST_DEVIATION = 1e-6  # of a feature; one that hardly differs is not blown up

logger = logging.getLogger("metarun")


@dataclass(frozen=True)
class Config(ClassFolders):
    """Where the pictures are, which network reads them, and how an episode is drawn."""

    # A safetensors file of weights; relative to where metarun is started. Null: random weights.
    weights: str | None = None
    # The network, such as resnet50 or vit_s14 (docs/backbones.md). Null: what the file holds, or resnet18.
    model: str | None = None
    size: Annotated[int, AtLeast(16)] | None = None  # pixels a side; null: as the network was trained
    weights_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # of random weights
    precision: Literal["float32", "bfloat16"] = "float32"  # of the network; features are float32
    # What happens to the features: each one less its mean over the training pictures and divided by its deviation
    # (standard), each picture's vector divided by its norm (unit), or nothing.
    scaling: Literal["standard", "unit", "none"] = "standard"

    names_episodes_by_content: ClassVar[bool] = True  # see image_folder
    # A finished run has the digest of the file, wherever that lies.
    data_places: ClassVar[tuple[str, ...]] = ("weights",)

    @property
    def picture_options(self) -> dict[str, Any]:
        """The options of image_folder with which it draws the same pictures."""
        return {name: getattr(self, name) for name in ("folder", *self.episode_options)} | {"crop": "centre"}

    def __post_init__(self):
        super().__post_init__()
        if self.weights is not None:
            object.__setattr__(self, "weights", str(expand_home(self.weights).absolute()))


def example(folder: Path) -> Config:
    """Write 24 classes of three small pictures of noise and a network of one block, and return a config for them."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8, 3), dtype=np.uint8)
    for index, number in np.ndindex(noise.shape[:2]):
        path = folder / f"class{index:02}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise[index, number]).save(path)
    weights = folder / ".network.safetensors"
    write_network(weights)
    return Config(str(folder), ways=4, shots=1, queries=1, weights=str(weights), size=16)


def write_network(path: Path) -> None:
    """Write a safetensors file with random weights of a residual network of one block, in torchvision's names."""
    kernels = {
        "conv1": (4, 3, 7, 7),
        "layer1.0.conv1": (4, 4, 3, 3),
        "layer1.0.conv2": (4, 4, 3, 3),
        "fc": (2, 4),
    }
    shapes = {f"{name}.weight": shape for name, shape in kernels.items()} | {"fc.bias": (2,)}
    for name in ("bn1", "layer1.0.bn1", "layer1.0.bn2"):
        shapes |= {f"{name}.{part}": (4,) for part in ("weight", "bias", "running_mean", "running_var")}
    header, content, generator = {}, b"", np.random.default_rng(0)
    for name, shape in shapes.items():
        values = generator.uniform(0.1, 1, shape) * (
            1 if name.endswith("var") else generator.choice([-1, 1], shape)
        )
        start, content = len(content), content + values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, len(content))}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def settle(config: Config) -> Config:
    """Return the config of a new run, with all that was null chosen by the folder."""
    return _folder_classes.settle(config)


def build(config: Config, kept: Mapping[str, Any] | None = None) -> base.TaskFamily:
    """Build the family. Its facts are `class`, int32 [way], indices of the class names in sorted order.

    Raises:
      DataError: as image_folder; or the weights are damaged, or not those of the run.
      StorageError: the folder may not be read, or the cache may not be written.
    """
    backbone = open_network(config, kept)
    pictures = extract(config, backbone)
    _folder_classes.check_unreadable(config, pictures)
    split = _folder_classes.split_classes(config, pictures.class_names, pictures.splits)
    config = _folder_classes.fill(config, [pictures.counts[classes] for classes in split.values()])
    _folder_classes.check(config, pictures, split)
    index = {name: _folder_classes.index_examples(pictures, classes) for name, classes in split.items()}
    scale = measure_scale(config, pictures.table[index["train"]["rows"]])
    data = {}
    for name, places in index.items():
        rows = places.pop("rows")
        data[name] = {"features": scale_rows(config, scale, pictures.table[rows]), **places}
    keeps = _folder_classes.keep(config, pictures, split) | {
        "network": {"label": backbone.label, "digest": backbone.digest, "features": backbone.features},
        "scale": {name: values.tolist() for name, values in scale.items()},
    }
    if kept is not None:
        keeps["options"] = kept.get("options", {})
    return make_family(config, data, pictures.class_names, split, keeps)


def outline(config: Config, kept: Mapping[str, Any] | None = None) -> base.TaskFamily:
    """Build the family without its folder, from what a run has kept. Only reading a picture needs the weights."""
    if kept is None or "network" not in kept:
        return build(config)
    split = _folder_classes.restore(kept)
    config = _folder_classes.fill(config, [np.array(counts) for counts in kept["pictures"].values()])
    data = {}
    for name in split:
        index = _folder_classes.shape_index(kept, name)
        shape = (index.pop("rows").shape[0], kept["network"]["features"])
        data[name] = index | {"features": jax.ShapeDtypeStruct(shape, np.float32)}
    return make_family(config, data, kept["class_names"], split, kept)


def make_family(
    config: Config,
    data: Mapping[str, Any],
    names: Sequence[str],
    split: _folder_classes.Split,
    kept: Mapping[str, Any],
) -> base.TaskFamily:
    """Make the family from its data, or from the shapes of its data, and what the run keeps of it."""
    assert config.ways is not None
    spec = base.Spec((kept["network"]["features"],), config.ways, "classes")
    relations = _folder_classes.name_nodes(names, split)
    return base.TaskFamily(
        data,
        make_sample(config),
        base.Problem(spec, losses.classification(), len(names), relations),
        form=make_form(config, kept),
        kept=kept,
    )


def make_sample(config: Config) -> Callable:
    """Make the sampler of episodes; see `base.TaskFamily`."""
    assert config.ways is not None and config.shots is not None
    ways, shots = config.ways, config.shots

    def sample(data, key) -> base.Episode:
        classes, rows = _folder_classes.draw_rows(config, data, key)
        vectors, labels = data["features"][rows], jnp.arange(ways, dtype=jnp.int32)

        def flatten(part) -> base.Examples:
            return base.Examples(part.reshape(-1, part.shape[-1]), jnp.repeat(labels, part.shape[1]))

        facts = {"class": data["class"][classes]}
        return base.Episode(flatten(vectors[:, :shots]), flatten(vectors[:, shots:]), facts)

    return sample


def open_network(config: Config, kept: Mapping[str, Any] | None = None) -> backbones.Backbone:
    """Open the network, and say it if its weights are random.

    Raises:
      DataError: the weights are damaged, or are not those of the run that has kept this.
    """
    weights = None if config.weights is None else Path(config.weights)
    if kept is not None and weights is not None and not weights.exists():
        raise errors.DataError("the weights of the run are not there any more", str(weights), ELSEWHERE)
    backbone = backbones.open_backbone(
        weights,
        model=config.model,
        seed=config.weights_seed,
        precision=config.precision,
        size=config.size,
    )
    if kept is not None and backbone.digest != kept["network"]["digest"]:
        what = f"these weights are not those of the run, {kept['network']['label']}"
        raise errors.DataError(what, config.weights or "random weights", ELSEWHERE)
    if weights is None and kept is None:
        logger.warning("task.weights is null: features of %s", backbone.label)
    return backbone


def extract(config: Config, backbone: backbones.Backbone) -> class_folders.Folder:
    """Return the folder with a table of features, float32 [picture, feature], in place of one of pixels."""
    root = Path(config.folder)
    listing = folder_listing.list_pictures(root)
    files = [path for paths in listing.paths for path in paths]
    table = features.extract(files, backbone)
    return class_folders.arrange(root, listing, table.features, table.digests, dict(table.skipped))


def measure_scale(config: Config, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean and deviation of each feature over the training pictures; {} without standard scaling."""
    if config.scaling != "standard":
        return {}
    return {"mean": rows.mean(axis=0), "deviation": np.maximum(rows.std(axis=0), LEAST_DEVIATION)}


def scale_rows(config: Config, scale: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
    """Return features, float32 [example, feature], as the config scales them."""
    if config.scaling == "unit":
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), LEAST_DEVIATION)
    if config.scaling == "none":
        return np.ascontiguousarray(rows)
    mean, deviation = (np.asarray(scale[name], np.float32)[None] for name in ("mean", "deviation"))
    return (rows - mean) / deviation


def make_form(config: Config, kept: Mapping[str, Any]) -> base.Pictures:
    """Return how picture files become inputs: through the network, from the cache as far as they are there."""

    @functools.cache
    def find_network() -> backbones.Backbone:
        return open_network(config, kept)

    def read(files: Sequence[Path]) -> np.ndarray:
        table = features.extract(files, find_network())
        if table.skipped:
            path, fault = table.skipped[0]
            raise errors.DataError(fault, str(path), "replace the picture, or take it out")
        return scale_rows(config, kept["scale"], table.features)

    return base.Pictures(read=read, prepared=f"features of {kept['network']['label']}")
