"""Which parameters of a model an inner loop leaves alone: it asks by their names, which `base.Model` fixes."""

from metarun import base


def is_head(path: tuple[str, ...]) -> bool:
    """Return whether the parameters at a path are of the model's last layer."""
    return path[:1] == (base.HEAD,)


def is_normalisation(path: tuple[str, ...]) -> bool:
    """Return whether the parameters at a path are of a normalisation."""
    return bool(path) and path[-1] in (base.SCALE, base.OFFSET)
