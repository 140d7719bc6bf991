"""Small networks against their equations in numpy."""

import jax
import numpy as np

from metarun.blocks import networks

KEY = jax.random.key(0)


def test_attention_is_that_of_its_equation_head_by_head():
    layers = networks.init_attention(KEY, 3, 4, 5, width=6)
    queries, keys, values = (
        jax.random.normal(jax.random.key(size), (count, size)) for count, size in ((2, 3), (7, 4), (7, 5))
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
    np.testing.assert_allclose(
        networks.attend(layers, 2, queries, keys, values), expected, rtol=1e-4, atol=1e-6
    )
