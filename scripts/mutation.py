#!/usr/bin/env python3
"""Put one small fault after the other into a module, and count how many the tests find.

    scripts/mutation.py [modules] [--sample N] [--seed S] [--processes P] [--output FILE] [--again FILE]

Without modules: those that keep a user's results (TARGETS). A first pass runs the tests of each module once and notes
which of them run which line, and for how long. Each mutant is then run against the tests of its lines, the quick ones
first, until one fails, in a process forked from one that has imported jax, orbax and pytest, but no part of metarun: a
mutant costs about a second. The tools that are well known (mutmut, cosmic-ray) either fork after jax has started its
threads, or import everything anew for each mutant.

The output gets one line of JSON for each mutant; `--again` tries those of such a file that were not found.
scripts/equivalent_mutants.tsv names the mutants that no test can find, each with the reason; they do not count. The
exit code is 1 if fewer than 85 % of a module's mutants are found.

What runs in a process of its own (tests that start Python) does not see the fault, so such tests find nothing here.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import machinery
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

import mutants  # noqa: E402, after the line above

EQUIVALENT = ROOT / "scripts" / "equivalent_mutants.tsv"
LEAST = 0.85  # the share of mutants that tests must find
PATIENCE = 30.0  # seconds beyond three times what the tests of a mutant take: then it counts as found
MOST_TESTS = 200  # the quickest tests of its lines that one mutant meets
SOUND_TESTS = 30  # the quickest tests of a module, which must pass without a fault
SLOW = 20.0  # seconds; slower tests are left out
UNREAD = 77  # how a process ends whose tests have not imported the module
RUNS = (
    "tests/runs",
    "tests/training/test_resume.py",
    "tests/training/test_stage_run.py",
    "tests/cli/test_runs.py",
)
CONFIG = (
    "tests/config",
    "tests/test_configs.py",
    "tests/training/test_budgets.py",
    "tests/test_options_in_use.py",
)
# The tests that are tried for a module, and the modules that are tried by default.
TARGETS = {
    f"metarun/runs/{name}.py": RUNS
    for name in ("checkpoints", "manifest", "files", "state_files", "directory", "regular_files", "seals")
} | {
    f"metarun/config/{name}.py": CONFIG
    for name in ("binder", "overrides", "yaml_file", "plain_values", "schema", "base_file", "differences")
}


class Course(NamedTuple):
    """What the first pass noted of one test."""

    name: str
    seconds: float
    lines: dict[str, list[int]]  # {file: the lines of it that the test runs}


class Result(NamedTuple):
    """What became of one mutant."""

    file: str
    line: int
    name: str
    end: str  # "found" | "survived" | "equivalent" | "unreached", which no test runs
    seconds: float


def main() -> None:
    """Run the mutants that the command line asks for, and print a table."""
    arguments = read_arguments()
    os.chdir(ROOT)
    prepare()
    files = arguments.modules or list(TARGETS)
    courses = note_courses(files)
    check_sound(files, courses)
    chosen = [mutant for file in files for mutant in choose(file, arguments.sample, arguments.seed)]
    if arguments.again:
        left = read_left(Path(arguments.again))
        chosen = [mutant for mutant in chosen if mutant.name in left]
    equivalent = read_equivalent()
    results = []
    with open(arguments.output, "w") if arguments.output else open(os.devnull, "w") as output:  # noqa: PTH123
        for result in run_all(chosen, courses, equivalent, arguments.processes):
            results.append(result)
            output.write(json.dumps(result._asdict()) + "\n")
            output.flush()
            if result.end in ("survived", "unreached"):
                print(f"{result.end}: line {result.line} of {result.name}", flush=True)
    sys.exit(not print_table(results))


def read_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "modules", nargs="*", choices=[[], *TARGETS], metavar="modules", help="metarun/runs/files.py"
    )
    parser.add_argument("--sample", type=int, help="so many mutants of each module, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--processes", type=int, default=1, help="mutants that run at a time")
    parser.add_argument("--again", help="the output of an earlier run, whose survivors are tried")
    parser.add_argument("--output", help="a file of JSON lines, one for each mutant")
    return parser.parse_args()


def prepare() -> None:
    """Import what no mutant changes, and let all processes share one cache of compiled programs."""
    os.environ.setdefault("METARUN_CACHE", tempfile.mkdtemp(prefix="metarun-mutation-"))
    os.environ["JAX_PLATFORMS"], os.environ["MPLBACKEND"] = "cpu", "agg"
    sys.dont_write_bytecode = True
    import beartype  # noqa: F401
    import jax  # noqa: F401, which starts no thread before it computes
    import jaxtyping  # noqa: F401
    import omegaconf  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import pytest  # noqa: F401
    import typer  # noqa: F401


def choose(file: str, sample: int | None, seed: int) -> list[mutants.Mutant]:
    """Return the mutants of a file, or a sample of them in the order of the source."""
    every = mutants.make_mutants(ROOT, file)
    if sample is None or sample >= len(every):
        return every
    return sorted(random.Random(f"{seed} {file}").sample(every, sample), key=lambda mutant: mutant.start)


def read_left(output: Path) -> set[str]:
    """Return the names of the mutants that an earlier run did not find."""
    results = map(json.loads, output.read_text("utf-8").splitlines())
    return {result["name"] for result in results if result["end"] in ("survived", "unreached")}


def read_equivalent() -> dict[str, str]:
    """Return {the name of a mutant: why no test can find it}."""
    if not EQUIVALENT.exists():
        return {}
    rows = [
        line.split("\t") for line in EQUIVALENT.read_text("utf-8").splitlines() if line[:1] not in ("", "#")
    ]
    return dict(rows)


# --- the first pass ---


class Tracer:
    """A plug-in of pytest that notes the lines of some files that each test runs."""

    def __init__(self, files: list[str]) -> None:
        self.files = {str(ROOT / file): file for file in files}
        self.lines: dict[str, set[int]] = {}
        self.courses: list[Course] = []

    def trace(self, frame: Any, event: str, argument: Any) -> Any:
        """Follow a function of these files line by line, and no other."""
        if frame.f_code.co_filename not in self.files:
            return None
        noted = self.lines.setdefault(self.files[frame.f_code.co_filename], set())

        def note(frame: Any, event: str, argument: Any) -> Any:
            noted.add(frame.f_lineno)
            return note

        return note(frame, event, argument)

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        """Begin to trace a test, its fixtures included."""
        import threading

        self.lines = {}
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        self.began = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        """Note what the test has run."""
        sys.settrace(None)
        seconds = time.monotonic() - self.began
        lines = {file: sorted(noted) for file, noted in self.lines.items()}
        self.courses.append(Course(nodeid, seconds, lines))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Leave out what fails without a fault, or is skipped."""
        if report.outcome != "passed":
            self.began = -float("inf")


def note_courses(files: list[str]) -> list[Course]:
    """Return what every test of these modules runs, in a process of its own."""
    tests = sorted({test for file in files for test in TARGETS[file]})
    with tempfile.NamedTemporaryFile("r", suffix=".json") as noted:

        def run() -> int:
            tracer = Tracer(files)
            code = run_pytest(["-m", "not fault and not reproduction and not slow", *tests], [tracer])
            Path(noted.name).write_text(json.dumps([tracer.courses, list(sys.modules)]))
            return code

        _, status = os.waitpid(fork(run), 0)
        rows, modules = json.loads(noted.read() or "[[], []]")
    courses = [Course(*row) for row in rows]
    if not courses:
        sys.exit(f"none of the tests runs (pytest ended with {os.waitstatus_to_exitcode(status)})")
    import_foreign(modules)
    kept = [course for course in courses if course.seconds < SLOW and course.lines]
    print(f"{len(courses)} tests, {len(kept)} of them run these modules", flush=True)
    return kept


def import_foreign(modules: list[str]) -> None:
    """Import here what the tests have imported of other packages, so that no mutant does it again."""
    for module in modules:
        top = None
        with contextlib.suppress(ValueError, ImportError):  # some have no place that Python knows
            top = importlib.util.find_spec(module.partition(".")[0])
        if top and "site-packages" in str(top.origin) and module not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(module)
    assert "metarun" not in sys.modules, "no mutant would be read"


def run_pytest(arguments: list[str], plugins: list[Any]) -> int:
    """Run tests in this process, without a word."""
    import pytest

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--tb=no"]
    return int(pytest.main([*options, *arguments], plugins=plugins))


def check_sound(files: list[str], courses: list[Course]) -> None:
    """Stop if a module without a fault fails, as its mutants are run: then every mutant would count as found."""
    for file in files:
        sound = mutants.Mutant(file, 0, 0, "", "", 0, "", False)
        process = fork(functools.partial(run_mutant, sound, find_tests(sound, courses)[:SOUND_TESTS]))
        _, status = os.waitpid(process, 0)
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"{file}: its tests fail without a fault (pytest ended with {code})")


# --- the mutants ---


def run_all(
    chosen: list[mutants.Mutant], courses: list[Course], equivalent: dict[str, str], processes: int
) -> Iterator[Result]:
    """Yield what becomes of each mutant, as it ends."""
    waiting = list(reversed(chosen))
    running: dict[
        int, tuple[mutants.Mutant, float, float]
    ] = {}  # {process: (mutant, when it began, its limit)}
    while waiting or running:
        while waiting and len(running) < processes:
            mutant = waiting.pop()
            tests = find_tests(mutant, courses)
            if mutant.name in equivalent or not tests:
                end = "equivalent" if mutant.name in equivalent else "unreached"
                yield Result(mutant.file, mutant.line, mutant.name, end, 0.0)
                continue
            began = time.monotonic()
            limit = began + PATIENCE + 3 * sum(course.seconds for course in tests)
            running[fork(functools.partial(run_mutant, mutant, tests))] = mutant, began, limit
        for process in list(running):
            mutant, began, limit = running[process]
            code = poll(process, limit)
            if code is not None:
                del running[process]
                end = "survived" if code == 0 else "found"
                yield Result(mutant.file, mutant.line, mutant.name, end, time.monotonic() - began)
        time.sleep(0.02)


def find_tests(mutant: mutants.Mutant, courses: list[Course]) -> list[Course]:
    """Return the tests that run a line of the mutant, the quick ones first.

    The import runs what lies outside of functions: then these are all tests that run anything of the file.
    """
    statement = set(range(mutant.line, mutant.last + 1))
    tests = [
        course
        for course in courses
        if (lines := course.lines.get(mutant.file)) and (not mutant.inside or statement & set(lines))
    ]
    return sorted(tests, key=lambda course: course.seconds)[:MOST_TESTS]


def run_mutant(mutant: mutants.Mutant, tests: list[Course]) -> int:
    """Run the tests, until one fails, with the mutant in the place of its module."""
    path = str(ROOT / mutant.file)
    source = mutant.apply(Path(path).read_text("utf-8")).encode()
    read, look = machinery.SourceFileLoader.get_data, machinery.SourceFileLoader.path_stats

    taken = False

    def get_data(self: Any, name: Any) -> bytes:
        nonlocal taken
        taken = taken or str(name) == path
        return source if str(name) == path else read(self, name)

    def path_stats(self: Any, name: Any) -> Any:
        if str(name) == path:
            raise OSError("no compiled file of this one is right")
        return look(self, name)

    machinery.SourceFileLoader.get_data = get_data  # type: ignore[method-assign, assignment]
    machinery.SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign, assignment]
    code = run_pytest(["-x", *(course.name for course in tests)], [])
    return code if taken else UNREAD


def fork(function: Callable[[], int]) -> int:
    """Start a process that ends with what the function returns, and return its number."""
    process = os.fork()
    if process:
        return process
    os.setsid()  # what it starts ends with it
    code = 3
    try:
        code = function()
    finally:
        os._exit(code)


def poll(process: int, limit: float) -> int | None:
    """Return the exit code of a process; None while it runs. One beyond its time is killed, and fails."""
    ended, status = os.waitpid(process, os.WNOHANG)
    if ended:
        return os.waitstatus_to_exitcode(status)
    if time.monotonic() < limit:
        return None
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -signal.SIGKILL


def print_table(results: list[Result]) -> bool:
    """Print how many mutants of each module were found, and return whether it is enough of each."""
    enough = True
    print(
        f"{'module':38} {'mutants':>8} {'found':>6} {'survived':>9} {'unreached':>10} {'equivalent':>11} {'share':>7}"
    )
    for file in [*dict.fromkeys(result.file for result in results), "all"]:
        ends = Counter(result.end for result in results if file in (result.file, "all"))
        counted = ends.total() - ends["equivalent"]
        share = ends["found"] / counted if counted else 1.0
        enough = enough and share >= LEAST
        numbers = f"{ends.total():8} {ends['found']:6} {ends['survived']:9} {ends['unreached']:10}"
        print(f"{file:38} {numbers} {ends['equivalent']:11} {share:7.1%}")
    return enough


if __name__ == "__main__":
    main()
