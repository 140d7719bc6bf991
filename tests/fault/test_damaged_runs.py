"""Damaged run directories: every command refuses them with its own exit code, or says what it says of the intact run.

A try copies a small trained run, damages it somewhere, and opens it with `eval`, `compare`, `runs` and what `report`
reads, in this process. No try may end in a traceback, wait, say another number with exit code 0, or write anything but
`ceiling.json`. `train --resume` must give the result of the uninterrupted run, or refuse.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fault.share import seed, share
from helpers import runs
from helpers.attacks import Attack
from helpers.commands import Said
from metarun import errors
from metarun.runs import strict_json

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")

LONGEST = 150  # seconds for one command on one run; one that hangs takes for ever
SPARSE = 40 * 10**9  # bytes
CODES = {"eval": {0, 4, 5}, "compare": {0, 4, 5}, "runs": {0}, "report": {0, 5}, "resume": {0, 3, 4, 5, 6, 8}}
KEPT = ("ceiling.json",)  # what reading a run may write into it


class HungError(BaseException):
    """A command has not come back."""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Raise HungError inside the `with` when it lasts too long."""

    def ring(*_: object) -> None:
        raise HungError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- the damage ---


def list_files(run: Path) -> list[Path]:
    """Return the regular files of a run that metarun reads."""
    silent = ("lock", "log.txt")
    found = [path for path in sorted(run.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [path for path in found if path.name not in silent and path.suffix != ".png"]


def flip(run: Path, draw: random.Random, other: Path) -> str:
    """Flip one bit of a file."""
    path = draw.choice([path for path in list_files(run) if path.stat().st_size])
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return f"bit flipped in byte {place} of {path.relative_to(run)}"


def cut(run: Path, draw: random.Random, other: Path) -> str:
    """Cut a file short."""
    path = draw.choice([path for path in list_files(run) if path.stat().st_size])
    size = draw.randrange(path.stat().st_size)
    path.write_bytes(path.read_bytes()[:size])
    return f"{path.relative_to(run)} cut to {size} bytes"


def delete(run: Path, draw: random.Random, other: Path) -> str:
    """Remove a file or a folder."""
    path = draw.choice([path for path in sorted(run.rglob("*")) if path.name != "lock"])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"{path.relative_to(run)} removed"


def swap(run: Path, draw: random.Random, other: Path) -> str:
    """Exchange two files of the run."""
    one, two = draw.sample(list_files(run), 2)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    return f"{one.relative_to(run)} and {two.relative_to(run)} exchanged"


def take(run: Path, draw: random.Random, other: Path) -> str:
    """Put a file of another run, or its whole checkpoints, in the place of one's own."""
    shared = [path for path in list_files(run) if (other / path.relative_to(run)).is_file()]
    path = draw.choice([*shared, run / "checkpoints"]).relative_to(run)
    if (run / path).is_dir():
        shutil.rmtree(run / path)
        shutil.copytree(other / path, run / path)
    else:
        shutil.copy(other / path, run / path)
    return f"{path} of another run"


def place(run: Path, draw: random.Random, other: Path) -> str:
    """Put something strange in the place of a file."""
    path = draw.choice(list_files(run))
    path.unlink()
    makers: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo,
        "a folder": lambda path: path.mkdir(),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to nowhere": lambda path: path.symlink_to("nowhere"),
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a sparse file": lambda path: path.touch() or os.truncate(path, SPARSE),
        "nothing": lambda path: path.touch(),
        "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe" * 50),
        "deep brackets": lambda path: path.write_text("[" * 100_000),
        "an object": lambda path: path.write_text("{}"),
        "a list": lambda path: path.write_text("[1]"),
    }
    kind = draw.choice(sorted(makers))
    makers[kind](path)
    return f"{kind} in the place of {path.relative_to(run)}"


def list_leaves(tree: Any, keys: tuple = ()) -> list[tuple]:
    """Return the ways to all values of a JSON tree, sections included."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [way for key, value in members for way in [(*keys, key), *list_leaves(value, (*keys, key))]]


def change(value: Any, draw: random.Random) -> Any:
    """Return another value in the place of a value of JSON."""
    others: list[Any] = [None, True, "x", "nan", -1, 0, 10**30, 1.5, [], {}, [value], {"a": value}]
    if isinstance(value, int | float) and not isinstance(value, bool):
        others += [value + 1, -value - 1, value * 10 + 1, str(value)] * 3
    if isinstance(value, str):
        others += [value + "x", value[:-1], "../../../etc/passwd", "a\x1b[31m\nb"]
    return draw.choice([other for other in others if json.dumps(other) != json.dumps(value)])


def edit(run: Path, draw: random.Random, other: Path, sealed: bool = False) -> str:
    """Change or remove one value in a JSON file; `sealed`: with the digest that fits."""
    path = draw.choice([path for path in list_files(run) if path.suffix == ".json"])
    content = json.loads(path.read_text())
    *keys, last = draw.choice([way for way in list_leaves(content) if way != (strict_json.SEAL,)])
    section = content
    for key in keys:
        section = section[key]
    if draw.random() < 0.3:
        del section[last]
        what = "removed"
    else:
        section[last] = change(section[last], draw)
        what = f"is now {section[last]!r:.60}"
    if sealed and strict_json.SEAL in content:
        content = strict_json.seal(content)
    path.write_text(json.dumps(content))
    return f"{'.'.join(map(str, [*keys, last]))} of {path.relative_to(run)} {what}"


def edit_config(run: Path, draw: random.Random, other: Path) -> str:
    """Change a digit of config.yaml."""
    path = run / "config.yaml"
    text = path.read_text()
    digits = [index for index, letter in enumerate(text) if letter.isdigit()]
    index = draw.choice(digits)
    digit = draw.choice([digit for digit in "0123456789" if digit != text[index]])
    path.write_text(text[:index] + digit + text[index + 1 :])
    return f"digit {index} of config.yaml is now {digit}"


DAMAGES = (flip, flip, cut, delete, swap, take, place, place, edit, edit, edit_config)


# --- what the commands say ---


def forget_place(value: Any, run: Path) -> Any:
    """Return a JSON value in which the place of the run is forgotten."""
    return json.loads(json.dumps(value).replace(str(run), "RUN"))


class Reader:
    """The commands on one run, and what they have said of the intact one."""

    def __init__(self, metarun_: Callable[..., Said], intact: Path) -> None:
        self.metarun_ = metarun_
        self.intact = intact

    def call(self, name: str, run: Path) -> tuple[int, Any, Said]:
        """Return the exit code of a command, what it says as JSON, and all that it said."""
        arguments = {
            "eval": ("eval", run, "--json"),
            "compare": ("compare", run, self.intact, "--json"),
            "runs": ("runs", "list", run, "--json"),
        }
        with alarm():
            said = self.metarun_(*arguments[name])
        return said.code, json.loads("\n".join(said.out)) if said.code == 0 else None, said

    def report(self, run: Path) -> tuple[int, Any, Said]:
        """Return what a report has read of the run, as `call` does; the page itself is not drawn."""
        from metarun.errors import MetarunError
        from metarun.reports import outcome_tables, run_record, run_section

        with alarm():
            try:
                (record,) = run_record.read_records([run])
                section = run_section.make_section(record, "run-1")
            except MetarunError as error:
                return error.exit_code, None, Said(error.exit_code, [], str(error).splitlines())
        result = record.result or {}
        tables = {
            "outcome": section.outcome and section.outcome._asdict(),
            "cost": section.cost._asdict(),
            "headline": outcome_tables.describe_headline(result) if result else "",
            "config": record.config,
            "result": result,
            "rows": [json.dumps(row) for row in record.rows],
            "gaps": record.gaps,
        }
        return 0, json.loads(json.dumps(tables)), Said(0, [], [])


def find_lies(name: str, now: Any, before: Any) -> list[str]:
    """Return what a command says of a damaged run, with exit code 0, that it does not say of the intact one."""
    if name == "runs":
        if len(now["runs"]) != 1:  # it is taken for no run, but for a folder of folders
            return [line["name"] for line in now["runs"] if line["result"] or not line["problem"]]
        (line,), (known,) = now["runs"], before["runs"]
        if line["problem"]:
            return [key for key in ("result", "steps") if line[key] not in (known[key], None, {})]
        # When a run last said how it stands is in status.json alone, which nothing seals.
        return [
            key for key in known.keys() - {"age_seconds", "updated"} if line[key] not in (known[key], None)
        ]
    if name == "report":
        lies = [key for key in ("config", "result") if now[key] not in (before[key], {})]
        lies += [key for key in ("outcome", "headline") if now[key] not in (before[key], None, "")]
        for row, known in zip(now["cost"]["rows"], before["cost"]["rows"], strict=False):
            lies += ["cost"] * any(cell not in ("", other) for cell, other in zip(row, known, strict=True))
        rows = set(now["rows"]) <= set(before["rows"]) and len(now["rows"]) <= len(before["rows"])
        lies += ["rows"] * (not rows and now["gaps"] == before["gaps"])
        return lies + ["silence"] * (now["rows"] != before["rows"] and now["gaps"] == before["gaps"])
    return list_differences(now, before)


def list_differences(now: Any, before: Any, place: str = "") -> list[str]:
    """Return where a JSON value has something else than another one; null in its place is no lie."""
    if isinstance(now, dict) and isinstance(before, dict) and now.keys() == before.keys():
        return [entry for key in now for entry in list_differences(now[key], before[key], f"{place}.{key}")]
    if isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        pairs = enumerate(zip(now, before, strict=True))
        return [entry for index, pair in pairs for entry in list_differences(*pair, f"{place}.{index}")]
    return [] if now is None or now == before else [place]


def look(folder: Path, skipped: Path | None = None) -> dict[str, Any]:
    """Return what lies in a folder: name, kind, size and, of small files, the content."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in KEPT or (skipped is not None and path.is_relative_to(skipped)):
            continue
        status = path.lstat()
        small = path.is_file() and not path.is_symlink() and status.st_size < 10**6
        found[str(path)] = (status.st_mode, status.st_size, path.read_bytes() if small else b"")
    return found


@pytest.fixture(scope="module")
def place_of_runs(tmp_path_factory) -> Path:
    """A folder with a small trained run, and one of another seed."""
    folder = tmp_path_factory.mktemp("intact")
    # Curves and validations, several checkpoints, and a result with the unadapted learner.
    runs.train(folder / "one")
    runs.train(folder / "two", runs.SINGLE, "seed=7")
    return folder


def copy(source: Path, target: Path) -> Path:
    """Copy a run in the place of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target


def judge(code: int, said: Said, allowed: set[int]) -> str | None:
    """Return what is wrong with how a command ended; None: nothing."""
    text = "\n".join(said.err)
    if code not in allowed:
        return f"exit code {code}: {text[-300:]}"
    heads = [line.partition(": ")[0] for line in said.err[-3:]]
    if "Traceback" in text or (code and heads != ["error", "where", "to do"]):
        return f"not three lines: {text[-300:]}"
    return None


def attack_reading(
    attack: Attack,
    reader: Reader,
    folder: Path,
    damage: Callable[..., str],
    draw: random.Random,
    truth: bool,
) -> None:
    """Damage a copy of the run, and let every command read it.

    Args:
      truth: whether what is said with exit code 0 is compared with what was said of the intact run.
    """
    run = copy(folder / "one", folder / "damaged")
    what = damage(run, draw, folder / "two")
    inside, outside = look(run), look(folder, run)
    for name in ("eval", "compare", "runs", "report"):
        attack.tries += 1
        try:
            code, now, said = reader.report(run) if name == "report" else reader.call(name, run)
        except HungError:
            attack.fail(f"{what}: {name} has not come back in {LONGEST} s")
            continue
        except Exception as error:
            attack.fail(f"{what}: {name} raised {type(error).__name__}: {error}")
            continue
        # With fitting digests it may be a run of other episodes, which nobody compares.
        if wrong := judge(code, said, CODES[name] | (set() if truth else {errors.UsageError.exit_code})):
            attack.fail(f"{what}: {name} ended with {wrong}")
        elif code == 0 and truth and (lies := find_lies(name, forget_place(now, run), reader.known[name])):
            attack.fail(f"{what}: {name} says another {', '.join(lies)}")
    if look(run) != inside or look(folder, run) != outside:
        attack.fail(f"{what}: something was written")


@pytest.fixture
def reader(metarun_, place_of_runs) -> Reader:
    """The commands, with what they say of the intact run."""
    reader = Reader(metarun_, place_of_runs / "two")
    reader.call("compare", place_of_runs / "one")  # which leaves ceiling.json
    run = copy(place_of_runs / "one", place_of_runs / "damaged")
    answers = {name: reader.call(name, run) for name in ("eval", "compare", "runs")}
    answers["report"] = reader.report(run)
    assert all(code == 0 for code, _, _ in answers.values()), answers
    reader.known = {name: forget_place(now, run) for name, (_, now, _) in answers.items()}
    return reader


def test_a_damaged_run_is_refused_or_says_what_it_said(attack, reader, place_of_runs):
    draw = random.Random(seed())
    for index in range(share(40)):
        attack_reading(attack, reader, place_of_runs, DAMAGES[index % len(DAMAGES)], draw, truth=True)


def test_a_run_that_was_edited_and_sealed_anew_ends_no_command_in_a_traceback(attack, reader, place_of_runs):
    """Whoever writes the digests, too, may say what he likes; only types and places are left to be checked."""
    draw = random.Random(seed() + 1)

    def damage(run: Path, draw: random.Random, other: Path) -> str:
        return edit(run, draw, other, sealed=True)

    for _ in range(share(12)):
        attack_reading(attack, reader, place_of_runs, damage, draw, truth=False)


def test_a_damaged_run_is_resumed_to_the_same_result_or_refused(attack, metarun_, place_of_runs):
    draw = random.Random(seed() + 2)
    reference = place_of_runs / "one"
    for index in range(share(11)):
        attack.tries += 1
        run = copy(reference, place_of_runs / "damaged")
        what = DAMAGES[index % len(DAMAGES)](run, draw, place_of_runs / "two")
        outside = look(place_of_runs, run)
        try:
            with alarm(), contextlib.redirect_stdout(io.StringIO()):
                said = metarun_("train", "--resume", run)
        except HungError:
            attack.fail(f"{what}: resume has not come back in {LONGEST} s")
            continue
        if wrong := judge(said.code, said, CODES["resume"]):
            attack.fail(f"{what}: resume ended with {wrong}")
        elif said.code == 0:
            try:
                runs.assert_same_run(run, reference)
            except AssertionError as error:
                if "set aside" not in "\n".join(said.err):
                    attack.fail(f"{what}: resume gave another run: {str(error)[:200]}")
        if look(place_of_runs, run) != outside:
            attack.fail(f"{what}: something outside was written")
