"""`metarun sweep`."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarun import errors, signals
from metarun.cli import completion
from metarun.cli.arguments import Json
from metarun.cli.text_tables import align, format_count, format_mean
from metarun.evaluation import wording

if TYPE_CHECKING:
    from metarun.sweeps.course import Questions
    from metarun.sweeps.programs import Program, Rung
    from metarun.sweeps.request import Request
    from metarun.sweeps.sweep_directory import SweepDirectory
    from metarun.sweeps.workers import Report, Slot


Config = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or the name of one: metarun list configs.",
        autocompletion=completion.complete_config,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUES]...",
        help="What to try: KEY=log(1e-4,1e-2,8), KEY=linear(0,1,5), KEY=0.01,0.1, seed=0..2. "
        "KEY=VALUE is an override of all settings.",
        autocompletion=completion.complete_key,
    ),
]
Trials = Annotated[int | None, typer.Option(min=1, help="Settings that a random or TPE search tries.")]
HALVE = "Successive halving: the best 1/K train for K times as many steps."
Halve = Annotated[int | None, typer.Option(min=2, metavar="K", help=HALVE)]
JOBS = "Processes at once, or `devices`. Default: one a GPU; one on a CPU."
SLURM = "Write an array script for SLURM, and train nothing here."
NO_WAIT = "Leave when other processes train all that is left."


def sweep(
    config_file: Config,
    arguments: Settings = None,
    search: Annotated[str | None, typer.Option(help="grid, random or tpe. Default: grid.")] = None,
    trials: Trials = None,
    halve: Halve = None,
    jobs: Annotated[str | None, typer.Option(help=JOBS)] = None,
    sweep_dir: Annotated[Path | None, typer.Option(help="Default: sweeps/<config name>-<hash>.")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help=SLURM)] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help=NO_WAIT)] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained.")] = False,
    as_json: Json = False,
) -> None:
    """Train many settings of a config, rank them on the validation split, and measure the best on the test split.

    Settings that differ in numbers alone train side by side in one program; the others need a program each. The
    same command called again goes on where it was. The last line of stdout is the directory of the sweep, with
    ranking.json, pictures, and winner.yaml, a config that trains alone.
    """
    from metarun import config
    from metarun.cli.train import name_config
    from metarun.runs import strict_json
    from metarun.sweeps import course, execution, probe, request
    from metarun.sweeps.sweep_directory import SweepDirectory

    file = config.find_file(config_file)
    asked = request.read(file, arguments or [], search, trials, halve)
    count = read_jobs(jobs)
    questions = course.remember_answers(asked, probe.find_obstacles, probe.count_fitting)
    if dry_run:
        describe_first_rung(asked)
        return
    folder = sweep_dir or Path("sweeps") / f"{name_config(file)}-{asked.hash()}"
    directory = SweepDirectory.open(folder, asked)
    if slurm:
        write_array(directory, asked, questions)
        return
    say(f"sweep {folder}")
    plan = execution.Plan(questions, count, not no_wait, make_report(), say_rung)
    with stopping():
        ranking = execution.run(directory, asked, plan)
    if ranking is None:
        say("other processes train what is left; the last of them ranks")
    elif as_json:
        typer.echo(strict_json.encode(ranking))
        return
    else:
        print_ranking(ranking, folder)
    typer.echo(folder)


@contextmanager
def stopping() -> Iterator[None]:
    """Let a signal end the command with its exit code, and with the command that goes on."""
    try:
        yield
    except signals.Stopped as stopped:
        say(f"stopped by {stopped}; the states are saved: go on with")
        say(f"  {shlex.join(['metarun', *sys.argv[1:]])}")
        raise typer.Exit(stopped.exit_code) from None


def read_jobs(text: str | None) -> int | None:
    """Return the number of processes at once; None: one a device.

    Raises:
      UsageError: it is neither a number nor `devices`.
    """
    if text is None or text == "devices":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise errors.UsageError(f"--jobs cannot be {text}", "--jobs", "give a number from 1 on, or devices")
    return int(text)


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def say_rung(rung: "Rung") -> None:
    """Print what is trained next."""
    say(format_rung(rung))


def format_rung(rung: "Rung") -> str:
    """Return `8 trials in 2 programs`, and why these are several."""
    trials = sum(len(program.trials) for program in rung.programs)
    steps = f", each for 1/{rung.divisor} of the steps" if rung.divisor > 1 else ""
    reasons = "".join(f"\n  {reason}" for reason in rung.reasons)
    return f"{count_nouns(trials, 'trial')} in {count_nouns(len(rung.programs), 'program')}{steps}{reasons}"


def count_nouns(count: int, noun: str) -> str:
    """Return `1 program` or `2 programs`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def make_report() -> "Report":
    """Make the lines that tell when a program starts and ends."""
    from metarun.sweeps.workers import Report

    has_told = False

    def tell_start(program: "Program", slot: "Slot") -> None:
        device = f" on device {slot.device}" if slot.device is not None else ""
        say(f"program {program.name}: {count_nouns(len(program.trials), 'trial')}{device}")

    def tell_end(program: "Program", seconds: float, outcome: str) -> None:
        say(f"program {program.name}: {outcome} after {seconds:.1f} s")

    def tell_wait(programs: int) -> None:
        nonlocal has_told
        if not has_told:
            say(f"waiting for {count_nouns(programs, 'program')} that other processes train")
        has_told = True

    return Report(tell_start, tell_end, tell_wait)


def describe_first_rung(asked: "Request") -> None:
    """Print what would be trained: the settings, and the programs of the first rung."""
    from metarun.sweeps import course, halving, probe, searches

    count = searches.count_first(asked)
    total = asked.trials or count
    typer.echo(f"{count_nouns(total, 'setting')} with {count_nouns(len(asked.seeds), 'seed')} each")
    if asked.search != "grid":
        typer.echo(f"{asked.search} proposes {count} of them in the first round")
        return
    rungs = halving.list_rungs(count, asked.halve)
    settings = dict(enumerate(asked.list_grid()))
    questions = course.remember_answers(asked, probe.find_obstacles, lambda run_config: run_config.replicas)
    prepared = course.prepare(asked, settings, questions, "000-0", rungs[0].divisor)
    typer.echo(f"{format_rung(prepared.rung)}\nor in more, if fewer trials fit into the memory")
    for rung in rungs[1:]:
        steps = f"1/{rung.divisor} of the steps" if rung.divisor > 1 else "all steps"
        typer.echo(f"then the best {rung.settings} for {steps}")


def write_array(directory: "SweepDirectory", asked: "Request", questions: "Questions") -> None:
    """Plan the next programs, write the array script, and print how to submit it."""
    from metarun.runs import files
    from metarun.sweeps import course, slurm_array

    with directory.locked():
        followed = course.follow(directory, asked, questions)
    tasks = len(followed.rung.programs) if followed.rung else 1
    arguments = [argument for argument in sys.argv[2:] if argument != "--slurm"]
    script = directory.path / slurm_array.SCRIPT
    files.write_output(script, slurm_array.make_script(directory.path, arguments, tasks).encode())
    if followed.rung:
        typer.echo(format_rung(followed.rung))
    typer.echo(shlex.join(["sbatch", str(script)]))


def print_ranking(ranking: dict[str, Any], folder: Path) -> None:
    """Print a line for each setting, best first, then the winner on the test split."""
    keys = ranking["keys"]
    header = ["", *keys, ranking["metric"], "minus the best", "steps"]
    rows = [
        [
            str(place),
            *(format_setting(line["setting"][key]) for key in keys),
            format_mean(line) or "diverged",
            format_mean(line["behind"]),
            format_count(line["steps"]),
        ]
        for place, line in enumerate(ranking["ranking"], start=1)
    ]
    typer.echo(align([header, *rows]))
    better = "higher" if ranking["higher_is_better"] else "lower"
    seeds = len(ranking["seeds"])
    typer.echo(
        f"{ranking['metric']}: {better} is better; {ranking['mode']}; "
        f"{ranking['episodes']['count']} validation episodes ({ranking['episodes']['hash']}), "
        f"mean ± 95 % confidence interval {wording.describe_spread(seeds if seeds > 1 else 0)}, differences by pairs"
    )
    if shares := ranking["importance"]["shares"]:
        parts = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items())
        typer.echo(f"importance ({ranking['importance']['method']}): {parts}")
    winner = ranking["winner"]
    reached = winner["test"]["stages"][ranking["stage"]][ranking["mode"]]["adapted"][ranking["metric"]]
    typer.echo(f"the first on {winner['test']['episodes']['count']} test episodes: {format_mean(reached)}")
    typer.echo(f"it trains alone by: metarun train {folder / winner['config']}")


def format_setting(value: Any) -> str:
    """Return a value of a setting: a number with four digits, anything else as an override has it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
