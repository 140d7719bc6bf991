"""What every algorithm promises, run over the folder: a new file is tested with no other edit.

Each is tested on classification and, with the slow tests, on regression, as far as it accepts to be built for them.
"""

import pytest

from metarun import plugins
from metarun.testing import algorithm_checks

NAMES = plugins.list_own_names("algorithm")
CASES = [
    pytest.param(name, family, marks=[pytest.mark.slow] if family == "regression" else [])
    for name in NAMES
    for family in algorithm_checks.FAMILIES
]


@pytest.mark.parametrize("name", NAMES)
def test_it_serves_regression_or_classification(name):
    algorithm_checks.check_that_it_serves_a_family(name)


@pytest.mark.parametrize("check", algorithm_checks.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "family"), CASES)
def test_an_algorithm_keeps_its_promise(name, family, check):
    case = algorithm_checks.make_case(name, family)
    if isinstance(case, ValueError):
        pytest.skip(f"{name} refuses {family}: {case}")
    check(case)
