"""What bench/gpu.py has measured: one JSON file, and a page of Markdown tables. Imports no jax."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gpu_points

Answers = dict[str, dict[str, Any]]  # {name of a point: what its process answered, or {"failed": why}}

# The largest error of a gradient, as a share of its length. That of bfloat16 is ours: eight times that of
# tensorfloat32, which has three more bits.
LIMITS = {"float32": 1e-4, "tensorfloat32": 3e-3, "bfloat16": 2.4e-2}
STEP_HEADER = (
    "setting",
    "precision",
    "convolution",
    "loops",
    "replicas",
    "ms a step",
    "ms a seed",
    "estimate (ms, one seed)",
    "launches a step",
    "TFLOP/s",
    "of peak",
    "device GB",
    "temporary GB",
    "compile s",
)


class Store:
    """The answers so far, in `results.json`; every change is on disk before the next point begins."""

    def __init__(self, folder: Path, tiny: bool) -> None:
        self.file = folder / "results.json"
        content: dict[str, Any] = {"tiny": tiny, "points": {}}
        if self.file.exists():
            content = json.loads(self.file.read_text())
        if content["tiny"] != tiny:
            raise SystemExit(
                f"{self.file} is of {'tiny' if content['tiny'] else 'full'} points: choose another --out"
            )
        self.tiny = tiny
        self.answers: Answers = content["points"]

    def add(self, name: str, answer: dict[str, Any]) -> None:
        """Keep the answer of a point."""
        self.answers[name] = answer
        write_text(self.file, json.dumps({"tiny": self.tiny, "points": self.answers}, indent=1) + "\n")

    def remove_failed(self) -> None:
        """Forget the points that failed, so that they are measured again."""
        for name in [name for name, answer in self.answers.items() if "failed" in answer]:
            del self.answers[name]


def write_text(path: Path, text: str) -> None:
    """Write a file whole, or leave the one before: a call may be killed at any time."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.replace(path)


def format_report(answers: Answers, points: list[gpu_points.Point]) -> str:
    """Return the page with a table for each part that has answers."""
    sections = [
        ("Install and smoke", ("what", "answer"), list_install_rows(answers)),
        (
            "Gradient against float64 on a CPU",
            ("precision", "convolution", "error", "limit", ""),
            list_gradients(answers),
        ),
        ("Peak of matrix products", ("precision", "TFLOP/s"), list_peaks(answers)),
        ("Training step", STEP_HEADER, list_steps(answers, points)),
        (
            "PyTorch on the same device",
            ("setting", "precision", "program", "ms a step", "times metarun's", "device GB"),
            list_torch(answers, points),
        ),
        ("Long runs", ("setting", "seeds", "state", "accuracy", "minutes"), list_runs(answers, points)),
    ]
    done = sum(point.name in answers for point in points)
    lines = ["# metarun on one device", "", f"{done} of {len(points)} points. {name_devices(answers)}", ""]
    if any(point.name == "run-sinusoid" for point in points):
        lines += ["These are tiny points: they show that all of it works, and how fast nothing is.", ""]
    for title, header, rows in sections:
        if rows:
            lines += [f"## {title}", "", *format_table(header, rows), ""]
    lines += [*NOTES, ""] if any("launches" in answer for answer in answers.values()) else []
    return "\n".join(lines)


NOTES = (
    "Launches are counted in the compiled program: every fusion, call of a library, copy and sort in the body of the",
    "loop over steps. Operations are those of the products of patches, whichever form computes them. `recorded`: loops",
    "are part of command buffers; `launched`: the host launches every turn. TFLOP/s are those of all seeds together.",
)


def name_devices(answers: Answers) -> str:
    """Say which devices gave the answers: tables of several devices must not be read as one."""
    names = dict.fromkeys(
        f"{answer['platform']} {answer['device']}"
        for name, answer in answers.items()
        if "device" in answer and name != "reference"
    )
    several = " Not all on one device: measure again with another --out." if len(names) > 1 else ""
    return f"Device: {', '.join(names) or 'none yet'}.{several}"


def format_table(header: Iterable[str], rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a Markdown table."""
    head = tuple(header)
    lines = [head, ("---",) * len(head), *rows]
    return [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    ]


def list_install_rows(answers: Answers) -> list[tuple[str, ...]]:
    """Return what the install check and the smoke run said."""
    rows: list[tuple[str, ...]] = []
    if install := answers.get("install"):
        rows.append(
            ("install", install.get("failed") or f"jax {install['jax']}, {install['driver'] or 'no driver'}")
        )
    if smoke := answers.get("smoke"):
        rows.append(("smoke", smoke.get("failed") or f"`metarun doctor` in {smoke['seconds']:.0f} s"))
    return rows


def list_gradients(answers: Answers) -> list[tuple[str, ...]]:
    """Return a row for each gradient."""
    rows: list[tuple[str, ...]] = []
    for name, answer in answers.items():
        if not name.startswith("gradient-"):
            continue
        _, precision, form = name.split("-")
        limit = LIMITS[precision]
        if "failed" in answer:
            rows.append((precision, form, "-", f"{limit:.1e}", answer["failed"]))
        else:
            verdict = "ok" if answer["error"] <= limit else "TOO LARGE"
            rows.append((precision, form, f"{answer['error']:.1e}", f"{limit:.1e}", verdict))
    return rows


def list_peaks(answers: Answers) -> list[tuple[str, ...]]:
    """Return a row for each precision."""
    return [
        (name.removeprefix("peak-"), answer.get("failed") or f"{answer['flops'] / 1e12:.3g}")
        for name, answer in answers.items()
        if name.startswith("peak-")
    ]


def list_steps(answers: Answers, points: list[gpu_points.Point]) -> list[tuple[str, ...]]:
    """Return a row for each point of the training step, setting by setting."""
    steps = [point for point in points if point.part == "step" and point.name in answers]
    return [
        make_step_row(point, answers)
        for setting in gpu_points.SETTINGS
        for point in steps
        if point.arguments["setting"] == setting
    ]


def make_step_row(point: gpu_points.Point, answers: Answers) -> tuple[str, ...]:
    """Return the row of one point."""
    given, answer = point.arguments, answers[point.name]
    choices = (
        given["setting"],
        given["precision"],
        given["convolution"],
        given["loops"],
        str(given["replicas"]),
    )
    estimate = gpu_points.ESTIMATES[given["setting"]] if given["precision"] == "float32" else ""
    if "failed" in answer:
        return (*choices, answer["failed"], "-", estimate, *("-",) * 6)
    seconds, flops = answer["seconds"], find_flops(point, answers)
    peak = answers.get(f"peak-{given['precision']}", {}).get("flops")
    rate = flops / seconds if flops else None
    return (
        *choices,
        f"{1000 * seconds:.3g}",
        f"{1000 * seconds / given['replicas']:.3g}",
        estimate,
        f"{answer['launches']}",
        f"{rate / 1e12:.3g}" if rate else "-",
        f"{rate / peak / answer['devices']:.1%}" if rate and peak else "-",
        format_gigabytes(answer["peak_bytes"]),
        format_gigabytes(answer["temporary_bytes"]),
        f"{answer['compile_seconds']:.1f}",
    )


def find_flops(point: gpu_points.Point, answers: Answers) -> float | None:
    """Return the operations of a step as products: a convolution that XLA turns round counts its zeros, too."""
    base = gpu_points.name_step({**point.arguments, **gpu_points.FIRST})
    single = answers.get(base, {}).get("flops")
    return single * point.arguments["replicas"] if single else None


def format_gigabytes(count: int | None) -> str:
    """Return bytes in GB; a CPU does not say them."""
    return "-" if count is None else f"{count / 1e9:.2f}"


def list_torch(answers: Answers, points: list[gpu_points.Point]) -> list[tuple[str, ...]]:
    """Return a row for each program of PyTorch."""
    rows: list[tuple[str, ...]] = []
    for point in points:
        if point.part != "torch" or point.name not in answers:
            continue
        given, answer = point.arguments, answers[point.name]
        head = (given["setting"], given["precision"], given["side"])
        if problem := answer.get("failed") or answer.get("skipped"):
            rows.append((*head, problem, "-", "-"))
            continue
        ours = answers.get(
            gpu_points.name_step({**given, **gpu_points.FIRST, "precision": given["precision"]}), {}
        )
        times = f"{answer['seconds'] / ours['seconds']:.1f}" if "seconds" in ours else "-"
        rows.append((*head, f"{1000 * answer['seconds']:.3g}", times, format_gigabytes(answer["peak_bytes"])))
    return rows


def list_runs(answers: Answers, points: list[gpu_points.Point]) -> list[tuple[str, ...]]:
    """Return a row for each long run that has begun."""
    rows: list[tuple[str, ...]] = []
    for point in points:
        if point.part != "run" or not (
            answer := answers.get(point.name) or answers.get(f"begun-{point.name}")
        ):
            continue
        state = answer.get("failed") or answer.get("skipped") or answer["state"]
        score, minutes = answer.get("score", "-"), answer.get("minutes")
        seeds = str(answer.get("replicas", "-"))
        rows.append((point.arguments["setting"], seeds, state, score, f"{minutes:.1f}" if minutes else "-"))
    return rows
