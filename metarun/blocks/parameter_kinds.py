"""Which parameters of a model an inner loop leaves alone: it asks by their names, which `base.Model` fixes."""

import jax

from metarun import base, errors, trees


def is_head(path: tuple[str, ...]) -> bool:
    """Return whether the parameters at a path are of the model's last layer."""
    return path[:1] == (base.HEAD,)


def find_normalisation(params: base.PyTree) -> frozenset[tuple[str, ...]]:
    """Return the paths of the scales and offsets of all normalisations: a bias beside a scale is an offset."""
    paths = {trees.path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    scaled = {path[:-1] for path in paths if path and path[-1] == base.SCALE}
    return frozenset(
        path
        for path in paths
        if path and (path[-1] in (base.SCALE, base.OFFSET) or (path[-1] == base.BIAS and path[:-1] in scaled))
    )


def refuse_without_normalisation(params: base.PyTree, option: str, remedy: str) -> None:
    """Raise ConfigError if a model has no normalisation that an option of the algorithm could be about."""
    if not find_normalisation(params):
        what = "the model has no normalisation with scales and offsets"
        raise errors.ConfigError(what, f"algorithm.{option}", f"set {remedy}, or model.normalisation: batch")
