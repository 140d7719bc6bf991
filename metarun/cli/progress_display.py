"""Progress of a run: a live line on a terminal, plain lines in a pipe; always on stderr."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from metarun.data import observers
from metarun.plain_text import escape
from metarun.progress import Progress

LINE_SECONDS = 10.0  # between two plain lines


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Show progress in the way that suits stderr."""
    if sys.stderr.isatty():
        with make_bar() as bar:
            yield Terminal(bar)
    else:
        yield Plain()


@contextmanager
def show_preparation() -> Iterator[Progress]:
    """Show progress, also of work on data inside the `with`, such as decoding pictures."""
    with show_progress() as progress, observers.report_to(progress.preparing):
        yield progress


def make_bar() -> Bar:
    """Make a bar with stage, steps, rates, time left, loss and accuracy."""
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[metrics]}", markup=False),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def format_metrics(values: Mapping[str, float]) -> str:
    """Return `loss 0.41, accuracy 0.87`, without the intervals."""
    rest = {
        name: value
        for name, value in values.items()
        if not name.endswith("_ci95") and name != "gradient_norm"
    }
    return ", ".join(f"{name} {value:.4g}" for name, value in rest.items())


def format_speed(speed: float) -> str:
    """Return a whole number from 100 on, else three digits: `1,798`, `4.25`."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


class Rate:
    """Steps and tasks a second since the stage began, or went on."""

    def __init__(self, tasks_per_step: int) -> None:
        self.tasks_per_step, self.seconds, self.steps = tasks_per_step, 0.0, 0

    def add(self, count: int, seconds: float) -> None:
        self.steps, self.seconds = self.steps + count, self.seconds + seconds

    def __str__(self) -> str:
        speed = self.steps / max(self.seconds, 1e-9)
        return f"{format_speed(speed)} steps/s, {format_speed(speed * self.tasks_per_step)} tasks/s"


class Plain(Progress):
    """Lines for a log file: no escape codes, one about every ten seconds."""

    def __init__(self) -> None:
        self.prepared = time.monotonic()

    def say(self, text: str) -> None:
        print(escape(text), file=sys.stderr, flush=True)

    def preparing(self, done: int, total: int, description: str) -> None:
        if time.monotonic() - self.prepared > LINE_SECONDS or done == total:
            self.prepared = time.monotonic()
            self.say(f"{description}: {done:,} of {total:,}" if total else f"{description}: {done:,}")

    def run_opened(self, path: str, devices: str, resumed: bool) -> None:
        self.say(f"{'resuming' if resumed else 'run'} {path} on {devices}")

    def stage_started(self, stage: str, step: int, steps: int, tasks_per_step: int) -> None:
        self.steps, self.rate, self.last = steps, Rate(tasks_per_step), time.monotonic()
        self.done = 0.0  # seconds of training
        self.seconds: float | None = None  # after which the stage ends
        self.say(f"{stage}: compiling" if step < steps else f"{stage}: all {steps} steps are done")

    def timed(self, stage: str, done: float, seconds: float) -> None:
        self.done, self.seconds = done, seconds

    def compiled(self, stage: str, seconds: float) -> None:
        self.say(f"{stage}: compiled in {seconds:.1f} s")

    def advanced(
        self, stage: str, step: int, count: int, seconds: float, metrics: Mapping[str, float]
    ) -> None:
        self.rate.add(count, seconds)
        self.done += seconds
        is_over = step == self.steps or (self.seconds is not None and self.done >= self.seconds)
        if time.monotonic() - self.last > LINE_SECONDS or is_over:
            self.last = time.monotonic()
            of_steps = f"/{self.steps}" if self.seconds is None else f", {self.done:.0f}/{self.seconds:g} s"
            self.say(f"{stage}: step {step}{of_steps}, {self.rate}, {format_metrics(metrics)}")

    def validated(self, stage: str, step: int, values: Mapping[str, float], best: bool) -> None:
        self.say(f"{stage}: step {step}, validation {format_metrics(values)}{' (best so far)' * best}")

    def measuring(self, stage: str, split: str, episodes: int) -> None:
        self.say(f"{stage}: measuring {episodes} {split} episodes")


class Terminal(Progress):
    """One live line a stage; validations stay above it."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.console = bar, bar.console
        self.preparations: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(escape(text), highlight=False, markup=False)

    def preparing(self, done: int, total: int, description: str) -> None:
        if description not in self.preparations:
            line = self.bar.add_task(escape(description), total=total or None, rate="", metrics="")
            self.preparations[description] = line
        self.bar.update(self.preparations[description], completed=done)

    def run_opened(self, path: str, devices: str, resumed: bool) -> None:
        self.say(f"{'resuming' if resumed else 'run'} {path} on {devices}")

    def stage_started(self, stage: str, step: int, steps: int, tasks_per_step: int) -> None:
        self.rate = Rate(tasks_per_step)
        self.done: float | None = None  # seconds of training, if the bar shows those
        self.line = self.bar.add_task(
            escape(stage), total=steps, completed=step, rate="compiling", metrics=""
        )

    def timed(self, stage: str, done: float, seconds: float) -> None:
        """Let the bar show seconds instead of steps."""
        self.done = done
        self.bar.update(self.line, total=seconds, completed=done)

    def compiled(self, stage: str, seconds: float) -> None:
        self.bar.update(self.line, rate=f"compiled in {seconds:.1f} s")

    def advanced(
        self, stage: str, step: int, count: int, seconds: float, metrics: Mapping[str, float]
    ) -> None:
        self.rate.add(count, seconds)
        if self.done is not None:
            self.done, step = self.done + seconds, int(self.done + seconds)
        self.bar.update(self.line, completed=step, rate=str(self.rate), metrics=format_metrics(metrics))

    def validated(self, stage: str, step: int, values: Mapping[str, float], best: bool) -> None:
        best_so_far = " (best so far)" * best
        self.say(f"{stage}: step {step}, validation {format_metrics(values)}{best_so_far}")

    def measuring(self, stage: str, split: str, episodes: int) -> None:
        self.say(f"{stage}: measuring {episodes} {split} episodes")
