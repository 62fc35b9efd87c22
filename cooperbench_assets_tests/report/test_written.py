"""Macros, LaTeX, CSV and values as text."""

from __future__ import annotations

import io
import re
from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.report.numbers import macro_name, numbers_tex
from cooperbench_assets.report.paper_tables import paper_tables
from cooperbench_assets.report.tables import PAGEFUL, csv_of, shown, tex_escaped, tex_of, written
from cooperbench_assets.store.schema import Column, Table
from cooperbench_assets_tests.report.making import ordinary, source

PLAIN = re.compile(r"\\(?:text(?:backslash|asciicircum|asciitilde|less|greater|bar|quotedbl)|ldots)\{\}|\\[{}$&#_%]")


def test_macros_have_names_of_letters_and_the_figures_of_the_analyses() -> None:
    made = source(ordinary())
    text = numbers_tex(made.results)
    macros = dict(re.findall(r"\\newcommand\{\\([A-Za-z]+)\}\{(.*)\}", text))
    assert len(macros) == text.count("\\newcommand")
    summary = (
        made.results["setting_summary"].filter(level="setting", verdict="strict", setting="solo").row(0, named=True)
    )
    assert macros["cbESoloRate"] == f"{100 * summary['rate_clean']:.1f}" == "50.0"
    assert macros["cbESoloPlanned"] == "48"
    assert macros["cbECoopCommSeeds"] == "1"
    assert macros["cbESoloVsCoopCommPairs"] == "16"
    assert macros["cbESoloUpstreamRate"] == "50.0"


def test_the_tables_for_a_paper_have_eight_columns_and_the_figures_of_the_analyses() -> None:
    results = source(ordinary()).results
    settings, contrasts = (table.frame() for table in paper_tables(results).values())
    assert (settings.width, contrasts.width) == (8, 8)
    summary = results["setting_summary"].filter(level="setting", verdict="strict", setting="solo").row(0, named=True)
    rate, low, high = (100 * summary[name] for name in ("rate_clean", "clean_low", "clean_high"))
    solo = settings.row(0, named=True)
    assert solo["success, %"] == f"{rate:.1f} [{low:.1f}, {high:.1f}]"
    assert (solo["judged"], solo["conflicts, %"]) == (f"{summary['clean']} of {summary['planned']}", "–")
    first = results["paired_comparisons"].filter("headline").row(0, named=True)
    assert contrasts.row(0)[:4] == ("success", "solo − coop-comm", str(first["pairs"]), str(first["tasks"]))
    assert contrasts["difference, points"][0].startswith(f"{100 * first['difference']:.1f} [")


@given(st.lists(st.text(max_size=12), max_size=4))
def test_a_macro_name_has_letters_only(parts: list[str]) -> None:
    assert re.fullmatch(r"[A-Za-z]+", macro_name(*parts))


def test_two_settings_that_would_share_a_macro_are_an_error() -> None:
    rows = [row | {"setting": label} for label in ("coop-comm", "coop.comm") for row in ordinary()[:2]]
    with pytest.raises(ValueError, match="would stand for two figures"):
        numbers_tex(source(rows).results)


@given(st.text())
def test_latex_meets_no_character_that_means_something_to_it(text: str) -> None:
    escaped = tex_escaped(text)
    rest = PLAIN.sub("", escaped.replace("$-$", "").replace(r"$\times$", "").replace("{[}", "").replace("{]}", ""))
    assert not re.search(r"[\\{}$&#^_~%<>\n\r]", rest)


def test_a_latex_table_has_as_many_cells_in_every_row() -> None:
    table = Table("t", "A & B", (Column("a_b", pl.String, ""), Column("n", pl.Int64, "")), key=())
    frame = pl.DataFrame({"a_b": ["x & y", None], "n": [1, 2000]})
    text = tex_of(shown(table, frame))
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert rows == [r"x \& y & 1 \\", r"-- & 2,000 \\"]
    assert r"\begin{tabular}{lr}" in text
    long = pl.DataFrame({"a_b": ["x"] * (PAGEFUL + 1), "n": range(PAGEFUL + 1)})
    assert r"\begin{longtable}{lr}" in tex_of(shown(table, long))


def test_csv_gives_back_what_was_in_the_frame() -> None:
    frame = pl.DataFrame(
        {"text": ['a,"b"\nc', None], "x": [0.1, None], "when": [datetime(2026, 1, 2, 3), None], "l": [["a", "b"], None]}  # noqa: DTZ001
    )
    back = pl.read_csv(io.StringIO(csv_of(frame)))
    assert back["text"].to_list() == ['a,"b"\nc', None]
    assert back["x"].to_list() == [0.1, None]
    assert back["when"].to_list() == ["2026-01-02T03:00:00.000000", None]
    assert back["l"].to_list() == ["a; b", None]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "yes"), (1234, "1,234"), (0.45678, "0.457"), (45678.9, "45,679"), ("x", "x"), (["a"], "a")],
)
def test_values_for_people(value: object, text: str) -> None:
    assert written(value) == text


def test_what_is_not_a_number_is_not_known() -> None:
    assert written(float("nan")) == written(float("inf")) == "–"
