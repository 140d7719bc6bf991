"""What algorithms ask of targets, and the examples of an episode as one list."""

import jax
import numpy as np

from metarun.base import Examples, Related
from metarun.blocks import target_kinds


def test_a_support_that_tells_concepts_is_joined_with_a_query_that_does_not():
    """So that `pretrain` and `reptile` train on a family whose supports tell alphabets."""
    support = Examples(Related(np.ones((2, 3)), np.array([4, 5])), np.array([0, 1]))
    joined = jax.jit(target_kinds.join)(support, Examples(np.zeros((1, 3)), np.array([1])))
    np.testing.assert_array_equal(joined.inputs, [[1, 1, 1], [1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(joined.targets, [0, 1, 1])
