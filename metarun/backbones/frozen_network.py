"""A network with fixed weights, compiled to give features."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from metarun import base, plugins
from metarun.backbones import contents, published, safetensors_file
from metarun.backbones.extractor import Backbone
from metarun.errors import DataError, UsageError

# Weights are drawn once: for ResNet-18 these options made 4 s of compilation from 16 s.
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}
PRECISIONS = ("float32", "bfloat16")
PICTURE = "picture"  # the axis of the mesh
MOST_COPIED = 2**31  # bytes of parameters that the devices may hold together
PLACES = ("weights", "convolution")  # options that do not change the features, but for rounding


def open_network(
    weights: Path | None, model: str | None, seed: int, precision: str, side: int | None
) -> Backbone:
    """Open a backbone; see `backbones.open_backbone`, where `side` is `size`."""
    if precision not in PRECISIONS:
        remedy = f"use one of {', '.join(PRECISIONS)}"
        raise UsageError(f"there is no precision {precision}", "the precision", remedy)
    if weights is None:
        name, file = model or published.DEFAULT, None
        kind, size = find_size(name)
        label = f"{name}, random weights (seed {seed})"
    else:
        file = safetensors_file.open_file(weights)
        kind, size = contents.find_model(weights), {"weights": str(weights)}
    module = plugins.load("model", kind)
    with refuse_file(weights):
        config = module.Config(**size, **({"convolution": "native"} if kind == "resnet" else {}))
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    places = 0
    if weights is not None and file is not None:
        name, places = published.find_name(kind, options), contents.count_places(file, kind, options)
        refuse_other(weights, model, kind, name)
        label = f"{name} of {weights.name} ({options['layout']})"
    preparation = published.make_preparation(kind, options, places, file)
    if side is not None:
        preparation = dataclasses.replace(preparation, size=side, resize=None)
    side = preparation.size
    network = build_for(module, config, side)
    dtype = jnp.dtype(precision)
    params = read_params(network, kind, options, side, seed, dtype)
    embed = compile_embed(network, params, dtype)
    example = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    features = jax.eval_shape(embed, example).shape[-1]
    content = hash_leaves(params) if file is None else file.digest()
    digest = make_digest({"content": content, "precision": precision, **options})
    return Backbone(kind, label, digest, preparation, features, embed)


@contextlib.contextmanager
def refuse_file(weights: Path | None) -> Iterator[None]:
    """Turn what a model says of its options, which all come from the file, into DataError."""
    try:
        yield
    except ValueError as error:
        remedy = "write what is missing or wrong into the metadata of the file, as docs/backbones.md says"
        raise DataError(str(error.args[0]), str(weights), remedy) from error


def build_for(module: Any, config: Any, side: int) -> base.Model:
    """Build the model for pictures of `side` pixels.

    Raises:
      UsageError: the network takes no such pictures.
    """
    try:
        model: base.Model = module.build(config, base.Spec((side, side, 3), 1, "classes"))
    except ValueError as error:
        what, *remedy = map(str, error.args)
        raise UsageError(what, "the size of pictures", *(remedy or ["give another size"])) from error
    return model


def find_size(name: str) -> tuple[str, dict[str, Any]]:
    """Return the model of a published name and its options.

    Raises:
      UsageError: there is no such name.
    """
    if name in contents.KINDS:
        return name, {}
    if name not in published.SIZES:
        what = f"there is no network {name}"
        raise UsageError(what, "the model", f"use one of {', '.join(published.SIZES)}")
    return published.SIZES[name]


def refuse_other(weights: Path, wanted: str | None, kind: str, name: str) -> None:
    """Raise DataError if a file does not hold the network that was asked for."""
    if wanted is None or wanted in (kind, name):
        return
    find_size(wanted)
    what = f"{weights.name} holds {name}, and {wanted} was asked for"
    raise DataError(what, str(weights), "leave the model out, or give a file of it")


def read_params(
    network: base.Model, kind: str, options: dict[str, Any], side: int, seed: int, dtype: jnp.dtype
) -> base.PyTree:
    """Return the parameters of the body, on the device: of the file, or random ones."""
    if options["weights"] is None:
        key = jax.random.key(seed)
        lowered = jax.jit(lambda key: network.init(key, jnp.zeros((1, side, side, 3)))).lower(key)
        params = lowered.compile(compiler_options=QUICK)(key)
        body = {name: leaf for name, leaf in params.items() if name != base.HEAD}
        return jax.tree.map(lambda leaf: leaf.astype(dtype), body)
    rows = side // options["patch"] if kind == "vit" else -(-side // 2) // 2 ** len(options["blocks"])
    return contents.read_tree(kind, options, (rows, rows), lambda array: jnp.asarray(array, dtype))


def compile_embed(network: base.Model, params: base.PyTree, dtype: jnp.dtype):
    """Return float32 [example, height, width, 3] -> float32 [example, feature], computed in a precision.

    The devices of this process share out the pictures, each with a copy of the parameters: two cores do more as two
    devices than as one. See docs/findings.md.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    devices = jax.local_devices()[: max(1, MOST_COPIED // max(1, size))]
    mesh = jax.make_mesh((len(devices),), (PICTURE,), (AxisType.Auto,), devices=devices)

    def compute(params, pictures):
        with jax.default_matmul_precision("float32" if dtype == jnp.float32 else "default"):
            return network.embed(params, pictures.astype(dtype)).astype(jnp.float32)

    share_out = jax.shard_map(compute, mesh=mesh, in_specs=(P(), P(PICTURE)), out_specs=P(PICTURE))

    @jax.jit
    def embed(params, pictures):
        count = len(pictures)
        filled = jnp.pad(pictures, ((0, -count % len(devices)), (0, 0), (0, 0), (0, 0)))
        return share_out(params, filled)[:count]

    return functools.partial(embed, jax.device_put(params, NamedSharding(mesh, P())))


def hash_leaves(params: base.PyTree) -> str:
    """Return the SHA-256 of random weights: another version of jax may draw others by the same seed."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def make_digest(facts: dict[str, Any]) -> str:
    """Return a hash of what decides the features, 64 hexadecimal digits."""
    facts = {name: value for name, value in facts.items() if name not in PLACES}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
