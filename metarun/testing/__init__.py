"""What every task family, model and algorithm promises, as checks that any plug-in can be held to, yours too.

    import pytest
    from metarun import testing

    @pytest.mark.parametrize("check", testing.list_checks("algorithm", "my_package.learner"), ids=str)
    def test_contract(check):
        check()

`metarun init algorithm NAME` writes such a test. A check raises AssertionError with what is wrong. It needs no pytest.

claims             one claim, and comparisons of trees
small_problems     small settings of plug-ins, and the families that algorithms are tried on
algorithm_checks   the promises of an algorithm
model_checks       the promises of a model
family_checks      the promises of a task family
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Check(NamedTuple):
    """One promise of one plug-in, ready to be checked."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Check it.

        Raises:
          AssertionError: the plug-in does not keep the promise.
        """
        self.run()

    def __str__(self) -> str:
        """Return the name, which pytest shows."""
        return self.name


def list_checks(kind: str, name: str | Path) -> list[Check]:
    """Return the checks of a plug-in. Imports jax.

    Args:
      kind: "task", "model" or "algorithm".
      name: as in a config: of metarun, of an entry point, a dotted module, or the path of a file.
    """
    from metarun.testing import algorithm_checks, family_checks, model_checks

    modules = {"task": family_checks, "model": model_checks, "algorithm": algorithm_checks}
    return [Check(*check) for check in modules[kind].list_checks(str(name))]
