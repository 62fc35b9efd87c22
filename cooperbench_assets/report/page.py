"""The page: one HTML file that needs nothing else, with the warnings first.

What belongs here: what stands on the page, and in which order. What does not: figures (``charts``) and files
(``build``). Whatever agents wrote is data here: the template escapes every value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
import polars as pl
from markupsafe import Markup

from cooperbench_assets.analysis.across import EXPERIMENT_COMPARISONS, experiment_comparisons
from cooperbench_assets.report.charts import contrasts
from cooperbench_assets.report.charts.success import success_by_experiment
from cooperbench_assets.report.figure import Figure, render
from cooperbench_assets.report.font import font_faces
from cooperbench_assets.report.headline import HeadlineRow, changing, headline_rows, statements, statements_across
from cooperbench_assets.report.pair_table import pair_table
from cooperbench_assets.report.sections import DECLARED, SECTIONS, WARNINGS, Section
from cooperbench_assets.report.style import FATES, MarkStyle
from cooperbench_assets.report.tables import Link, Shown, plain_rows, shown
from cooperbench_assets.report.terms import NOT_COMPARABLE, PAPER, PUBLISHED, TERMS
from cooperbench_assets.store import schema
from cooperbench_assets.store.schema import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cooperbench_assets.report.sources import Source

TEMPLATES: Final = Path(__file__).parent / "templates"
PROVENANCE: Final = (
    "setting", "seed", "planned", "expected_pairs", "run_name", "model", "agent", "agent_config_sha256",
    "harness_version", "harness_version_source", "harness_commit", "merge_policy", "subset", "subset_sha256",
    "dataset_sha256", "execution", "isolation", "origin", "truncated", "started_at", "ended_at", "read_at", "path",
)  # fmt: skip
CHECKS: Final = ("asset", "setting", "seed", "check_name", "passed", "blocking", "offenders", "description", "remedy")
NO_VERDICT: Final = ("setting", "seed", "pair", "outcome", "stage", "family", "evidence", "path")
SIDE_BY_SIDE: Final = "success_by_experiment"
_SIDE_BY_SIDE: Final = (
    "The settings of each experiment, read as in the chapter Success. The experiments agree in subset, harness version "
    "and merge policy as far as these are on record."
)
_COMPARED: Final = (
    "In each setting that two experiments share, over pairs with at least one clean seed in both: the mean of (mean "
    "over seeds of the first − mean over seeds of the second), read as in the chapter Settings against each other. "
    "Holm counts all contrasts of one verdict. What differs between the experiments stands in the table."
)


@dataclass(frozen=True)
class Part:
    """A chapter of one experiment."""

    experiment: str
    figures: Sequence[Figure]
    tables: Sequence[Shown]


@dataclass(frozen=True)
class Tables:
    """Every table of an experiment as it is shown, by name."""

    results: Mapping[str, Shown]
    store: Mapping[str, Shown]
    """Provenance, checks, what has no verdict, and what could not be read."""


@dataclass(frozen=True)
class Together:
    """Several experiments against each other."""

    figures: Sequence[Figure]
    comparisons: pl.DataFrame
    """``experiment_comparisons``."""

    table: Shown


@dataclass(frozen=True)
class Chapter:
    """A chapter of the page, with a part for each experiment."""

    section: Section
    parts: Sequence[Part]


def draw(source: Source) -> dict[str, Figure]:
    """Every figure of an experiment, by name."""
    return {
        drawing.name: render(drawing.name, drawing.definition, drawing.draw(source.results, source.look))
        for section in SECTIONS
        for drawing in section.drawings
    }


def side_by_side(sources: Sequence[Source]) -> Together:
    """Several experiments against each other: success of all settings, and contrasts in the settings they share.

    Raises:
        NotComparable: if they differ in subset, harness version or merge policy.
    """
    names = [source.experiment for source in sources]
    tables = {name: pl.concat(source.tables[name] for source in sources) for name in ("provenance", "pairs")}
    comparisons = experiment_comparisons(tables, names)
    summary = pl.concat(source.results["setting_summary"] for source in sources)
    remarks = dict.fromkeys(f"{source.experiment}: {source.look.remark}" for source in sources if source.look.remark)
    look = MarkStyle(tuple(names), " ".join(remarks) or None)
    figures = (
        render(SIDE_BY_SIDE, _SIDE_BY_SIDE, success_by_experiment(summary, look)),
        render(EXPERIMENT_COMPARISONS.name, _COMPARED, contrasts.experiment_comparisons(comparisons, look)),
    )
    return Together(figures, comparisons, shown(EXPERIMENT_COMPARISONS, comparisons))


def tables_of(source: Source, folder: Path) -> Tables:
    """Every table of an experiment as it is shown."""
    return Tables(_result_tables(source, folder), _store_tables(source, folder))


def _result_tables(source: Source, folder: Path) -> dict[str, Shown]:
    return {name: shown(table, source.results[name], links=_links(source, folder)) for name, table in DECLARED.items()}


def _store_tables(source: Source, folder: Path) -> dict[str, Shown]:
    checks = source.tables["check_results"].sort("passed", "asset", "setting", "seed", "check_name", nulls_last=True)
    pairs = source.tables["pairs"].filter(~pl.col("outcome").is_in(["pass", "fail"]) | pl.col("suspect"))
    made = {
        "provenance": _chosen(schema.PROVENANCE, source.tables["provenance"], PROVENANCE),
        "check_results": _chosen(schema.CHECK_RESULTS, checks, CHECKS),
        "no_verdict": _chosen(schema.PAIRS, pairs, NO_VERDICT),
        "quarantine": _chosen(schema.QUARANTINE, source.tables["quarantine"], None),
    }
    return {name: shown(table, frame, links=_links(source, folder)) for name, (table, frame) in made.items()}


def _links(source: Source, folder: Path) -> dict[str, Link]:
    return {"path": lambda row: source.link(row, folder), "pair": source.page}


def _chosen(table: Table, frame: pl.DataFrame, names: Sequence[str] | None) -> tuple[Table, pl.DataFrame]:
    """A table of the store under a name and a description that say what was chosen."""
    if table is schema.PAIRS:
        text = "Pairs without a clean verdict, or with one that is suspect, with the evidence and the raw files."
        table = Table("no_verdict", text, table.columns)
    return table, frame.select(names) if names else frame


def page(
    sources: Sequence[Source],
    figures: Mapping[str, Mapping[str, Figure]],
    folder: Path,
    together: Together | None = None,
    tables: Mapping[str, Tables] | None = None,
) -> str:
    """The whole page.

    Args:
        sources: The experiments, one or several.
        figures: By experiment and name.
        folder: Where the page will lie, for links to raw files.
        together: What holds several experiments against each other.
        tables: By experiment, with links from `folder`; made here if they are not there yet.
    """
    tables = tables or {source.experiment: tables_of(source, folder) for source in sources}
    results = {experiment: shown.results for experiment, shown in tables.items()}
    return _template().render(
        title=" and ".join(source.experiment for source in sources),
        several=len(sources) > 1,
        style=Markup(font_faces() + (TEMPLATES / "page.css").read_text()),  # noqa: S704 - files of this package
        script=Markup((TEMPLATES / "page.js").read_text()),  # noqa: S704
        remarks=[(source.experiment, source.look.remark) for source in sources if source.look.remark],
        warnings=_warnings(sources),
        failed_checks=[(source.experiment, _failed(source)) for source in sources if _failed(source)],
        headline=[row for source in sources for row in headline_rows(source.results["setting_summary"])],
        statements=[(source.experiment, list(statements(source.results))) for source in sources],
        changing=[(source.experiment, text) for source in sources if (text := changing(source.results))],
        together=together,
        across=[] if together is None else list(statements_across(together.comparisons)),
        chapters=[_chapter(section, sources, figures, results) for section in SECTIONS],
        store=[(source.experiment, tables[source.experiment].store) for source in sources],
        terms=_terms(),
        published=_published(),
        not_comparable=NOT_COMPARABLE,
        paper=PAPER,
        inline=_inline,
        grids={source.experiment: pair_table(source) for source in sources},
        outcome_styles=FATES,
        csv=_csv_path(len(sources) > 1),
    )


@cache
def _template() -> jinja2.Template:
    """The page's template, compiled once for all pages of a process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2")


def _chapter(
    section: Section,
    sources: Sequence[Source],
    figures: Mapping[str, Mapping[str, Figure]],
    tables: Mapping[str, Mapping[str, Shown]],
) -> Chapter:
    parts = [
        Part(
            source.experiment,
            [figures[source.experiment][drawing.name] for drawing in section.drawings],
            [tables[source.experiment][name] for name in section.tables],
        )
        for source in sources
    ]
    return Chapter(section, parts)


def _inline(figure: Figure, experiment: str) -> Markup:
    """A figure's SVG: made by the renderer, which escapes text as XML."""
    return Markup(figure.inline(f"{experiment}-{figure.name}"))  # noqa: S704


def _csv_path(several: bool) -> Any:
    """Where the CSV of a table lies, as seen from the page."""
    return lambda experiment, name: f"../{experiment}/tables/{name}.csv" if several else f"tables/{name}.csv"


def _warnings(sources: Sequence[Source]) -> list[dict[str, Any]]:
    rows = [row for source in sources for row in source.results[WARNINGS].iter_rows(named=True)]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(rows, key=lambda row: order.get(row["level"], 0))


def _failed(source: Source) -> int:
    return source.tables["check_results"].filter(~pl.col("passed")).height


def _terms() -> Shown:
    heads = {"here": "Word on this page", "paper": "The paper's", "meaning": "What it means, and what differs"}
    rows = [{"here": term.ours, "paper": term.theirs, "meaning": term.difference} for term in TERMS]
    return plain_rows(rows, "terms", "Words of this page against the paper's.", heads)


def _published() -> Shown:
    heads = {"what": "What the paper states", "figure": "Figure", "where": "Where"}
    rows = [{"what": one.what, "figure": one.figure, "where": one.where} for one in PUBLISHED]
    return plain_rows(rows, "published", "Figures that the paper publishes.", heads)


__all__ = [
    "Chapter", "HeadlineRow", "Part", "Together", "draw", "page", "side_by_side", "tables_of",
]  # fmt: skip
