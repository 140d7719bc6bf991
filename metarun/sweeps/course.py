"""The course of a sweep: from the files that are there to the programs that have to be trained next.

Nothing else is remembered, so a sweep that was killed goes on from its files. Rounds follow each other, because a
search learns between them; the rungs of a round follow each other, because only the best settings go on.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from metarun import config
from metarun.config.footprint import MOST_TRIALS
from metarun.sweeps import halving, programs, scores, searches
from metarun.sweeps.programs import FindObstacles, Program, Rung, Trial
from metarun.sweeps.request import Request, Setting
from metarun.sweeps.sweep_directory import SweepDirectory

CONFIG = "config.yaml"
BEST = "evaluation.checkpoint=best keeps one best step for all trials of a program"


class Questions(NamedTuple):
    """What has to be asked of jax to plan programs."""

    find_obstacles: FindObstacles
    count_fitting: Callable[[config.RunConfig], int]  # how many trials of a run fit into the memory


AskObstacles = Callable[[config.RunConfig, list[str]], Mapping[str, str | None]]
CountFitting = Callable[[config.RunConfig], int]


class Climbed(NamedTuple):
    """What one setting has reached so far."""

    setting: Setting
    divisor: int  # of the last rung that it trained on; 1: it trained for all steps
    scores: list[scores.Score]  # on each rung, from the first


class Course(NamedTuple):
    """How far a sweep is."""

    # They come from all rounds, in the order in which they were proposed, with the scores of the rungs that have ended.
    settings: list[Climbed]
    measure: scores.Measure | None
    rung: Rung | None  # that has programs to train; None: the sweep has ended


def follow(sweep: SweepDirectory, request: Request, questions: Questions) -> Course:
    """Return how far the sweep is, after planning what has to be trained next. The caller holds the lock."""
    climbed: list[Climbed] = []
    measure: scores.Measure | None = None
    for number in itertools.count():
        proposed = searches.propose(sweep, request, number)
        if proposed is None:
            return Course(climbed, measure, None)
        own = [Climbed(setting, 0, []) for setting in proposed.settings]
        alive = list(range(len(own)))
        for level, rung in enumerate(halving.list_rungs(len(own), request.halve)):
            alive = alive[: rung.settings]
            planned = plan(
                sweep, request, questions, f"{number:03}-{level}", own, sorted(alive), rung.divisor
            )
            if any(sweep.find_state(program.name) == "waiting" for program in planned.programs):
                return Course(climbed + [entry for entry in own if entry.scores], measure, planned)
            reached = scores.read(sweep, planned, request.seeds)
            measure = measure or reached.measure
            for place in planned.list_settings():
                own[place] = Climbed(
                    own[place].setting, rung.divisor, [*own[place].scores, reached.settings[place]]
                )
            alive = scores.sort_settings(reached)
        report(sweep, request, proposed.numbers, own, measure)
        climbed += own
    raise AssertionError("a search ends")


def plan(
    sweep: SweepDirectory,
    request: Request,
    questions: Questions,
    name: str,
    own: list[Climbed],
    alive: list[int],
    divisor: int,
) -> Rung:
    """Return the programs of a rung, from its file if it was planned before. Their configs are written before it."""
    if written := sweep.read(f"rounds/{name}.json"):
        return programs.from_json(written)
    settings = {place: own[place].setting for place in alive}
    rung, configs = prepare(request, settings, questions, name, divisor)
    for program, run_config in zip(rung.programs, configs, strict=True):
        sweep.write_text(f"programs/{program.name}/{CONFIG}", config.to_yaml(run_config))
    sweep.write(f"rounds/{name}.json", programs.to_json(rung))
    return rung


class Prepared(NamedTuple):
    """A rung with the configs of its programs, before anything is written."""

    rung: Rung
    configs: list[config.RunConfig]


def prepare(
    request: Request, settings: dict[int, Setting], questions: Questions, name: str, divisor: int
) -> Prepared:
    """Return the programs that train these settings on one rung, and their configs."""
    apart = BEST if request.base.evaluation.checkpoint == "best" else None
    divided = programs.divide(settings, request.seeds, questions.find_obstacles, apart)
    pieces: list[list[Trial]] = []
    reasons = divided.reasons
    for group in divided.groups:
        side_by_side = programs.make_config(request, settings, group, divisor)
        limit = questions.count_fitting(side_by_side) if len(group) > 1 else 1
        pieces += programs.cut_group(group, min(limit, MOST_TRIALS))
        if limit < len(group):
            reasons = [*reasons, f"{limit} of {len(group)} trials fit into the memory at once"]
    listed = [Program(f"{name}-{place:03}", trials) for place, trials in enumerate(pieces)]
    configs = [programs.make_config(request, settings, program.trials, divisor) for program in listed]
    return Prepared(Rung(divisor, listed, reasons), configs)


def report(
    sweep: SweepDirectory,
    request: Request,
    numbers: list[int],
    own: list[Climbed],
    measure: scores.Measure | None,
) -> None:
    """Tell the search what the settings of a round reached."""
    sign = -1.0 if measure is not None and measure.higher_is_better else 1.0
    steps = request.base.stages[-1].training.last_step
    reached = []
    for entry in own:
        last = entry.scores[-1]
        value = None if last.diverged else sign * last.mean
        reached.append((-(-steps // entry.divisor), value, entry.divisor == 1))
    searches.report(sweep, request, numbers, reached)


def remember_answers(request: Request, ask_obstacles: AskObstacles, count_fitting: CountFitting) -> Questions:
    """Make questions that are asked once for all settings that differ in numbers alone."""
    obstacles: dict[str, Mapping[str, str | None]] = {}
    most: dict[str, int] = {}  # trials that have been found to fit

    def find_obstacles(setting: Setting) -> Mapping[str, str | None]:
        kind = {key: value for key, value in setting.items() if type(value) not in (int, float)}
        name = json.dumps(kind, sort_keys=True)
        if name not in obstacles:
            run_config = request.load(setting, ["evaluation.split=validation"])
            obstacles[name] = ask_obstacles(run_config, [key for key in setting if key not in kind])
        return obstacles[name]

    def count_at_most(run_config: config.RunConfig) -> int:
        models = repr([(stage.model, stage.algorithm.name) for stage in run_config.stages])
        if most.get(models, 0) < run_config.replicas:
            most[models] = count_fitting(run_config)
        return min(most[models], run_config.replicas)

    return Questions(find_obstacles, count_at_most)
