"""Which of several learners differ: paired tests over the same episodes, corrected for how many pairs there are."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

LEVEL = 0.05  # the chance that any of all pairs is said to differ though none does


def find_p_value(differences: Float[np.ndarray, "episode"]) -> float:
    """Return the two-sided p-value of Student's paired test that the mean difference is zero.

    Learners with the same value in every episode have 1, learners with the same difference in every one 0. The value
    is NaN if a difference is not finite.
    """
    from scipy.special import stdtr  # its import takes a tenth of a second, which --help need not wait for

    count = differences.shape[0]
    mean, deviation = float(differences.mean()), float(np.std(differences, ddof=1))
    if deviation == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return 2 * float(stdtr(count - 1, -abs(mean) / deviation * count**0.5))


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values for several tests at once (Holm 1979): compared with one level, they keep it for all together.

    A NaN is no test: it stays, and does not count.
    """
    finite = [place for place, value in enumerate(p_values) if value == value]
    corrected, least = [float("nan")] * len(p_values), 0.0
    for rank, place in enumerate(sorted(finite, key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(finite) - rank) * p_values[place]))
        corrected[place] = least
    return corrected
