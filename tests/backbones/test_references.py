"""Each layout of a published network equals its PyTorch module, in features and in the gradients of all its weights.

The recordings are made by scripts/record_backbones.py, in PyTorch and in float64.
"""

import dataclasses
import functools
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun import base, plugins
from metarun.backbones import contents, safetensors_file

FOLDER = Path(__file__).parent
# Recorded with another name than the layout that the file is found to have.
LAYOUTS = {
    "timm_registers": "timm",
    "timm_clip": "timm",
    "dino": "timm",  # has the names of timm; its own rule for positions must be asked for
    "dinov2_registers": "dinov2",
    "hf_dinov2_registers": "hf_dinov2",
    "resnet": "torchvision",
    "resnet_bottleneck": "torchvision",
    "clip_resnet": "clip",
}
CASES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
TOLERANCE = 1e-5
# Rows and columns of positions in the other pictures, where they are not (5, 6).
GRIDS = {"clip_resnet": (5, 4)}
WITHOUT_POSITIONS = ("resnet", "resnet_bottleneck", "hf_resnet")


@functools.cache
def read_references() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "references.npz") as stored:
        return {name: stored[name].astype(np.float32) for name in stored}


def get(case: str, name: str) -> np.ndarray:
    return read_references()[f"{case}/{name}"]


def find_model(case: str) -> str:
    return "resnet" if "resnet" in case else "vit"


def make_config(case: str, **options):
    layout = {"layout": "dino"} if case == "dino" else {}
    module = plugins.load("model", find_model(case))
    return module.Config(weights=str(FOLDER / f"{case}.safetensors"), **layout, **options)


def build(config, shape: tuple[int, ...], kind: str) -> base.Model:
    return plugins.load("model", kind).build(config, base.Spec(shape, 3, "classes"))


@functools.cache
def compile_measure(config, shape: tuple[int, ...], kind: str):
    """(parameters, pictures) -> features, slope of the pictures, gradient; networks of one shape share it."""
    model = build(config, shape[1:], kind)

    def measure(params, inputs):
        def total(params, inputs):
            features = model.embed(params, inputs)
            probe = jnp.cos(jnp.arange(features.size, dtype=jnp.float32)).reshape(features.shape)
            return jnp.sum(features * probe), features

        (_, features), slopes = jax.value_and_grad(total, (1, 0), has_aux=True)(params, inputs)
        return features, *slopes

    return jax.jit(measure)


@functools.cache
def list_options(case: str) -> dict:
    config = make_config(case)
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def strip(case: str):
    """The config of a network of the same shape, without its file."""
    layout = (
        {}
        if list_options(case)["layout"] == "clip"
        else {"layout": "timm" if find_model(case) == "vit" else "torchvision"}
    )
    return dataclasses.replace(make_config(case), weights=None, **layout)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_a_layout_is_found_from_the_names_of_its_file(case):
    file = safetensors_file.open_file(FOLDER / f"{case}.safetensors")
    assert contents.find_model(file.path) == find_model(case)
    layout, _ = contents.KINDS[find_model(case)].find_layout(file)
    assert layout == LAYOUTS.get(case, case)


@pytest.mark.parametrize("case", CASES)
def test_features_and_gradients_are_those_of_the_published_module(case):
    kind, inputs = find_model(case), get(find_model(case), "inputs")
    params = contents.read_tree(kind, list_options(case), None)
    features, slope, gradient = compile_measure(strip(case), inputs.shape, kind)(params, inputs)
    close(features, get(case, "features"))
    close(slope, get(case, "slope"))
    compare_gradients(case, jax.tree.map(np.asarray, gradient))


@pytest.mark.parametrize("case", ["dino", "resnet", "clip_resnet"])
def test_a_rectangle_of_another_size_has_the_features_of_the_published_module(case):
    kind, inputs = find_model(case), get(find_model(case), "other_inputs")
    model, grid = build(strip(case), inputs.shape[1:], kind), GRIDS.get(case, (5, 6))
    features = jax.jit(model.embed)(contents.read_tree(kind, list_options(case), grid), inputs)
    close(features, get(case, "other_features"))


@pytest.mark.parametrize("case", [case for case in CASES if case not in WITHOUT_POSITIONS])
def test_positions_are_interpolated_as_the_published_code_does(case):
    grid = GRIDS.get(case, (5, 6))
    tree = contents.read_tree(find_model(case), list_options(case), grid)
    table = tree["pool"]["positions"] if "pool" in tree else tree["positions"]
    close(table[-grid[0] * grid[1] :], get(case, "other_positions"))


def compare_gradients(case: str, gradient):
    """Along the recorded directions, turned as the array of the file is turned."""
    options = list_options(case)
    file, layouts = safetensors_file.open_file(Path(options["weights"])), contents.KINDS[find_model(case)]
    _, prefix = layouts.find_layout(file, options["layout"])
    compared = set()
    for path, piece in layouts.make_pieces(file, prefix, options, None).items():
        names = [name.removeprefix(prefix) for name in piece.sources]
        own = {name: own_name(case, prefix, name) for name in names}
        slope = functools.reduce(lambda tree, key: tree[key], path, gradient)
        if len(path) > 1 and path[-2] == "norm" and find_model(case) == "resnet":
            compare_folded(case, file, piece, path, gradient, own[names[0]])
            compared |= {own[name] for name in names[:2]}  # the statistics have no gradient
            continue
        compared |= set(own.values())
        directions = [
            draw_directions(own[name], shape)
            for name, shape in zip(names, piece.sources.values(), strict=True)
        ]
        ours = [np.sum(piece.convert(*parts) * slope) for parts in zip(*directions, strict=True)]
        theirs = sum(get(case, f"grad/{own[name]}") for name in names)
        scale = np.linalg.norm(slope)
        np.testing.assert_allclose(
            ours, theirs, rtol=TOLERANCE, atol=10 * TOLERANCE * scale, err_msg=str(path)
        )
    recorded = {name for name in read_references() if name.startswith(f"{case}/grad/")}
    assert {f"{case}/grad/{name}" for name in compared} == recorded


def own_name(case: str, prefix: str, name: str) -> str:
    """The name in the module, from that in the file without the prefix: they differ where the file has a prefix."""
    module_prefix = {"clip": "visual.", "clip_resnet": "visual.", "hf_resnet": "resnet."}.get(case, "")
    return module_prefix + name


def draw_directions(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal((4, *shape))


def compare_folded(case: str, file, piece, path, gradient, name: str):
    """Statistics are folded: scale = γ/σ and offset = β − μ·scale."""
    norm = functools.reduce(lambda tree, key: tree[key], path[:-1], gradient)
    _, _, mean, variance = (file.read(source) for source in piece.sources)
    weight_slope = (norm["scale"] - mean * norm["offset"]) / np.sqrt(variance + 1e-5)
    for suffix, slope in (("weight", weight_slope), ("bias", norm["offset"])):
        source = f"{name.removesuffix('.weight')}.{suffix}"
        ours = [np.sum(part * slope) for part in draw_directions(source, mean.shape)]
        scale = np.linalg.norm(slope)
        np.testing.assert_allclose(
            ours, get(case, f"grad/{source}"), rtol=TOLERANCE, atol=10 * TOLERANCE * scale
        )
