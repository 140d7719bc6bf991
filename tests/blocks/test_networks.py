"""Small networks against their equations in numpy."""

import jax
import numpy as np

from metarun.blocks import networks

KEY = jax.random.key(0)


def test_attention_is_that_of_its_equation_head_by_head():
    layers = jax.jit(lambda key: networks.init_attention(key, 3, 4, 5, width=6))(KEY)
    generator = np.random.default_rng(0)
    queries, keys, values = (
        generator.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (7, 4), (7, 5))
    )
    q, k, v = (
        np.asarray(part) @ np.asarray(layers[name]["kernel"])
        for name, part in (("queries", queries), ("keys", keys), ("values", values))
    )
    heads = []
    for columns in (slice(0, 3), slice(3, 6)):
        scores = np.exp(q[:, columns] @ k[:, columns].T / np.sqrt(3))
        heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, columns])
    result = jax.tree.map(np.asarray, layers["result"])
    expected = np.concatenate(heads, axis=1) @ result["kernel"] + result["bias"]
    found = jax.jit(networks.attend, static_argnums=1)(layers, 2, queries, keys, values)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
