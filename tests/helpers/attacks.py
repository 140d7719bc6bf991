"""The counter of an attacker, as a plug-in of pytest: the fixture `attack`, and the table at the end of the session.

A test that asks for `attack` adds one to `attack.tries` for each try, and says `attack.fail("what happened")` where one
was won by the attacker; the loop goes on. When the test is over, one failure fails it, and so does an attack that has
tried nothing. The table has a line for each test, also if several processes of pytest-xdist share the work.
"""

from collections.abc import Iterator

import pytest

PROPERTY = "attack"  # of the report of a test, which travels from the workers of pytest-xdist
SHOWN = 20  # failures that are said in full


class Attack:
    """How often an attacker has tried, and what happened where it should not."""

    def __init__(self) -> None:
        self.tries = 0
        self.failures: list[str] = []

    def fail(self, what: str) -> None:
        """Note that one try did what no try may do; `what` says which, and how to repeat it."""
        self.failures.append(what)

    def check(self) -> None:
        """Fail the test if there was a failure, or no try."""
        if not self.tries:
            pytest.fail("the attack has tried nothing", pytrace=False)
        if self.failures:
            head = f"{len(self.failures)} failures in {self.tries} tries"
            pytest.fail("\n".join([head, *self.failures[:SHOWN]]), pytrace=False)


@pytest.fixture
def attack() -> Attack:
    """The counter of one test."""
    return Attack()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    attack = getattr(item, "funcargs", {}).get("attack")
    try:
        result = yield
    finally:
        if isinstance(attack, Attack):
            item.user_properties.append((PROPERTY, [attack.tries, len(attack.failures)]))
    if isinstance(attack, Attack):
        attack.check()
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        (report.nodeid.removeprefix("tests/fault/"), *values)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, values in report.user_properties
        if name == PROPERTY
    ]
    if not rows:
        return
    terminalreporter.section("attacks")
    rows = [*sorted(rows), ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))]
    width = max(len(name) for name, *_ in rows)
    terminalreporter.write_line(f"{'attack':{width}}  {'tries':>8}  {'failures':>8}")
    for name, tries, failures in rows:
        terminalreporter.write_line(f"{name:{width}}  {tries:8}  {failures:8}")
