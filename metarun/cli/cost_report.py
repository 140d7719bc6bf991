"""What `metarun train CONFIG --dry-run --cost` prints."""

from typing import TYPE_CHECKING

import typer

from metarun.cli.text_tables import align

if TYPE_CHECKING:
    from metarun.training.cost import Cost, Memory

HEADER = (
    "stage",
    "steps",
    "seconds a step",
    "total",
    "before the first step",
    "memory a device",
    "of it temporary",
    "GFLOP a step",
    "GFLOP/s",
    "devices",
    "steps timed",
)
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def print_costs(costs: "list[Cost]") -> None:
    """Print a line for each stage, then the whole time and the memory of this process."""
    typer.echo(align([HEADER, *map(make_cells, costs)]))
    total = sum(cost.total_seconds for cost in costs)
    typer.echo(
        f"training takes {format_duration(total)} in all; validation, evaluation and checkpoints come on top. "
        f"This process has held {format_bytes(costs[-1].process_bytes)}."
    )


def make_cells(cost: "Cost") -> tuple[str, ...]:
    """Return the line of one stage."""
    return (
        cost.stage,
        f"{cost.expected_steps:,}",
        f"{cost.seconds:.3g}",
        format_duration(cost.total_seconds),
        f"{cost.start_seconds + cost.compile_seconds:.1f} s",
        *format_memory(cost.memory),
        f"{cost.flops / 1e9:.3g}",
        f"{cost.flops / cost.seconds / 1e9:.3g}",
        f"{cost.devices}",
        f"{cost.timed:,}",
    )


def format_memory(memory: "Memory | None") -> tuple[str, str]:
    """Return the memory of a program, and how much of it is temporary; dashes if the compiler does not say."""
    if memory is None:
        return "-", "-"
    return format_bytes(memory.total), format_bytes(memory.temporary)


def format_bytes(count: int) -> str:
    """Return `29 MB`: three digits in the largest unit that fits."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def format_duration(seconds: float) -> str:
    """Return `14 h 10 min`: the two largest units that fit, or tenths of a second below a minute."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    place = next(number for number, (size, _) in enumerate(UNITS) if whole >= size)
    (large, name), (small, small_name) = UNITS[place : place + 2]
    return f"{whole // large} {name} {whole % large // small} {small_name}"
