"""Tables for people and for LaTeX: which columns are shown, and how a value is written.

What belongs here: the way from a frame to text. What does not: what is in the frames (``analysis``), and the page.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import polars as pl

from cooperbench_assets.analysis.formatting import MINUS
from cooperbench_assets.report.style import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cooperbench_assets.store.schema import Table

ROWS_SHOWN: Final = 1000
"""Rows of a table that the page shows; its CSV has all."""

LONGEST: Final = 400
"""Characters of a text that the page shows."""

VIEWS: Final[Mapping[str, tuple[str, ...]]] = {
    "setting_summary": (
        "level", "setting", "seed", "verdict", "planned", "clean", "passes", "fails", "fail_tests", "fail_conflict",
        "infra_error", "unevaluated", "missing", "rate_clean", "clean_low", "clean_high", "rate_evaluated",
        "rate_planned", "bound_low", "bound_high", "rate_first_try", "design_effect", "icc",
        "interval_note", "headline", "why_not",
    ),
    "paired_comparisons": (
        "endpoint", "verdict", "population", "setting_a", "setting_b", "family", "pairs", "tasks", "difference", "low",
        "high", "low_all", "high_all", "p_holm", "p_these_holm", "p_smallest", "detectable", "claimed", "robust",
        "caution", "statement", "why_not",
    ),
    "experiment_comparisons": (
        "setting", "verdict", "population", "experiment_a", "experiment_b", "differs", "pairs", "tasks", "difference",
        "low", "high", "low_all", "high_all", "p_holm", "p_these_holm", "p_smallest", "detectable", "claimed",
        "robust", "caution", "statement", "headline", "why_not",
    ),
    "success_by_difficulty": (
        "verdict", "population", "setting", "method", "held_out", "scale", "level", "bucket", "pairs", "tasks",
        "passes", "n", "rate", "low", "high", "interval_note", "refused", "headline", "why_not",
    ),
    "communication": (
        "setting", "seed", "pairs", "messages", "clean", "left_out", "left_out_messages_per_pair", "messages_per_pair",
        "share_of_steps", "first_message_minutes", "first_message_share", "writers",
        "writers_known", "share_message_steps", "first_message_step", "first_message_step_share", "share_plan",
        "share_question", "share_answer", "share_update", "share_acknowledgement", "first_turn_plan",
        "questions_unanswered", "share_mentions_file", "share_mentions_line", "labels", "headline", "why_not",
    ),
    "cost_report": (
        "level", "setting", "seed", "pairs", "spent_usd", "spent_unknown", "usd_per_pair", "cost_usd", "cost_unknown",
        "hours", "passes_strict", "passes_upstream", "usd_per_pass_strict", "usd_per_pass_strict_low",
        "usd_per_pass_strict_high", "usd_per_pass_upstream", "usd_per_pass_upstream_low", "usd_per_pass_upstream_high",
        "hours_per_pass_strict", "lost_usd", "lost", "unjudged_usd", "unjudged",
    ),
    "results_manifest": (
        "level", "setting", "seed", "pairs", "planned", "agents", "errors", "patches", "cost_usd",
        "cost_per_pair_usd", "steps", "steps_per_pair", "minutes_per_pair", "left_out", "left_out_usd_per_pair",
        "left_out_steps_per_pair", "wall_minutes", "messages",
    ),
}  # fmt: skip
"""Columns that are shown of wide tables, in order. Of every other table all columns are shown; CSV always has all."""


Link: TypeAlias = "Callable[[Mapping[str, Any]], str | None]"


@dataclass(frozen=True, slots=True)
class Cell:
    """One value as it is shown."""

    text: str
    sort: str
    """What the page sorts by: a number as such, text as it is; empty where the value is not known."""

    href: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """One column as it is shown."""

    name: str
    description: str
    numeric: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One table as the page and LaTeX have it."""

    name: str
    description: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: int
    """Rows that the whole table has."""

    @property
    def label(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    def frame(self) -> pl.DataFrame:
        """The texts as they are shown, by column."""
        texts = [[cell.text for cell in row] for row in self.rows]
        return pl.DataFrame(texts, {head.name: pl.String for head in self.heads}, orient="row")


def shown(table: Table, frame: pl.DataFrame, *, links: Mapping[str, Link] = {}) -> Shown:
    """A table as it is shown: chosen columns without the experiment's name, values as text.

    Args:
        table: Its declaration, for the meaning of columns.
        frame: Its rows.
        links: By column, what makes an address of a row.
    """
    described = {column.name: column.description for column in table.columns}
    names = VIEWS.get(table.name) or tuple(name for name in frame.columns if name != "experiment")
    heads = tuple(Head(name, described.get(name, ""), frame[name].dtype.is_numeric()) for name in names)
    rows = tuple(_row(row, names, links) for row in frame.head(ROWS_SHOWN).iter_rows(named=True))
    return Shown(table.name, table.description, heads, rows, frame.height)


def _row(row: Mapping[str, Any], names: Sequence[str], links: Mapping[str, Link]) -> tuple[Cell, ...]:
    return tuple(
        Cell(written(row[name]), _sort_key(row[name]), links[name](row) if name in links else None) for name in names
    )


def written(value: object) -> str:
    """A value for people: three significant digits, yes and no, a dash for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    if isinstance(value, float):
        return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", MINUS)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _sort_key(value: object) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, int | float) else written(value)


def csv_of(frame: pl.DataFrame) -> str:
    """All rows and columns as CSV: lists as text, times in ISO form, nothing where a value is not known."""
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    plain = frame.with_columns(pl.col(name).list.join("; ") for name in lists)
    text = io.StringIO()
    plain.write_csv(text, datetime_format="%Y-%m-%dT%H:%M:%S%.6f")
    return text.getvalue()


_TEX: Final = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "^": r"\textasciicircum{}",
    "_": r"\_", "~": r"\textasciitilde{}", "%": r"\%", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "−": r"$-$", "×": r"$\times$", "–": "--", "…": r"\ldots{}", "[": "{[}", "]": "{]}",
})  # fmt: skip
_BLANK = re.compile(r"[\x00-\x20\x7f\u2028\u2029]+")
PAGEFUL: Final = 40
"""Rows from which a LaTeX table may break over pages."""


def tex_escaped(text: str) -> str:
    """`text` so that LaTeX prints it: every character that means something to it escaped, one line."""
    return _BLANK.sub(" ", text).translate(_TEX)


def tex_of(table: Shown) -> str:
    """A table in booktabs; one that is long breaks over pages."""
    columns = "".join("r" if head.numeric else "l" for head in table.heads)
    head = " & ".join(tex_escaped(head.name) for head in table.heads) + r" \\"
    body = [" & ".join(tex_escaped(cell.text) for cell in row) + r" \\" for row in table.rows]
    long = len(body) > PAGEFUL
    kind = "longtable" if long else "tabular"
    lines = [
        f"% {' '.join(table.description.split())}",
        rf"% \usepackage{{booktabs{',longtable' if long else ''}}}",
        rf"\begin{{{kind}}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *([r"\endhead"] if long else []),
        *body,
        r"\bottomrule",
        rf"\end{{{kind}}}",
    ]
    if table.total > len(table.rows):
        lines.append(f"% the first {len(table.rows)} of {table.total} rows; the CSV has all")
    return "\n".join(lines) + "\n"


def plain_rows(rows: Iterable[Mapping[str, Any]], name: str, description: str, heads: Mapping[str, str]) -> Shown:
    """A table made here, of rows by column; `heads` are the columns and what they mean."""
    listed = list(rows)
    numeric = {
        key: any(isinstance(row[key], int | float) and not isinstance(row[key], bool) for row in listed)
        for key in heads
    }
    return Shown(
        name,
        description,
        tuple(Head(key, text, numeric[key]) for key, text in heads.items()),
        tuple(tuple(Cell(written(row[key]), _sort_key(row[key])) for key in heads) for row in listed),
        len(listed),
    )
