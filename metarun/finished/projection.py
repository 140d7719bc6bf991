"""Vectors of tasks in two dimensions."""

from typing import Any

import numpy as np
from jaxtyping import Float

from metarun import errors

PERPLEXITY = 30.0  # of t-SNE: about how many neighbours a task has (van der Maaten and Hinton 2008)


def project_by_pca(vectors: np.ndarray) -> Float[np.ndarray, "task 2"]:
    """Return the first two principal components."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)[None]
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    plane = (left * lengths[None])[:, :2]
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))


def project_by_tsne(vectors: np.ndarray, seed: int = 0) -> Float[np.ndarray, "task 2"]:
    """Return two dimensions that keep neighbours (t-SNE, van der Maaten and Hinton 2008), by scikit-learn.

    Raises:
      UsageError: scikit-learn is not installed, there are too few tasks, or all have the same vector.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise errors.UsageError(
            "t-SNE needs scikit-learn, which is not installed", "--tsne", "pip install 'metarun[embed]'"
        ) from error
    if len(vectors) < 10:
        raise errors.UsageError(
            f"{len(vectors)} tasks are too few for t-SNE", "--tsne", "give --tasks 10 or more"
        )
    if (vectors == vectors[:1]).all():
        raise errors.UsageError("all tasks have the same vector", "--tsne", "leave --tsne out")
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    method: Any = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    missing = max(0, 2 - vectors.shape[1])  # it begins at two principal components
    return np.asarray(method.fit_transform(np.pad(vectors.astype(np.float64), ((0, 0), (0, missing)))))
