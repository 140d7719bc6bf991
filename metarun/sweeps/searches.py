"""Which settings a sweep tries next: those of the grid, or what Optuna proposes.

Optuna keeps its study in a journal in the directory of the sweep, so that several machines work on one study. Whoever
proposes or reports holds the lock of the sweep. The study minimises: a metric that is better when higher is reported
with the opposite sign.
"""

import contextlib
import json
import math
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from metarun.errors import UsageError
from metarun.sweeps.axes import Axis
from metarun.sweeps.request import Request, Setting
from metarun.sweeps.sweep_directory import STUDY, SweepDirectory

NAME = "metarun"  # of the study in its journal
ROUNDS = 4  # at least so many rounds has a search by TPE: it learns between two rounds
LARGEST_ROUND = 8  # settings that TPE proposes at once, unless halving needs more
ATTEMPTS = 20  # times as many draws as settings, for settings that nobody has drawn before


class Round(NamedTuple):
    """Settings that are proposed together."""

    settings: list[Setting]
    numbers: list[int]  # of their trials in Optuna's study; empty: there is none


def propose(sweep: SweepDirectory, request: Request, number: int) -> Round | None:
    """Return the settings of a round, from its file if it was proposed before; None: no more are tried.

    Raises:
      UsageError: the search needs Optuna, and it is not installed.
    """
    name = f"rounds/{number:03}.json"
    if written := sweep.read(name):
        return Round(written["settings"], written["numbers"])
    if request.search == "grid":
        proposed = Round(request.list_grid(), []) if number == 0 else None
    else:
        proposed = ask(sweep, request, number)
    if proposed is not None:
        for setting in proposed.settings:
            request.load(setting)
        sweep.write(name, proposed._asdict())
    return proposed


def count_first(request: Request) -> int:
    """Return how many settings the first round has."""
    if request.search == "grid":
        return len(request.list_grid())
    assert request.trials is not None  # `request.check` has refused it
    if request.search == "random":
        return request.trials
    size = min(LARGEST_ROUND, math.ceil(request.trials / ROUNDS))
    return min(max(size, request.halve or 1), request.trials)


def ask(sweep: SweepDirectory, request: Request, number: int) -> Round | None:
    """Return the next settings of Optuna; None: there have been as many as were asked for."""
    proposed = [
        round_file for before in range(number) if (round_file := sweep.read(f"rounds/{before:03}.json"))
    ]
    earlier = [setting for before in proposed for setting in before["settings"]]
    known = {trial for before in proposed for trial in before["numbers"]}
    assert request.trials is not None  # `request.check` has refused it
    count = min(count_first(request), request.trials - len(earlier))
    if count <= 0:
        return None
    with open_study(sweep, request, number) as study:
        import optuna

        # A process that was killed while it asked has left these without a round.
        for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            if trial.number not in known:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        settings, numbers = draw(study, request, count, earlier)
    return Round(settings, numbers) if settings else None


def draw(study: Any, request: Request, count: int, earlier: list[Setting]) -> tuple[list[Setting], list[int]]:
    """Return so many settings that were not tried before, and their trials; fewer if there seem to be no others."""
    import optuna

    distributions = {axis.key: make_distribution(axis) for axis in request.axes}
    seen = {json.dumps(setting) for setting in earlier}
    settings: list[Setting] = []
    numbers: list[int] = []
    for _ in range(ATTEMPTS * count):
        trial = study.ask(distributions)
        setting = {axis.key: read_value(axis, trial.params[axis.key]) for axis in request.axes}
        if json.dumps(setting) in seen:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        seen.add(json.dumps(setting))
        settings.append(setting)
        numbers.append(trial.number)
        if len(settings) == count:
            break
    return settings, numbers


def report(
    sweep: SweepDirectory, request: Request, numbers: list[int], reached: list[tuple[int, float | None, bool]]
) -> None:
    """Tell Optuna what the settings of a round reached. What it knows already stays.

    Args:
      reached: (steps, value, whether these are all steps) of each setting; the value is better when lower, and None
        for a setting that has diverged.
    """
    if not numbers:
        return
    with open_study(sweep, request, 0) as study:
        import optuna

        known = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        for number, (steps, value, is_last) in zip(numbers, reached, strict=True):
            if known[number].state.is_finished():
                continue
            trial = optuna.trial.Trial(study, known[number]._trial_id)
            if value is not None and is_last:
                study.tell(trial, value)
                continue
            if value is not None:
                trial.report(value, steps)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)


@contextlib.contextmanager
def open_study(sweep: SweepDirectory, request: Request, number: int) -> Iterator[Any]:
    """Open the study, with a sampler whose random numbers depend on the sweep and on the round alone.

    Raises:
      UsageError: Optuna is not installed.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage, journal
    except ImportError:
        raise UsageError(
            f"the search {request.search} needs Optuna, which is not installed",
            "--search",
            "pip install 'metarun[search]', or use --search grid",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = zlib.crc32(f"{request.hash()}/{number}".encode())
    if request.search == "random":
        sampler: Any = optuna.samplers.RandomSampler(seed=seed)
    else:
        startup = max(4, min(10, (request.trials or 0) // 3))  # settings that are drawn before it models any
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        cut_last_line(sweep.path / STUDY)
        backend = journal.JournalFileBackend(str(sweep.path / STUDY), lock_obj=cast(Any, HeldLock()))
        yield optuna.create_study(
            storage=JournalStorage(backend), sampler=sampler, study_name=NAME, load_if_exists=True
        )


def cut_last_line(journal_file: Path) -> None:
    """Remove a last line that a full disk or a power cut has left unfinished: Optuna would refuse the whole study."""
    if journal_file.exists() and (content := journal_file.read_bytes()) and not content.endswith(b"\n"):
        with journal_file.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


class HeldLock:
    """The lock of the journal. Whoever opens the study holds that of the sweep, so there is nothing to wait for."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def make_distribution(axis: Axis) -> Any:
    """Return the values of an axis as Optuna describes them: anything between the ends of a range."""
    from optuna import distributions

    if axis.scale == "choice":
        return distributions.CategoricalDistribution([json.dumps(value) for value in axis.values])
    make = distributions.IntDistribution if axis.is_whole else distributions.FloatDistribution
    return make(axis.values[0], axis.values[-1], log=axis.scale == "log")


def read_value(axis: Axis, value: Any) -> Any:
    """Return the value that Optuna means."""
    return json.loads(value) if axis.scale == "choice" else value


def spell_value(axis: Axis, value: Any) -> Any:
    """Return a value as Optuna's study has it."""
    return json.dumps(value) if axis.scale == "choice" else value
