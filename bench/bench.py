"""Time one outer step of second-order MAML beside a PyTorch loop over tasks that does the same work.

    python bench/bench.py [--quick] [--growth] [--json FILE] [--install-torch] [--against FOLDER]
    python bench/bench.py --sampling [CONFIG ...]

The metarun side is the program of `metarun train`, sampling and Adam included; the PyTorch side is
`_bench_torch.py`, with the number of threads that is fastest for the setting. Both live in processes of their own and
take turns, so that a busy machine hits both alike. --against adds another checkout of metarun to the turns, such as
the commit before a change; it runs in this Python, with its own bench/.

torch has an environment of its own, .venv-torch in the repository's root, which --install-torch makes; or
METARUN_TORCH_PYTHON is a Python that has it. Without torch, metarun is timed alone.

pip takes torch from its configured index. On Linux that may bring the CUDA libraries too: PIP_INDEX_URL can name
an index of CPU wheels.

By default each side runs as it comes: metarun asks glibc for large pages when it starts (`metarun.large_pages`), and
torch does not. --large-pages gives them to torch too.

--sampling measures instead what drawing a step's tasks costs beside the whole training step, for the configs that are
named, or for one config of every task family whose data is there.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

import _bench_report
import _bench_sampling
import _bench_settings
from _bench_report import BEFORE, OURS, TORCH_SIDE, Result, align
from _bench_settings import Setting

from metarun import large_pages

BENCH = Path(__file__).resolve().parent
TORCH_ENVIRONMENT = BENCH.parent / ".venv-torch"
TORCH = "torch==2.13.0"
TICKS = os.sysconf("SC_CLK_TCK")  # of the clock of /proc, a second


class Command(NamedTuple):
    """How the worker of a side is started."""

    arguments: list[str]
    environment: dict[str, str]


class Worker:
    """A process that takes steps of one setting when it is told to."""

    def __init__(self, side: str, command: Command, setting: Setting) -> None:
        self.side = side
        self.process = subprocess.Popen(
            [*command.arguments, _bench_settings.encode(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=command.environment,
        )
        self.facts = self.receive()

    def receive(self) -> dict[str, Any]:
        """Return the next line of the process."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.side} ended with exit code {self.process.wait()}; its errors stand above"
            )
        message: dict[str, Any] = json.loads(line)
        return message

    def take_steps(self, count: int) -> dict[str, Any]:
        """Let the process take some steps; return {"seconds": and "core_seconds": of one of them, "memory": bytes}."""
        assert self.process.stdin is not None
        before = read_core_seconds(self.process.pid)
        print(count, file=self.process.stdin, flush=True)
        answer = self.receive()
        used = read_core_seconds(self.process.pid) - before
        # A worker takes one step more, which it does not time.
        return answer | {"core_seconds": used / (count + 1)}

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def read_core_seconds(process: int) -> float:
    """Return the seconds that a process has computed on all cores, in user and system; NaN if Linux does not say."""
    file = Path(f"/proc/{process}/stat")
    if not file.exists():
        return math.nan
    user, system = file.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS


def compare_sides(commands: dict[str, Command], setting: Setting, repeats: int, seconds: float) -> Result:
    """Measure all sides on one setting, in turns, with as many steps in each repeat as last about `seconds`."""
    workers = {side: Worker(side, command, setting) for side, command in commands.items()}
    steps = {side: choose_steps(worker, seconds) for side, worker in workers.items()}
    measured: dict[str, list[dict[str, Any]]] = {side: [] for side in workers}
    for _ in range(repeats):
        for side, worker in workers.items():
            measured[side].append(worker.take_steps(steps[side]))
    result: Result = {"setting": setting.name}
    for side, worker in workers.items():
        worker.close()
        result[side] = {
            **worker.facts,
            "seconds": [repeat["seconds"] for repeat in measured[side]],
            "core_seconds": [repeat["core_seconds"] for repeat in measured[side]],
            "steps_per_repeat": steps[side],
            "memory": max(repeat["memory"] for repeat in measured[side]),
        }
    return result


def choose_steps(worker: Worker, seconds: float) -> int:
    """Return how many steps last about `seconds`; the first ones warm the worker up."""
    worker.take_steps(1)
    return max(1, round(seconds / worker.take_steps(3)["seconds"]))


def install_torch() -> None:
    """Make .venv-torch, or bring its torch up to date."""
    venv.create(TORCH_ENVIRONMENT, with_pip=True)
    subprocess.run([TORCH_ENVIRONMENT / "bin" / "python", "-m", "pip", "install", TORCH, "numpy"], check=True)


def make_commands(cache: Path, against: Path | None) -> dict[str, Command]:
    """Return the command that starts each side; torch is left out if it is not there.

    metarun gets the environment in which `metarun train` starts itself, and a cache of its own below `cache`: nothing
    is compiled before, so that compilation is measured too.
    """
    commands = {OURS: make_metarun_command(BENCH.parent, cache / OURS)}
    if against is not None:
        commands[BEFORE] = make_metarun_command(against.resolve(), cache / BEFORE)
    torch_python = os.environ.get("METARUN_TORCH_PYTHON") or str(TORCH_ENVIRONMENT / "bin" / "python")
    if Path(torch_python).exists():
        commands[TORCH_SIDE] = Command([torch_python, str(BENCH / "_bench_torch.py")], dict(os.environ))
    else:
        print(f"no torch: {torch_python} is not there (--install-torch makes it)", file=sys.stderr)
    return commands


def make_metarun_command(checkout: Path, cache: Path) -> Command:
    """Return the command that starts the worker of a checkout of metarun, with the package of that checkout."""
    worker = checkout / "bench" / "_bench_metarun.py"
    if not worker.exists():
        raise SystemExit(f"{checkout} is no checkout of metarun with a bench/")
    paths = {"PYTHONPATH": str(checkout), "METARUN_CACHE": str(cache)}
    return Command([sys.executable, str(worker)], large_pages.add_large_pages(os.environ) | paths)


def measure(commands: dict[str, Command], quick: bool, growth: bool) -> dict[str, Any]:
    """Measure everything that the report holds."""
    facts, ours = _bench_report.describe_machine(), commands[OURS]
    repeats, seconds = (3, 2.0) if quick else (5, 4.0)
    settings = [_bench_settings.SINUSOID, _bench_settings.FIVE_WAY]
    settings += [] if quick else [_bench_settings.TWENTY_WAY]
    peak = subprocess.run(
        [*ours.arguments, "peak"], check=True, stdout=subprocess.PIPE, text=True, env=ours.environment
    )
    series = {"settings": settings} | ({"growth": _bench_settings.make_growth(quick)} if growth else {})
    report = {"machine": facts, **json.loads(peak.stdout)}
    for name, members in series.items():
        report[name] = []
        for setting in members:
            print(f"measuring {setting.name}", file=sys.stderr)
            report[name].append(compare_sides(commands, setting, repeats, seconds))
    return report


def measure_sampling(configs: list[Path]) -> str:
    """Return a table of the sampling of each config beside its training step, both run as `metarun train` does."""
    environment = large_pages.add_large_pages(os.environ)
    facts = _bench_report.describe_machine()
    heading = f"{facts['processor']}, {facts['cores']} cores, load {facts['load']:.1f}"
    rows = [_bench_sampling.HEADER, *_bench_sampling.measure_configs(configs, environment)]
    return "\n\n".join([heading, align(rows)])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller settings, fewer repeats")
    parser.add_argument(
        "--growth",
        action="store_true",
        help="also with more tasks, inner steps and shots; see bench_growth.py",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument(
        "--large-pages", action="store_true", help="for torch too; metarun always asks for them itself"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another checkout of metarun, to measure in turns with this one",
    )
    parser.add_argument("--install-torch", action="store_true", help="make .venv-torch first")
    parser.add_argument(
        "--sampling", type=Path, nargs="*", metavar="CONFIG", help="measure the sampling of these instead"
    )
    arguments = parser.parse_args()
    if arguments.install_torch:
        install_torch()
    if arguments.large_pages:
        os.environ.update(large_pages.add_large_pages(os.environ))
    with tempfile.TemporaryDirectory() as cache:
        if arguments.sampling is not None:
            os.environ["METARUN_CACHE"] = cache
            print(measure_sampling(arguments.sampling))
            return
        report = measure(make_commands(Path(cache), arguments.against), arguments.quick, arguments.growth)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(_bench_report.format_report(report))


if __name__ == "__main__":
    main()
