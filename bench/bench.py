"""Time one outer step of second-order MAML beside a PyTorch loop over tasks that does the same work.

    python bench/bench.py [--quick] [--json FILE] [--install-torch]
    python bench/bench.py --sampling [CONFIG ...]

The metarun side is the program of `metarun train`, sampling and Adam included; the PyTorch side is
`_bench_torch.py`. Both live in processes of their own and take turns, so that a busy machine hits both alike.
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
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import _bench_sampling
import _bench_settings
from _bench_settings import Setting

from metarun import large_pages

BENCH = Path(__file__).resolve().parent
TORCH_ENVIRONMENT = BENCH.parent / ".venv-torch"
TORCH = "torch>=2.13"
SIDES = ("metarun", "torch")
HEADER = (
    "setting",
    "metarun s/step",
    "(min)",
    "torch s/step",
    "(min)",
    "torch/metarun",
    "GFLOP",
    "of peak",
    "sampling",
    "compile s",
    "metarun GB",
    "torch GB",
)

Side = dict[str, Any]  # {"seconds": [repeat], "memory": bytes, facts of the worker}
Result = dict[str, Any]  # {"setting": name, "metarun": Side, "torch": Side}


class Worker:
    """A process that takes steps of one setting when it is told to."""

    def __init__(self, command: list[str], setting: Setting) -> None:
        self.name = Path(command[-1]).name
        # metarun gets the environment in which `metarun train` starts itself.
        ours = self.name == "_bench_metarun.py"
        self.process = subprocess.Popen(
            [*command, _bench_settings.encode(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=large_pages.add_large_pages(os.environ) if ours else None,
        )
        self.facts = self.receive()

    def receive(self) -> dict[str, Any]:
        """Return the next line of the process."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.name} ended with exit code {self.process.wait()}; its errors stand above"
            )
        message: dict[str, Any] = json.loads(line)
        return message

    def take_steps(self, count: int) -> dict[str, Any]:
        """Let the process take some steps, and return {"seconds": of one of them, "memory": bytes}."""
        assert self.process.stdin is not None
        print(count, file=self.process.stdin, flush=True)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare_sides(commands: dict[str, list[str]], setting: Setting, repeats: int, seconds: float) -> Result:
    """Measure all sides on one setting, in turns, with as many steps in each repeat as last about `seconds`."""
    workers = {side: Worker(command, setting) for side, command in commands.items()}
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
            "steps_per_repeat": steps[side],
            "memory": max(repeat["memory"] for repeat in measured[side]),
        }
    return result


def choose_steps(worker: Worker, seconds: float) -> int:
    """Return how many steps last about `seconds`; the first ones warm the worker up."""
    worker.take_steps(1)
    return max(1, round(seconds / worker.take_steps(3)["seconds"]))


def make_row(result: Result, peak: float) -> tuple[str, ...]:
    """Return the result as a line of the table."""
    ours, theirs = result["metarun"], result.get("torch")
    median = statistics.median(ours["seconds"])
    gigaflops = ours["matrix_flops"] / 1e9
    their_median = statistics.median(theirs["seconds"]) if theirs else 0.0
    return (
        result["setting"],
        f"{median:.3g}",
        f"{min(ours['seconds']):.3g}",
        f"{their_median:.3g}" if theirs else "-",
        f"{min(theirs['seconds']):.3g}" if theirs else "-",
        f"{their_median / median:.2f}" if theirs else "-",
        f"{gigaflops:.3g}",
        f"{gigaflops * 1e9 / median / (peak * ours['devices']):.1%}",
        f"{ours['sampling_seconds'] / median:.1%}",
        f"{ours['compile_seconds']:.1f}",
        f"{ours['memory'] / 1e9:.2f}",
        f"{theirs['memory'] / 1e9:.2f}" if theirs else "-",
    )


def align(rows: list[tuple[str, ...]]) -> str:
    """Return rows as text, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(pairs)]
        for pairs in (zip(cells, widths, strict=True) for cells in rows)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in lines)


def describe_machine() -> dict[str, Any]:
    """Return what the numbers depend on beside the code."""
    return {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],  # at the start: the work of others makes every number worse
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def name_processor() -> str:
    """Return the name of the processor, or of the machine if the system does not say it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def install_torch() -> None:
    """Make .venv-torch, or bring its torch up to date."""
    venv.create(TORCH_ENVIRONMENT, with_pip=True)
    subprocess.run([TORCH_ENVIRONMENT / "bin" / "python", "-m", "pip", "install", TORCH, "numpy"], check=True)


def make_commands() -> dict[str, list[str]]:
    """Return the command that starts each side; torch is left out if it is not there."""
    torch_python = os.environ.get("METARUN_TORCH_PYTHON") or str(TORCH_ENVIRONMENT / "bin" / "python")
    pythons = {"metarun": sys.executable, "torch": torch_python}
    commands = {side: [pythons[side], str(BENCH / f"_bench_{side}.py")] for side in SIDES}
    if not Path(torch_python).exists():
        print(f"no torch: {torch_python} is not there (--install-torch makes it)", file=sys.stderr)
        del commands["torch"]
    return commands


def measure(quick: bool) -> dict[str, Any]:
    """Measure everything that the report holds."""
    commands, facts = make_commands(), describe_machine()
    repeats, seconds = (3, 2.0) if quick else (5, 4.0)
    settings = [_bench_settings.SINUSOID, _bench_settings.FIVE_WAY]
    settings += [] if quick else [_bench_settings.TWENTY_WAY]
    peak = subprocess.run([*commands["metarun"], "peak"], check=True, stdout=subprocess.PIPE, text=True)
    report = {"machine": facts, **json.loads(peak.stdout), "settings": [], "growth": []}
    for name, series in (("settings", settings), ("growth", _bench_settings.make_growth(quick))):
        for setting in series:
            print(f"measuring {setting.name}", file=sys.stderr)
            report[name].append(compare_sides(commands, setting, repeats, seconds))
    return report


def format_report(report: dict[str, Any]) -> str:
    """Return the report as text."""
    facts, peak = report["machine"], report["peak_flops"]
    versions = [
        f"{name} {side['version']}" for name in SIDES if (side := report["settings"][0].get(name)) is not None
    ]
    versions = [version.replace("metarun", "jax") for version in versions]
    device = report["settings"][0]["metarun"]["device"]
    heading = (
        f"{facts['processor']}, {facts['cores']} cores, load {facts['load']:.1f}; Python {facts['python']}, "
        f"{', '.join(versions)} on {device}; float32 matrix products reach {peak / 1e9:.0f} GFLOP/s"
    )
    tables = [
        align([HEADER, *[make_row(result, peak) for result in report[series]]])
        for series in ("settings", "growth")
    ]
    return "\n\n".join([heading, *tables])


def measure_sampling(configs: list[Path]) -> str:
    """Return a table of the sampling of each config beside its training step, both run as `metarun train` does."""
    environment = large_pages.add_large_pages(os.environ)
    facts = describe_machine()
    heading = f"{facts['processor']}, {facts['cores']} cores, load {facts['load']:.1f}"
    rows = [_bench_sampling.HEADER, *_bench_sampling.measure_configs(configs, environment)]
    return "\n\n".join([heading, align(rows)])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller settings, fewer repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument(
        "--large-pages", action="store_true", help="for torch too; metarun always asks for them itself"
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
        os.environ["METARUN_CACHE"] = cache  # nothing compiled before: compilation is measured too
        if arguments.sampling is not None:
            print(measure_sampling(arguments.sampling))
            return
        report = measure(arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(format_report(report))


if __name__ == "__main__":
    main()
