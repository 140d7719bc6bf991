"""What an exported file says of its learner, and of the examples that it takes: header.json."""

import datetime
from collections.abc import Sequence
from typing import Any

import jax

import metarun
from metarun import base, errors
from metarun.evaluation.statistics import choose_shown_metric
from metarun.exported.loader import FORMAT
from metarun.exported.portable import Portable
from metarun.finished import opened_run
from metarun.finished.prediction import TrainedRun
from metarun.runs import directory, picture_range, regular_files

COLOURS = {1: "grey", 3: "red, green and blue"}


def describe(run: TrainedRun, portable: Portable, ways: int, platforms: Sequence[str]) -> dict[str, Any]:
    """Return the header, ready for JSON."""
    return {
        "format": FORMAT,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "metarun": metarun.__version__,
        "jax": jax.__version__,
        "calling_convention": portable.adapt.calling_convention_version,
        "platforms": list(platforms),
        "run": describe_run(run),
        "mode": run.mode,
        "inner_steps": run.inner_steps,
        "parameters": sum(leaf.size for leaf in portable.weights),
        "inputs": describe_inputs(run),
        "targets": describe_targets(run, ways),
        "support": {"count": portable.sizes.support},
        "queries": {"count": portable.sizes.queries},
    }


def describe_run(run: TrainedRun) -> dict[str, Any]:
    """Return what the learner comes from; the run's place on this machine is left out."""
    path = run.path.absolute()
    return {
        "name": f"{path.parent.name}/{path.name}" if directory.has_stamp(path) else path.name,
        "stage": run.stage,
        "step": run.step,
        **opened_run.describe_skipped(run.skipped),
        **run.names,
        "result": describe_result(run),
    }


def describe_result(run: TrainedRun) -> str | None:
    """Return what the run has measured of such learners; None: it has not, or no result that can be read."""
    try:
        result = regular_files.read_sealed(run.path / directory.RESULT)
        section = result["stages"][run.stage][run.mode]
        section = (
            section["adapted"] if run.takes_usual_steps else section["inner_steps"][str(run.inner_steps)]
        )
        metric = choose_shown_metric(section)
        value = f"{section[metric]['mean']:.4g} ± {section[metric]['ci95']:.2g}"
        return f"{metric} {value} over {result['episodes']['count']} {result['split']} episodes of the run"
    except (OSError, ValueError, LookupError, TypeError):
        return None


def describe_inputs(run: TrainedRun) -> dict[str, Any]:
    """Return what an input is.

    Raises:
      UsageError: inputs are sentences.
    """
    shape = list(run.spec.input_shape)
    if isinstance(run.form, base.Pictures):
        return {"shape": shape, "dtype": "float32", **describe_pictures(run, run.form)}
    meaning = f"float32 (example, {', '.join(map(str, shape))}), as the run was trained on"
    return {"shape": shape, "dtype": "float32", "kind": "numbers", "meaning": meaning}


def describe_pictures(run: TrainedRun, form: base.Pictures) -> dict[str, Any]:
    """Return how a picture becomes an input, and how bright those of the training were if the run has noted it."""
    if form.read is not None:
        shape = ", ".join(map(str, run.spec.input_shape))
        meaning = f"float32 (example, {shape}): pictures prepared as the run does: {form.prepared}"
        return {"kind": "pictures", "range": None, "inverted": form.inverted, "meaning": meaning}
    height, width, channels = run.spec.input_shape
    polarity = "1 is ink and 0 is paper: 1 - grey / 255" if form.inverted else "1 is white: value / 255"
    meaning = (
        f"float32 (example, {height}, {width}, {channels}) in [0, 1]: pictures of {height} x {width} pixels, "
        f"{COLOURS.get(channels, f'{channels} channels')}; {polarity}"
    )
    known = picture_range.read(run.path)
    noted = {"training_pictures": known._asdict()} if known else {}
    return {"kind": "pictures", "range": [0, 1], "inverted": form.inverted, "meaning": meaning, **noted}


def describe_targets(run: TrainedRun, ways: int) -> dict[str, Any]:
    """Return what a target of the support and an answer is."""
    if ways:
        meaning = f"labels 0 to {ways - 1}, int (example,); the answer is the probability of each of the {ways} classes"
        return {"kind": "classes", "size": ways, "meaning": meaning}
    size = run.spec.output_size
    return {
        "kind": "numbers",
        "size": size,
        "meaning": f"float32 (example, {size}); the answer has the same shape",
    }


def refuse_sentences(run: TrainedRun) -> None:
    """Raise UsageError if the run reads or writes text: its words are outside of any program."""
    if isinstance(run.form, base.Sentences) or run.targets == "tokens" or run.spec.vocabulary is not None:
        raise errors.UsageError(
            "the run translates sentences, and no exported program can read their words",
            f"stage {run.stage} of {run.path}",
            "use `metarun predict`, or metarun.load(run) from Python",
        )
