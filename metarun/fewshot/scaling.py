"""Features on one scale, and then at length 1, whatever network they come from.

With m and v the mean and the variance of each feature over the n pictures of the support, and v̄ the mean of v,

    f' = (f − m) / √((n·v + 10·v̄) / (n + 10))        then        f' / ‖f'‖

So a feature that is nearly the same in all pictures counts as much as the others, as in the batch normalisation without
scale and offset before a linear probe (He et al. 2021, arXiv 2111.06377, A.1). A support of few pictures knows the
variances badly, and is held to their mean as if ten more pictures had it. SimpleShot subtracts a mean, too, that of
its training classes (Wang et al. 2019, arXiv 1911.04623). No label is used, so m and v stay as they are when an example
is left out; and no query is, so that the answer to one does not depend on the others.
"""

import numpy as np
from jaxtyping import Float

from metarun.fewshot import centroids

PRIOR = 10  # pictures that the mean of the variances counts as
LEAST = 1e-12  # variance


def scale(
    features: Float[np.ndarray, "example feature"], support: int
) -> Float[np.ndarray, "example feature"]:
    """Return features at length 1, float32.

    Args:
      support: how many of the first pictures are the support; below two, all pictures take its place.
    """
    known = (features[:support] if support > 1 else features).astype(np.float64)
    variances = known.var(axis=0)
    shrunk = (len(known) * variances + PRIOR * variances.mean()) / (len(known) + PRIOR)
    deviations = np.sqrt(np.maximum(shrunk, LEAST))
    scaled = (features - known.mean(axis=0).astype(np.float32)) / deviations.astype(np.float32)
    return centroids.shorten(scaled)
