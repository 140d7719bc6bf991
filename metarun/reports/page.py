"""The page: the template, filled. The only module that imports jinja2; every text in it is escaped."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import metarun
from metarun import errors
from metarun.reports import bokeh_figures
from metarun.reports.comparison_section import make_comparison
from metarun.reports.run_record import RunRecord
from metarun.reports.run_section import inline, make_section
from metarun.reports.sweep_section import SweepSection
from metarun.runs import files, open_outputs

GENERATOR = f"metarun {metarun.__version__}"
MARK = b'<meta name="generator" content="metarun '
PACKAGES = ("jinja2", "bokeh")


def require_packages() -> None:
    """Raise UsageError if the extra `report` is not installed."""
    import importlib.util

    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        what = f"a report needs {' and '.join(missing)}, which {'are' if missing[1:] else 'is'} not installed"
        raise errors.UsageError(what, "metarun report", "pip install 'metarun[report]'")


def render(
    records: Sequence[RunRecord], sweeps: Sequence[SweepSection] = (), *, refresh: int | None = None
) -> str:
    """Return the HTML of a report.

    Args:
      sweeps: stand before the runs.
      refresh: the seconds after which a browser reads the file again; None: it does not.
    """
    import jinja2
    import markupsafe

    sections = [make_section(record, f"run-{number}") for number, record in enumerate(records, start=1)]
    together = make_comparison(records) if len(records) > 1 else None
    charts = dict(together.charts) if together else {}
    for sweep in sweeps:
        charts |= sweep.charts
    for section in sections:
        charts |= section.charts | section.group_charts
    plots = bokeh_figures.embed_charts(charts)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html").render(
        title=" · ".join([*(sweep.name for sweep in sweeps), *(record.name for record in records)]),
        heading=name_page(len(sweeps), len(records)),
        generator=GENERATOR,
        made=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        refresh=refresh,
        sweeps=sweeps,
        inline=inline,
        sections=sections,
        together=together,
        bokeh=markupsafe.Markup(plots.bokeh),
        script=markupsafe.Markup(plots.script),
        places={name: markupsafe.Markup(place) for name, place in plots.places.items()},
    )
    return str(text)


def name_page(sweeps: int, runs: int) -> str:
    """Return `Report of a sweep and 2 runs`."""
    counts = [(sweeps, "sweep"), (runs, "run")]
    words = [f"a {noun}" if count == 1 else f"{count} {noun}s" for count, noun in counts if count]
    return f"Report of {' and '.join(words)}"


def write_page(path: Path, text: str) -> None:
    """Write a report as one step; see `check_place` for what is refused."""
    check_place(path)
    files.write_output(path, text.encode())


def check_place(path: Path) -> None:
    """Check that a report may be written here: it replaces an older report, and nothing else. A device may take it.

    Raises:
      UsageError: there is another file, or no folder.
      StorageError: the disk refuses.
    """
    if open_outputs.find_descriptor(path) is not None:
        return
    if not path.parent.is_dir():
        remedy = "make the folder, or choose another --out"
        raise errors.UsageError("there is no such folder", str(path.parent), remedy)
    with files.storage_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            return  # a pipe would be waited for
        try:
            with path.open("rb") as file:
                head = file.read(1000)
        except FileNotFoundError:
            head = MARK
    if MARK not in head:
        remedy = "choose another --out, or move the file away"
        raise errors.UsageError("there is a file that is no report", str(path), remedy)
