"""Double precision, and derivatives by finite differences: those of metarun.testing."""

from metarun.testing.derivatives import claim_gradient as assert_gradient_is_that_of_differences
from metarun.testing.derivatives import compute_in_float64 as float64
from metarun.testing.derivatives import to_float64

__all__ = ["assert_gradient_is_that_of_differences", "float64", "to_float64"]
