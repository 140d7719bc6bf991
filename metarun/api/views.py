"""What the calls return: dicts of plain values that say what they hold, and that a notebook shows as tables."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarun.figures import comparison_plot
from metarun.plain_text import escape
from metarun.reports import comparison_section, outcome_tables
from metarun.reports.outcome_tables import Table, format_interval
from metarun.runs.metric_rows import make_rows

HEAD = 5  # rows of columns at either end that a notebook shows


class Result(dict[str, Any]):
    """An evaluation, with the keys of result.json: "stages", "modes", "episodes", "higher_is_better", ..."""

    def __repr__(self) -> str:
        """Return what came out, in a line."""
        return f"<metarun result: {outcome_tables.describe_headline(self) or 'nothing was measured'}>"

    def __str__(self) -> str:
        """Return a line for each stage, mode and learner, as a Markdown table."""
        return format_table(outcome_tables.make_outcome_table(self))

    def _repr_markdown_(self) -> str:
        episodes = self["episodes"]
        over = f"{episodes['count']} {self['split']} episodes, mean ± 95 % confidence interval"
        return f"{self}\n\n{over}"


class Comparison(dict[str, Any]):
    """Learners beside one another, best first, with the keys of `metarun compare --json`."""

    def __repr__(self) -> str:
        """Return the order, in a line."""
        order = ", ".join(f"{entry['label']} {format_interval(entry)}" for entry in self["ranking"])
        return f"<metarun comparison by {self['metric']}: {order}>"

    def __str__(self) -> str:
        """Return a line for each learner, as a Markdown table."""
        return format_table(comparison_section.tabulate_ranking(self))

    def _repr_markdown_(self) -> str:
        return f"{self}\n\n{comparison_section.describe_ranking(self)}"

    def draw(self, path: Path | str) -> "Picture":
        """Write the ranking and the differences as PNG."""
        comparison_plot.write_comparison(Path(path), self)
        return Picture(path)


class FewShotAnswers(dict[str, Any]):
    """Pictures named after few labelled ones, with the keys of `metarun fewshot --json`."""

    def __repr__(self) -> str:
        """Return what it rests on, in a line."""
        judgement = self["judgement"]
        share = judgement and judgement["accuracy"]
        kept = f", {share['right']} of {share['asked']} of the support named rightly" if share else ""
        counts = f"{len(self['predictions'])} pictures, {len(self['classes'])} classes"
        return f"<metarun few-shot answers: {counts}, {self['method']} on {self['features']['source']}{kept}>"

    def __str__(self) -> str:
        """Return a line for each answer, as a Markdown table."""
        rows = [
            [one["file"], one["class"], f"{one['probability']:.4f}", {True: "yes"}.get(one["unknown"], "")]
            for one in self["predictions"]
        ]
        return format_table(Table(["file", "class", "probability", "unknown"], rows))

    def _repr_markdown_(self) -> str:
        return f"{self}\n\n`{repr(self)[1:-1]}`"


class Ranking(dict[str, Any]):
    """What a sweep has found, with the keys of ranking.json: "ranking", "winner", "importance", ..."""

    def __repr__(self) -> str:
        """Return the best setting, in a line."""
        best = self["ranking"][0]
        setting = ", ".join(f"{key}={format_number(value)}" for key, value in best["setting"].items())
        reached = f"{self['metric']} {format_interval(best)}"
        return f"<metarun sweep of {len(self['ranking'])} settings: {setting} is best, {reached}>"

    def __str__(self) -> str:
        """Return a line for each setting, best first, as a Markdown table."""
        keys = self["keys"]
        rows = [
            [
                *(str(line["setting"][key]) for key in keys),
                format_interval(line) or "diverged",
                format_interval(line["behind"]),
            ]
            for line in self["ranking"]
        ]
        return format_table(Table([*keys, self["metric"], "minus the best"], rows))

    def _repr_markdown_(self) -> str:
        return str(self)


class Columns(dict[str, np.ndarray]):
    """Metrics as columns of equal length, {name: [row]}: `pandas.DataFrame(columns)` is a table of them."""

    def __repr__(self) -> str:
        """Return the names and the number of rows, in a line."""
        return f"<metarun metrics: {self.count_rows()} rows{' of ' * bool(self)}{', '.join(self)}>"

    def __str__(self) -> str:
        """Return the first and the last rows as a Markdown table."""
        count = self.count_rows()
        if not count:
            return "no rows"
        places = [place for place in range(count) if place < HEAD or place >= count - HEAD]
        rows = [[format_number(column[place]) for column in self.values()] for place in places]
        if len(places) < count:
            rows.insert(HEAD, ["…"] * len(self))
        return format_table(Table(list(self), rows))

    def _repr_markdown_(self) -> str:
        return str(self)

    def count_rows(self) -> int:
        """Return how many rows there are."""
        return len(next(iter(self.values()), ()))


class Picture:
    """A picture file, which a notebook shows."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        """Return where it is."""
        return f"<picture {self.path}>"

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


class Gallery(dict[str, Picture]):
    """The pictures of a run, {name: picture}."""

    def __repr__(self) -> str:
        """Return their names."""
        return f"<metarun pictures: {', '.join(self) or 'none'}>"


def make_columns(rows: Iterable[Mapping[str, Any]], left_out: Iterable[str] = ()) -> Columns:
    """Return the values of rows, name by name: NaN where a row has none. Names without any value are left out."""
    columns: dict[str, np.ndarray] = {}
    rows = make_rows(rows)
    for name in rows.list_names():
        values = [] if name in left_out else rows.list_values(name)
        if any(value is not None for value in values):
            columns[name] = make_column(values)
    return Columns(columns)


def make_column(values: list[Any]) -> np.ndarray:
    """Return values as whole numbers, as numbers, or as text."""
    if all(type(value) is int for value in values):
        return np.array(values, np.int64)
    try:
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)
    except ValueError:
        return np.array(["" if value is None else str(value) for value in values])


def format_number(value: Any) -> str:
    """Return four digits of a number, or text as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_table(table: Table) -> str:
    """Return a Markdown table."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(
        "| " + " | ".join(escape(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
