"""Inputs that say which concept the class of each example belongs to (`base.Related`), and the same without it."""

from collections.abc import Callable

from metarun import base
from metarun.base import PyTree


def drop_concepts(inputs: PyTree) -> PyTree:
    """Return the plain inputs of `base.Related`, and others as they are."""
    return inputs.inputs if isinstance(inputs, base.Related) else inputs


def make_plain_model(model: base.Model) -> base.Model:
    """Make the model that sees plain inputs alone, as inputs and as reference."""

    def init(key, inputs, *, condition=None) -> PyTree:
        return model.init(key, drop_concepts(inputs), condition=condition)

    def make_plain(function: Callable) -> Callable:
        return lambda params, inputs, *, condition=None, reference=None: function(
            params, drop_concepts(inputs), condition=condition, reference=drop_concepts(reference)
        )

    return base.Model(init, make_plain(model.apply), make_plain(model.embed))
