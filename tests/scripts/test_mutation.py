"""scripts/mutation.py: the faults that it makes, and how it tells what tests find."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''"""A module."""

LIMIT: int = 3


def choose(values, limit=LIMIT):
    """Return some values."""
    if not values:
        raise ValueError("there are no values")
    kept = [value for value in values if value < limit and value != 0]
    for value in kept:
        if is_odd(value):
            continue
        kept.remove(value)
    return kept + ["é", values]
'''


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutants = load("mutants")


@pytest.fixture
def made(tmp_path):
    (tmp_path / "module.py").write_text(SOURCE, "utf-8")
    return mutants.make_mutants(tmp_path, "module.py")


def test_each_fault_is_one_change_that_can_be_compiled_and_keeps_the_lines(made):
    for mutant in made:
        changed = mutant.apply(SOURCE)
        compile(changed, "module.py", "exec")
        assert changed != SOURCE and changed.count("\n") == SOURCE.count("\n")
        different = [
            number
            for number, (ours, theirs) in enumerate(
                zip(SOURCE.splitlines(), changed.splitlines(), strict=True), start=1
            )
            if ours != theirs
        ]
        assert different and all(mutant.line <= number <= mutant.last for number in different)


def test_the_faults_are_those_of_the_docstring_and_leave_words_alone(made):
    assert made[0].name == "module.py: LIMIT: int = 3 [3 -> 4]"
    names = [f"{mutant.before} -> {mutant.after}" for mutant in made]
    assert names == [
        "3 -> 4",
        "not values -> (values)",
        'raise ValueError("there are no values") -> pass',
        "value < limit and value != 0 -> ((value < limit) or (value != 0))",
        "value < limit -> (value) <= (limit)",
        "value != 0 -> (value) == (0)",
        "0 -> 1",
        "is_odd(value) -> (not (is_odd(value)))",
        "continue -> break",
        "kept.remove(value) -> pass",
        'return kept + ["é", values] -> return None',
        "kept + [\"é\", values] -> ((kept) - (['é', values]))",
        "\"é\" -> 'XXé'",
    ]
    assert [mutant.inside for mutant in made] == [False] + [True] * (len(made) - 1)


def test_a_fault_in_a_term_that_another_operator_joins_stays_in_its_term(tmp_path):
    (tmp_path / "module.py").write_text("flags = one | two | three\n")
    [outer, inner] = sorted(
        mutants.make_mutants(tmp_path, "module.py"), key=lambda mutant: -len(mutant.before)
    )
    space = {"one": 1, "two": 2, "three": 4}
    exec(outer.apply("flags = one | two | three\n"), space)
    assert space["flags"] == (1 | 2) & 4
    exec(inner.apply("flags = one | two | three\n"), space)
    assert space["flags"] == (1 & 2) | 4


def test_a_mutant_meets_the_tests_of_its_lines_the_quick_ones_first(made, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    script = load("mutation")
    courses = [
        script.Course("slow", 3.0, {"module.py": [8, 9]}),
        script.Course("quick", 1.0, {"module.py": [8]}),
        script.Course("other", 2.0, {"module.py": [10]}),
        script.Course("elsewhere", 0.0, {}),
    ]
    condition = next(mutant for mutant in made if mutant.before == "not values")
    limit = next(mutant for mutant in made if mutant.before == "3")
    assert [course.name for course in script.find_tests(condition, courses)] == ["quick", "slow"]
    assert [course.name for course in script.find_tests(limit, courses)] == ["quick", "other", "slow"]


def test_every_named_equivalent_mutant_is_still_one_of_its_file(monkeypatch):
    """A change of the source takes the excuse away with it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    script = load("mutation")
    equivalent = script.read_equivalent()
    files = {name.partition(": ")[0] for name in equivalent}
    existing = {mutant.name for file in files for mutant in mutants.make_mutants(ROOT, file)}
    assert set(equivalent) <= existing
    assert all(equivalent.values())
