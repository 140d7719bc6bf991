"""Time trials as one program against single runs, one after the other: from the command to the result.

    python bench/bench_sweep.py                # both cases, as the figures in docs/ are measured
    python bench/bench_sweep.py --case sinusoid --trials 3 --singles 1 training.steps=20     # a trial of the bench

omniglot: 4 learning rates of MAML, 5-way 1-shot, against 3 single runs. sinusoid: 16 learning rates and inner rates
against 16 single runs. Every run is a `metarun train` of its own. The single runs share a cache of compiled programs,
which is empty before the first one (`cold`): with numbers as arguments the later ones find its programs, as a user's
would. `warm`: both ways find everything. `results` has the loss of every trial both ways: they must agree. Prints one
JSON object a line.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from _bench_commands import train


class Case(NamedTuple):
    """Trials that are trained both ways."""

    config: str
    overrides: tuple[str, ...]
    learning_rates: tuple[float, ...]
    inner_rates: tuple[float, ...]
    singles: int  # single runs that are trained, from the first trial on
    most: float  # the share of their seconds that the trials may take


def space(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return numbers that grow by a constant factor."""
    return tuple(float(f"{low * (high / low) ** (place / max(count - 1, 1)):.6g}") for place in range(count))


CASES = {
    "omniglot": Case(
        "configs/omniglot/5way-1shot-2000-steps/maml.yaml", (), space(3e-4, 3e-3, 4), (2.0,), 3, 1.0
    ),
    "sinusoid": Case("configs/sinusoid/maml.yaml", (), space(3e-4, 3e-3, 4), space(0.005, 0.02, 4), 16, 0.25),
}
RATE, INNER = "training.optimizer.learning_rate", "algorithm.inner_lr"


def list_settings(case: Case, trials: int | None) -> list[tuple[float, float]]:
    """Return (learning rate, inner rate) of every trial, or of the first few."""
    pairs = [(rate, inner) for rate in case.learning_rates for inner in case.inner_rates]
    return pairs[:trials]


def write_trials(settings: list[tuple[float, float]]) -> list[str]:
    """Return the overrides of the run that trains all settings."""
    rates, inners = (json.dumps(list(values)) for values in zip(*settings, strict=True))
    seeds = json.dumps([0] * len(settings))
    numbers = f"[{{path: {RATE}, values: {rates}}}, {{path: {INNER}, values: {inners}}}]"
    return [f"replicas={len(settings)}", f"trials={{seeds: {seeds}, numbers: {numbers}}}"]


def read_losses(folder: Path) -> list[float]:
    """Return the loss of the adapted learner of every replica."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    stage = list(result["stages"].values())[-1]
    loss = stage[result["modes"][0]]["adapted"]["loss"]
    return loss["seeds"]["values"] if "seeds" in loss else [loss["mean"]]


def measure(
    case: Case, settings: list[tuple[float, float]], overrides: list[str], folder: Path, caches: list[Path]
) -> dict[str, Any]:
    """Train both ways once, into `folder`."""
    together = train(case.config, [*overrides, *write_trials(settings)], folder / "together", caches[0])
    apart, losses = [], []
    for place, (rate, inner) in enumerate(settings[: case.singles]):
        own = [f"{RATE}={rate}", f"{INNER}={inner}"]
        apart.append(train(case.config, [*overrides, *own], folder / str(place), caches[1]))
        losses += read_losses(folder / str(place))
    total = {key: round(sum(run[key] for run in apart), 1) for key in together}
    return {
        "trials": len(settings),
        "together": together,
        "singles": len(apart),
        "apart": apart,
        "apart_total": total,
        "share": round(together["seconds"] / total["seconds"], 3),
        "target": case.most,
        "results": {"together": read_losses(folder / "together"), "apart": losses},
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--case", choices=CASES, action="append", help="all, unless given")
    parser.add_argument("--trials", type=int, help="the first few of the case's trials alone")
    parser.add_argument("--singles", type=int, help="fewer single runs")
    options = parser.parse_intermixed_args()
    for name in options.case or CASES:
        case = CASES[name]
        case = case._replace(singles=options.singles or case.singles)
        settings = list_settings(case, options.trials)
        overrides = [*case.overrides, *options.overrides]
        with tempfile.TemporaryDirectory(prefix="metarun-bench-") as folder:
            caches = [Path(folder) / "cache-together", Path(folder) / "cache-apart"]
            for cache in ("cold", "warm"):
                measured = measure(case, settings, overrides, Path(folder) / cache, caches)
                print(json.dumps({"case": name, "cache": cache, **measured}), flush=True)


if __name__ == "__main__":
    main()
