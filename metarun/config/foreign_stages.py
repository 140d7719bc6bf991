"""Stages of other runs that a file names: `init_from` starts a stage from the weights of one, `taken_from` is one.

    stages:
      - {name: teacher, taken_from: latest}                          # a whole stage, as it was trained
      - {name: student, init_from: omniglot-maml/maml, model: ...}   # a stage that begins with its weights

A file names the run as every command does. The bound config has the whole path of the run and the stage in this place,
and a stage that is taken has all its sections, so that the config of a run stands alone. The stages that it stands on
come along, each under the name of the stage, a dash and its own name. This module reads configs, and no weights.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from metarun.config.origin import Origin, choose, join
from metarun.config.schema import RunConfig, Stage
from metarun.config.selection import Selection
from metarun.errors import MetarunError

INIT, TAKEN = "init_from", "taken_from"
SECTIONS = ("model", "algorithm", "training")  # that a stage of the file's own has
CONFIG = "config.yaml"  # in a run directory

# The name of a stage of another run -> the run directory, and the stage and the step where the name says them.
Locate = Callable[[str], tuple[Path, str | None, int | None]]


class Reader(NamedTuple):
    """How configs of other runs are found and read."""

    locate: Locate | None
    load: Callable[[Path], RunConfig]
    to_plain: Callable[[Any], Any]  # a part of a config -> plain values


class Source(NamedTuple):
    """A stage of another run."""

    run: Path
    config: RunConfig
    stage: Stage
    step: int | None  # None: the checkpoint that the other run evaluates

    def write(self, stage: str) -> str:
        """Return the whole name of a stage of the run. The step is that of the named stage alone."""
        if self.step is not None and stage == self.stage.name:
            return str(self.run / "checkpoints" / stage / str(self.step))
        return str(self.run / stage)


def fill_in(mapping: dict[str, Any], origin: Origin, reader: Reader) -> tuple[dict[str, Any], Origin]:
    """Return a mapping in which every stage has its sections and whole names of other runs, and where its values lie.

    Raises:
      ConfigError: a taken stage has sections of its own, or the other run has no such stage.
      MetarunError: what `locate` raises about a run.
    """
    stages = mapping.get("stages")
    if not isinstance(stages, list):
        return name_start(mapping, "", origin, reader), origin
    filled: list[Any] = []
    places: dict[str, str] = {}  # {index in the file: index among all stages}
    for index, stage in enumerate(stages):
        path = join("stages", index)
        refuse_other_values(stage, path, origin)
        if is_bare(stage):
            filled += expand(stage, path, origin, reader)
        else:
            filled.append(name_start(stage, path, origin, reader))
        places[str(index)] = str(len(filled) - 1)
    return {**mapping, "stages": filled}, move(origin, places)


def refuse_other_values(stage: Any, path: str, origin: Origin) -> None:
    """Raise ConfigError if a stage is taken from something that is no text."""
    value = stage.get(TAKEN) if isinstance(stage, dict) else None
    if value is not None and not isinstance(value, str):
        what = f"{TAKEN} is {value}, and not the name of a run"
        raise origin.make_error(join(path, TAKEN), what, "write RUN or RUN/STAGE, as text")


def is_bare(stage: Any) -> bool:
    """Return whether a stage is taken from another run whose config was not read yet."""
    if not isinstance(stage, dict) or not all(isinstance(stage.get(key), str) for key in ("name", TAKEN)):
        return False
    return not all(section in stage for section in SECTIONS)


def name_start(section: Any, path: str, origin: Origin, reader: Reader) -> Any:
    """Return a stage with the whole name of the stage that it starts from. A whole name is left alone."""
    name = section.get(INIT) if isinstance(section, dict) else None
    if not isinstance(name, str) or reader.locate is None or Path(name).is_absolute():
        return section
    source = find(name, join(path, INIT), origin, reader)
    return {**section, INIT: source.write(source.stage.name)}


def expand(stage: dict[str, Any], path: str, origin: Origin, reader: Reader) -> list[dict[str, Any]]:
    """Return the sections of a stage that is taken from another run, behind those of the stages that it stands on."""
    name, taken = stage["name"], stage[TAKEN]
    own = [key for key, value in stage.items() if key not in ("name", TAKEN) and value is not None]
    if own:
        what = f"the stage {name} is taken whole from {taken}, and has {own[0]} of its own"
        remedy = f"leave {own[0]} out; or write {INIT} for a stage that is trained from those weights"
        raise origin.make_error(join(path, own[0]), what, remedy)
    source = find(taken, join(path, TAKEN), origin, reader)
    if source.config.trials is not None and source.config.trials.numbers:
        what = f"the replicas of {source.run} are trials with different numbers"
        raise origin.make_error(join(path, TAKEN), what, "take the stage from a run of one setting")
    foundations = list_foundations(source.config.stages, source.stage)
    names = {foundation.name: f"{name}-{foundation.name}" for foundation in foundations}
    return [
        describe(settings, {**names, source.stage.name: name}, source, reader)
        for settings in (*foundations, source.stage)
    ]


def describe(settings: Stage, names: dict[str, str], source: Source, reader: Reader) -> dict[str, Any]:
    """Return the sections of one stage of another run, with the names that the stages have here."""
    algorithm = rename_references(settings.algorithm, names)
    taken = dataclasses.replace(
        settings,
        name=names[settings.name],
        algorithm=algorithm,
        draws_as=None,
        init_from=None,
        taken_from=source.write(settings.name),
    )
    plain: dict[str, Any] = reader.to_plain(taken)
    return plain


def find(name: str, path: str, origin: Origin, reader: Reader) -> Source:
    """Return the stage of another run that a file names: the one that is named, or the last one.

    Raises:
      ConfigError: the run has no such stage, or other runs are not looked for here.
      MetarunError: what `locate` raises.
    """
    if reader.locate is None:
        raise origin.make_error(path, f"{name} is not looked for here", "use `metarun train`")
    try:
        run, stage, step = reader.locate(name)
    except MetarunError as error:
        raise type(error)(error.what, f"{origin.locate(path)}: {error.where}", error.remedy) from None
    config = reader.load(run / CONFIG)
    stages = {settings.name: settings for settings in config.stages}
    if stage is not None and stage not in stages:
        raise origin.make_error(path, f"the run {run} has no stage {stage}", choose(stage, stages))
    return Source(run, config, stages[stage] if stage else config.stages[-1], step)


def list_foundations(stages: Sequence[Stage], settings: Stage) -> list[Stage]:
    """Return the stages that a stage stands on, in their order, and those that these stand on."""
    before = stages[: [stage.name for stage in stages].index(settings.name)]
    foundations: list[Stage] = []
    needed = list_references(settings.algorithm)
    for stage in reversed(before):
        if stage.name in needed:
            foundations.insert(0, stage)
            needed |= list_references(stage.algorithm)
    return foundations


def list_references(algorithm: Selection) -> set[str]:
    """Return all texts among the options of an algorithm that may name a stage; a choice among words is none."""
    values = [getattr(algorithm.config, option) for option in list_text_options(algorithm)]
    return {text for value in values for text in (value if isinstance(value, tuple) else (value,)) if text}


def rename_references(algorithm: Selection, names: dict[str, str]) -> Selection:
    """Return an algorithm whose options name stages by other names."""

    def rename(value: Any) -> Any:
        return tuple(map(rename, value)) if isinstance(value, tuple) else names.get(value, value)

    options = {option: rename(getattr(algorithm.config, option)) for option in list_text_options(algorithm)}
    return Selection(algorithm.name, dataclasses.replace(algorithm.config, **options))


def list_text_options(algorithm: Selection) -> list[str]:
    """Return the options that are a text, or a list of texts."""
    hints = get_type_hints(type(algorithm.config), include_extras=True)
    fields = [field.name for field in dataclasses.fields(algorithm.config) if field.init]
    return [name for name in fields if str in (hints[name], *get_args(hints[name]))]


def move(origin: Origin, places: dict[str, str]) -> Origin:
    """Return where the values come from, when stages were put between those of the file."""

    def move_path(path: str) -> str:
        head, *rest = path.split(".")
        return (
            ".".join([head, places.get(rest[0], rest[0]), *rest[1:]]) if head == "stages" and rest else path
        )

    lines = {move_path(path): place for path, place in origin.places.items()}
    return Origin(origin.file, lines, {move_path(path): text for path, text in origin.overrides.items()})
