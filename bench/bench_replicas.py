"""Time R seeds as one run with replicas against R runs, one after the other: from the command to its result.

    python bench/bench_replicas.py configs/sinusoid/maml.yaml --replicas 4 training.steps=70000

Every run is a `metarun train` of its own. `cold`: the cache of compiled programs is empty before the first of the R
runs, and empty again before the one. `warm`: both find the programs of the runs before. Prints one JSON object a line.
"""

import argparse
import json
import tempfile
from pathlib import Path

from _bench_commands import train


def read_adapted(folder: Path) -> list[dict]:
    """Return {metric: interval} of the adapted learner of every stage."""
    result = json.loads((folder / "result.json").read_text())
    return [stage[result["modes"][0]]["adapted"] for stage in result["stages"].values()]


def measure(config: str, overrides: list[str], replicas: int, folder: Path, caches: list[Path]) -> dict:
    """Run both ways once, into `folder`."""
    apart = [
        train(config, [*overrides, f"seed={seed}"], folder / f"seed-{seed}", caches[0])
        for seed in range(replicas)
    ]
    together = train(config, [*overrides, f"replicas={replicas}"], folder / "together", caches[1])
    total = {key: round(sum(run[key] for run in apart), 1) for key in together}
    return {
        "apart": apart,
        "apart_total": total,
        "together": together,
        "share": round(together["seconds"] / total["seconds"], 3),
        "results_apart": [read_adapted(folder / f"seed-{seed}") for seed in range(replicas)],
        "result_together": read_adapted(folder / "together"),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--warm", action="store_true", help="measure again, with the programs in the cache")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="metarun-bench-") as name:
        caches = [Path(name) / "cache-apart", Path(name) / "cache-together"]
        for state in ["cold", "warm"][: 1 + options.warm]:
            measured = measure(
                str(options.config.resolve()), options.overrides, options.replicas, Path(name) / state, caches
            )
            print(json.dumps({"cache": state, **measured}), flush=True)


if __name__ == "__main__":
    main()
