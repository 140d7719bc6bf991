"""A run becomes one file that adapts and predicts without metarun; the file is compared with the run first."""

import hashlib
import importlib.util
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from metarun import base, errors
from metarun.exported import header, loader, portable
from metarun.exported.portable import PLATFORMS, Portable, Sizes
from metarun.finished.prediction import TrainedRun, count_examples
from metarun.runs import files

WHERE = "metarun export"
MAIN = "import metarun_loader\n\nmetarun_loader.main()\n"  # what `python FILE` runs
EPOCH = (1980, 1, 1, 0, 0, 0)  # of all parts, so that the time of writing stands in the header alone
TOLERANCE = 1e-3  # of the largest answer: more than rounding, less than a wrong program


class Check(NamedTuple):
    """How the answers of an exported file differ from those of its run."""

    difference: float  # the largest
    largest: float  # answer of the run, without its sign


class Written(NamedTuple):
    """An exported file."""

    path: Path
    size: int  # bytes
    header: dict[str, Any]
    # None: the programs are for another platform than this one, or the run has no finite answer to compare with.
    check: Check | None

    def __repr__(self) -> str:
        """Return what was written, in a line."""
        run, check = self.header["run"], self.check
        checked = "" if check is None else f", answers within {check.difference:.1g} of the run's"
        return (
            f"<metarun export {self.path}: {run['algorithm']} of {run['name']}, {self.size:,} bytes{checked}>"
        )


def write(
    run: TrainedRun,
    path: Path,
    *,
    ways: int | None = None,
    shots: int | None = None,
    platforms: Sequence[str] = (),
) -> Written:
    """Export a learner into a file.

    Args:
      ways: classes of the support, which the programs fix; None: as many as in training.
      shots: support examples, of each class if classes are predicted; then the programs take exactly so many. None: any
        number if the algorithm allows it, else as many as in training.
      platforms: that the programs are for; empty: the one that jax has here.

    Raises:
      UsageError: a choice does not exist, the run translates sentences, or flatbuffers is missing.
      ConfigError: the learner cannot be exported.
      MetarunError: the exported programs answer differently from the run.
    """
    require_packages()
    header.refuse_sentences(run)
    platforms = choose_platforms(platforms)
    episode = outline_episode(run)
    ways = choose_ways(run, ways)
    trained = choose_sizes(episode, run.spec.ways or 1, ways or 1, shots)
    attempts = portable.list_sizes(trained, fixed=shots is not None)
    run.check(portable.outline_support(run, attempts[-1].support), ways)
    programs = portable.export_learner(run, ways, attempts, platforms)
    described = header.describe(run, programs, ways, platforms)
    content = pack(programs, described)
    checked = None
    if not {export.default_export_platform(), "cpu"}.isdisjoint(platforms):  # jax can run them here
        checked = check(run, content, ways, trained, programs.sizes)
    files.write_output(path, content)
    return Written(path, len(content), described, checked)


def require_packages() -> None:
    """Raise UsageError if the extra `export` is not installed."""
    if importlib.util.find_spec("flatbuffers") is None:
        what = "an export needs flatbuffers, which is not installed"
        raise errors.UsageError(what, WHERE, "pip install 'metarun[export]'")


def choose_platforms(platforms: Sequence[str]) -> tuple[str, ...]:
    """Return the platforms of the programs.

    Args:
      platforms: a list, or a text with commas between.

    Raises:
      UsageError: jax cannot export for one of them.
    """
    platforms = platforms.split(",") if isinstance(platforms, str) else platforms
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        what = f"there is no platform {unknown[0]}"
        raise errors.UsageError(what, "--platforms", f"use one or more of {','.join(PLATFORMS)}")
    return tuple(dict.fromkeys(platforms)) or (export.default_export_platform(),)


def choose_ways(run: TrainedRun, ways: int | None) -> int:
    """Return the classes of the support; 0 if no classes are predicted.

    Raises:
      UsageError: classes are asked for, and none are predicted, or there are fewer than two.
    """
    if run.targets != "classes":
        if ways is not None:
            raise errors.UsageError("the run predicts numbers, and has no ways", "--ways", "leave --ways out")
        return 0
    if ways is not None and ways < 2:
        raise errors.UsageError(f"{ways} ways are no choice", "--ways", "give 2 or more")
    return ways or run.spec.output_size


def outline_episode(run: TrainedRun) -> base.Episode:
    """Return the shapes of an episode of the training."""
    episode: base.Episode = jax.eval_shape(
        run.tasks.family.sample, run.tasks.data["train"], jax.random.key(0)
    )
    return episode


def choose_sizes(episode: base.Episode, trained_ways: int, ways: int, shots: int | None) -> Sizes:
    """Return the sizes of support and query: those of training in the ways and shots that are exported.

    Args:
      trained_ways, ways: 1 if no classes are predicted.

    Raises:
      UsageError: there are no shots.
    """
    if shots is not None and shots < 1:
        raise errors.UsageError(f"{shots} shots are too few", "--shots", "give 1 or more")
    support, query = (count_examples(examples.inputs) for examples in (episode.support, episode.query))
    return Sizes(ways * (shots or max(1, support // trained_ways)), query)


def pack(programs: Portable, described: dict[str, Any]) -> bytes:
    """Return the content of the file: the parts, and their digests."""
    weights = io.BytesIO()
    np.savez(weights, **{f"{place:05}": leaf for place, leaf in enumerate(programs.weights)})  # type: ignore[arg-type]
    parts = {
        loader.MAIN: MAIN.encode(),
        loader.MODULE: Path(loader.__file__).read_bytes(),
        loader.HEADER: json.dumps(described, indent=2, ensure_ascii=False).encode(),
        loader.ADAPT: bytes(programs.adapt.serialize()),
        loader.PREDICT: bytes(programs.predict.serialize()),
        loader.WEIGHTS: weights.getvalue(),
    }
    digests = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in parts.items()]
    parts[loader.DIGESTS] = "".join(digests).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), part, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def check(run: TrainedRun, content: bytes, ways: int, trained: Sizes, sizes: Sizes) -> Check | None:
    """Compare the file with the run on a support as in training, and on a larger one if the file takes any number.

    Raises:
      MetarunError: the answers differ by more than rounding.
    """
    learner = loader.load(io.BytesIO(content))
    assert trained.support is not None and trained.queries is not None
    checks = []
    for support in (trained.support, *([trained.support + 1] if sizes.support is None else [])):
        examples, queries = draw_examples(run, support, trained.queries, ways)
        try:
            expected = run.adapt(examples).predict(queries)
        except errors.DivergedError:  # labels are drawn, and may be too hard for many inner steps
            continue
        answers = learner.adapt(examples).predict(queries)
        checks.append(Check(float(np.abs(answers - expected).max()), float(np.abs(expected).max())))
    if not checks:
        return None
    worst = max(checks, key=lambda found: found.difference / max(1.0, found.largest))
    if worst.difference > TOLERANCE * max(1.0, worst.largest):
        what = f"the exported programs answer differently from the run, by {worst.difference:.2g}"
        remedy = "give --shots, so that the programs take exactly this support; and report it"
        raise errors.MetarunError(what, f"stage {run.stage} of {run.path}", remedy)
    return worst


def draw_examples(run: TrainedRun, support: int, queries: int, ways: int) -> tuple[base.Examples, np.ndarray]:
    """Return examples to compare answers on: those of a task of the training, or noise if its data are not here."""
    data = run.tasks.data["train"]
    generator = np.random.default_rng(0)
    inputs = generator.random((support + queries, *run.spec.input_shape), np.float32)
    targets = generator.random((support, run.spec.output_size), np.float32)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(data)):
        episode = jax.jit(run.tasks.family.sample)(data, jax.random.key(0))
        pictures = jax.tree.leaves(episode.support.inputs)[0]
        inputs = np.resize(np.asarray(pictures), inputs.shape)
        targets = np.resize(np.asarray(episode.support.targets), targets.shape).astype(np.float32)
    labels = (np.arange(support) % ways).astype(np.int32) if ways else targets
    return base.Examples(inputs[:support], labels), inputs[support:]
