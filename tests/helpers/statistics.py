"""Statistics of many measured values."""

import numpy as np


def interval(values) -> tuple[float, float]:
    """Return the ends of the 95 % confidence interval of the mean of many independent values."""
    values = np.asarray(values, np.float64)
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half
