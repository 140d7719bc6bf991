"""Mutated configurations: each is read, or refused with three lines and exit code 3, within a second.

The configurations that come with metarun are changed by hypothesis: values, keys and sections of the tree, and letters
of the text.
"""

import copy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies

from fault import pace
from fault.share import seed, share
from helpers.processes import environment
from metarun import config
from metarun.config import yaml_file
from metarun.errors import MetarunError

ROOT = Path(__file__).parents[2] / "configs"
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(ROOT.glob("*/*.yaml"))}
TREES = {name: yaml_file.parse(text, name).value for name, text in TEXTS.items()}
READER = """
import pathlib, sys, time
from metarun import config, errors
first, file = map(pathlib.Path, sys.argv[1:])
config.load(first)  # what is imported once is not counted
began = time.process_time()
try:
    config.load(file)
except errors.MetarunError:
    pass
print(time.process_time() - began)
"""
SECONDS = 3.0  # of the processor, for one configuration, on a core as `pace` says; the longest takes 0.9
CODES = {3, 4, 5}  # a configuration may name files and runs that are not there

NUMBERS = [0, 1, -1, 10**6, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 10**400, 0.0, -0.0, 1e-320, 1e308]
NUMBERS += [float("nan"), float("inf"), float("-inf"), 0.5]
WORDS = [
    "",
    " ",
    "???",
    "null",
    "~nosuchuser/x",
    "../..",
    "/dev/zero",
    ".",
    "x" * 5000,
    "\x1b[31m",
    "a\nb",
    "\u202e",
]
WORDS += [
    "${seed}",
    "${training}",
    "${oc.env:HOME}",
    "${x",
    "😀",
    "../x.py:build",
    "a.b:c",
    "name",
    "\x00",
    "0,1,5",
]
NESTED: Any = "deep"
for _ in range(20):
    NESTED = [NESTED]
STRANGE = [
    None,
    True,
    [],
    {},
    [[]],
    [None],
    {"name": "maml"},
    {"name": []},
    {"": 1},
    {"a": {"b": {}}},
    NESTED,
    [1] * 500,
]
values = strategies.one_of(
    strategies.sampled_from([*NUMBERS, *WORDS, *STRANGE]),
    strategies.integers(),
    strategies.floats(),
    strategies.text(max_size=30),
    strategies.lists(strategies.integers(-5, 10**7), max_size=5),
)


def list_places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Return the paths of all values in a tree but its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in [(*path, key), *list_places(value, (*path, key))]]


def change(tree: Any, place: tuple, how: str, value: Any, other: str) -> None:
    """Change the value at a place of a tree."""
    section = tree
    for key in place[:-1]:
        section = section[key]
    if how == "set":
        section[place[-1]] = value
    elif how == "remove":
        del section[place[-1]]
    elif how == "wrap":
        section[place[-1]] = [section[place[-1]]] * 2
    elif isinstance(section, dict):
        section[other] = section.pop(place[-1])


@strategies.composite
def mutate_trees(draw: Any) -> str:
    """Draw the text of a configuration whose tree was changed in some places."""
    tree = copy.deepcopy(TREES[draw(strategies.sampled_from(sorted(TREES)))])
    for _ in range(draw(strategies.integers(1, 4))):
        if places := list_places(tree):
            how = draw(strategies.sampled_from(["set", "set", "set", "remove", "wrap", "rename"]))
            other = draw(
                strategies.one_of(
                    strategies.text(max_size=8), strategies.sampled_from(["steps", "name", "seed"])
                )
            )
            change(tree, draw(strategies.sampled_from(places)), how, copy.deepcopy(draw(values)), other)
    return yaml.safe_dump(
        tree, allow_unicode=draw(strategies.booleans()), default_flow_style=draw(strategies.booleans())
    )


@strategies.composite
def mutate_texts(draw: Any) -> str:
    """Draw the text of a configuration with other letters in some places."""
    text = TEXTS[draw(strategies.sampled_from(sorted(TEXTS)))]
    for _ in range(draw(strategies.integers(1, 6))):
        place, length = draw(strategies.integers(0, len(text))), draw(strategies.integers(0, 40))
        new = draw(
            strategies.one_of(
                strategies.text(max_size=5), strategies.sampled_from(["{", "[" * 50, "&a ", "!!x ", "\t"])
            )
        )
        text = text[:place] + new * draw(strategies.sampled_from([1, 1, 1, 200])) + text[place + length :]
    return text


def describe_fault(file: Path) -> str | None:
    """Read a configuration, and return what is wrong with how it was read or refused; None: nothing.

    One that takes too long is read once more by a process of its own: here the type checks of the tests take half of
    the time, and what other tests have left in memory is searched for garbage.
    """
    fault, seconds = read_config(file)
    if fault is None and seconds > SECONDS:
        done = subprocess.run(
            [sys.executable, "-c", READER, str(ROOT / "sinusoid/maml.yaml"), str(file)],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        seconds = float(done.stdout)
        if seconds > pace.allow(SECONDS):
            return f"{seconds:.1f} s"
    return fault


def read_config(file: Path) -> tuple[str | None, float]:
    """Return what is wrong with how a configuration was read or refused, and the seconds that it took."""
    began, seconds = time.process_time(), 0.0
    try:
        run_config = config.load(file)
        seconds = time.process_time() - began
        config.to_yaml(run_config)
    except MetarunError as error:
        seconds = seconds or time.process_time() - began
        if error.exit_code not in CODES:
            return f"exit code {error.exit_code}: {error}", seconds
        if str(error).count("\n") != 2:
            return f"not three lines: {error}", seconds
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}", seconds
    return None, seconds


@pytest.mark.parametrize("mutate", [mutate_trees, mutate_texts])
def test_a_mutated_configuration_is_read_or_refused(tmp_path, attack, mutate):
    file = tmp_path / "mutated.yaml"
    config.load(ROOT / "sinusoid/maml.yaml")  # the imports that the first configuration pays for

    @hypothesis.seed(seed())
    @hypothesis.settings(
        max_examples=share(250),
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(mutate())
    def read(text: str) -> None:
        attack.tries += 1
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        if fault := describe_fault(file):
            attack.fail(f"{fault}\n{text[:1500]}")

    read()


LONGEST = yaml_file.MAX_BYTES
BEGINNING = "task: {name: sinusoid}\nmodel: {name: mlp}\nalgorithm: {name: maml}\ntraining: {steps: 5}\n"
ROOM = LONGEST - len(BEGINNING) - 40
TRIAL_NUMBERS = ["algorithm.inner_lr"]
TRIAL_NUMBERS += [f"training.optimizer.{name}" for name in ("learning_rate", "b1", "b2", "eps")]
TRIAL_VALUES = [float(f"0.0{place + 100}") for place in range(500)]
LONG_TEXTS = {
    "comments": BEGINNING + "#" * ROOM,
    "a key": BEGINNING + "a" * ROOM + ": 1\n",
    "a text": f"{BEGINNING}seed: '{'a' * ROOM}'\n",
    "escapes": BEGINNING + 'seed: "' + r"\x41" * (ROOM // 4) + '"\n',
    "line ends": BEGINNING + "seed: '" + "\n" * ROOM + "'\n",
    "a number": f"{BEGINNING}seed: {'1' * ROOM}\n",
    "keys": BEGINNING + "".join(f"k{place}: {place}\n" for place in range(4900)),
    "references": "".join(f"k{place}: ${{k{place + 1}}}\n" for place in range(4900)),
    "widths": BEGINNING.replace("name: mlp", "name: mlp, hidden: [" + "4, " * 9900 + "4]"),
    "inner steps": f"{BEGINNING}evaluation: {{inner_steps: [{', '.join(map(str, range(9900)))}]}}\n",
    "turns": BEGINNING.replace(
        "steps: 5", f"steps: 5, turns: [{', '.join(f'[p{place}]' for place in range(4000))}]"
    ),
    "trials": f"{BEGINNING}replicas: 500\ntrials: {{seeds: [{', '.join(map(str, range(500)))}], numbers: ["
    + ", ".join(f"{{path: {path}, values: {TRIAL_VALUES}}}" for path in TRIAL_NUMBERS)
    + "]}\n",
    "stages": "task: {name: sinusoid}\nstages:\n"
    + "".join(
        f"  - {{name: s{place}, model: {{name: mlp}}, algorithm: {{name: maml}}, training: {{steps: 5}}}}\n"
        for place in range(100)
    ),
    "brackets": BEGINNING + "a: " + "[" * ROOM,
    "a plug-in": BEGINNING.replace("name: maml", f"name: '{'./' * 60000}x.py'"),
    "too long": "#" * (LONGEST + 1),
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_file_as_long_as_allowed_takes_seconds_at_most(tmp_path, attack, name):
    file = tmp_path / "long.yaml"
    file.write_text(LONG_TEXTS[name])
    config.load(ROOT / "sinusoid/maml.yaml")
    attack.tries += 1
    if fault := describe_fault(file):
        attack.fail(f"{file.stat().st_size} bytes of {name}: {fault}")


HOSTILE = [
    ["replicas=1000000"],
    ["copies=9223372036854775807"],
    ["task.shots=9223372036854775807"],
    ["model.hidden=[100000,100000]"],
    ["replicas=100", "copies=100", "model.hidden=[50000,50000]"],
    ["training.tasks_per_step=100000", "task.queries=100000", "training.task_chunk=null"],
    ["training.optimizer.learning_rate=1e308"],
    ["evaluation.episodes=100000", "replicas=10000"],
]


@pytest.mark.parametrize("overrides", HOSTILE, ids=lambda overrides: " ".join(overrides))
def test_a_command_line_that_asks_for_too_much_is_refused_before_it_is_allocated(tmp_path, attack, overrides):
    run = tmp_path / "runs/run"
    command = [sys.executable, "-m", "metarun", "train", str(ROOT / "sinusoid/maml.yaml"), *overrides]
    attack.tries += 1
    done = subprocess.run(
        [*command, "--run-dir", str(run)],
        env=environment() | {"METARUN_DEBUG": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    diverged = "training.optimizer.learning_rate" in overrides[0]
    if done.returncode != (7 if diverged else 3) or "Traceback" in done.stderr:
        attack.fail(f"exit code {done.returncode}: {done.stderr[-500:]}")
    if run.exists() != diverged:
        attack.fail("a refused run has left a directory")
