from __future__ import annotations

import json
import re
import struct
import zlib
from xml.etree import ElementTree

import polars as pl
import pytest
import vl_convert

from cooperbench_assets.analysis.grid import pair_grid
from cooperbench_assets.analysis.summary import setting_summary
from cooperbench_assets.report.charts.communication import message_kinds
from cooperbench_assets.report.charts.grid import pair_grid as draw_grid
from cooperbench_assets.report.charts.success import seed_rows, setting_rows
from cooperbench_assets.report.figure import Figure, with_own_ids
from cooperbench_assets.report.page import draw
from cooperbench_assets.report.sections import SECTIONS
from cooperbench_assets.report.sources import SCRIPTED, Source, source_of
from cooperbench_assets.report.style import FATES, SETTING_COLOURS, SETTING_SHAPES, MarkStyle, finished
from cooperbench_assets.store import schema
from cooperbench_assets_tests.analysis.stores import conflict, random_frames
from cooperbench_assets_tests.report.making import drawn, messages, ordinary, store, table


@pytest.fixture(scope="module")
def full() -> Source:
    rows = [row for row in ordinary() if row["setting"] != "coop-comm"]
    rows += table("coop-comm", "P F I")
    rows[-1] = conflict(task=8, features=(3, 4))
    for row in rows:
        row["cost_usd"], row["steps"], row["agents"] = 0.5, 20, row["agents"] or 1
    tables = store(rows, model="scripted/one")
    tables["messages"] = messages("I will edit core.py:12", "ok, done?")
    return source_of("e", tables)


@pytest.fixture(scope="module")
def figures(full: Source) -> dict[str, Figure]:
    return draw(full)


def _texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in found]


@pytest.mark.slow
def test_every_figure_is_drawn_from_a_full_store(figures: dict[str, Figure]) -> None:
    assert [name for name, figure in figures.items() if figure.svg is None] == []


@pytest.mark.slow
def test_every_figure_is_valid_by_the_schema_of_its_language_which_drawing_does_not_look_at(full: Source) -> None:
    for section in SECTIONS:
        for drawing in section.drawings:
            chart = drawing.draw(full.results, full.look)
            assert not isinstance(chart, str), drawing.name
            finished(chart).to_dict(validate=True)


def test_every_figure_says_how_many_it_is_about_and_that_the_agents_are_scripted(figures: dict[str, Figure]) -> None:
    counted = re.compile(r"n = \d|\d+ of \d+|\d+ (?:pairs?|messages?)\b|^\d+$")
    for name, figure in figures.items():
        texts = _texts(figure.svg or "")
        assert any(counted.search(text) for text in texts), name
        assert any(SCRIPTED in text for text in texts), name


def test_no_letter_is_smaller_than_ten_pixels(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)px"', figure.svg or "")]
        assert min(sizes) >= 10, name


def test_nothing_is_drawn_outside_of_a_figure(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg or "")
        assert size is not None
        assert 200 < float(size[1]) < 1100, name


def test_settings_differ_in_shape_and_colour_and_outcomes_in_letter() -> None:
    assert len(set(SETTING_COLOURS)) == len(SETTING_COLOURS) == len(set(SETTING_SHAPES))
    letters = [fate.letter for fate in FATES.values()]
    assert len(set(letters)) == len(letters)
    assert len({fate.colour for fate in FATES.values()}) == len(letters)


def _pixels(png: bytes) -> bytes:
    start, body = 8, b""
    while start < len(png):
        (length,) = struct.unpack(">I", png[start : start + 4])
        content = png[start + 8 : start + 8 + length]
        assert zlib.crc32(png[start + 4 : start + 8] + content) == struct.unpack(">I", png[start + 8 + length :][:4])[0]
        body += content if png[start + 4 : start + 8] == b"IDAT" else b""
        start += length + 12
    return zlib.decompress(body)


def test_png_files_are_small_and_show_the_same_pixels(figures: dict[str, Figure]) -> None:
    figure = figures["success_by_setting"]
    small, quick = figure.png(1.0), vl_convert.svg_to_png(figure.svg or "", scale=1.0)
    assert small.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(small) < len(quick)
    assert len(small) < 60_000
    assert _pixels(small) == _pixels(quick)


def test_a_pdf_has_its_letters_embedded(figures: dict[str, Figure]) -> None:
    pdf = figures["success_by_setting"].pdf()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/FontFile") == pdf.count(b"/FontDescriptor\n") > 0


def test_a_grid_of_too_many_squares_is_a_sentence() -> None:
    frames = random_frames(21_000, settings=("solo",), messages=False)
    found = draw_grid(pair_grid(frames), MarkStyle(("solo",)))
    assert found == "21,000 pairs × cells are more than a figure can show: see the tables, and their CSV."


def test_ids_of_two_figures_on_one_page_never_meet() -> None:
    svg = '<svg><clipPath id="clip1"/><g id="clip10" clip-path="url(#clip1)"/><use href="#clip10"/></svg>'
    assert with_own_ids(svg, "a") == (
        '<svg><clipPath id="a-clip1"/><g id="a-clip10" clip-path="url(#a-clip1)"/><use href="#a-clip10"/></svg>'
    )


def test_a_sentence_has_no_pixels() -> None:
    with pytest.raises(ValueError, match="nothing there"):
        Figure("f", "d", sentence="nothing there").png()


NAMES = ("success_by_difficulty", "merge_conflicts", "merge_kinds", "communication", "message_kinds")


def _cut(rows: list[dict[str, object]], *settings: str) -> dict[str, Figure]:
    """Those figures, of a store in which a budget stopped these settings."""
    tables = store(rows)
    tables["provenance"] = tables["provenance"].with_columns(truncated=pl.col("setting").is_in(settings))
    tables["messages"] = messages("I will edit core.py:12", "ok, done?")
    return drawn(source_of("e", tables), *NAMES)


@pytest.mark.slow
def test_figures_leave_out_a_truncated_setting_and_say_so() -> None:
    for name, figure in _cut(ordinary(), "coop-comm").items():
        if figure.svg is None:
            continue
        texts = _texts(figure.svg)
        assert any("Not drawn, because it may have no headline: coop-comm: a budget" in text for text in texts), name
        assert not [text for text in texts if text == "coop-comm" or text.startswith("coop-comm, n = ")], name


@pytest.mark.slow
def test_without_a_setting_that_may_stand_there_is_a_sentence() -> None:
    figures = _cut(ordinary(), "solo", "coop-comm", "coop-nocomm")
    for name in NAMES:
        assert figures[name].svg is None
        assert "a budget stopped it before all pairs were bought (seed" in (figures[name].sentence or ""), name


def test_a_setting_without_a_headline_shows_no_single_seeds() -> None:
    rows = [*table("solo", "PP PF FF"), *table("coop-comm", "PF FF FF")]
    tables = store(rows)
    cut = (pl.col("setting") == "coop-comm") & (pl.col("seed") == 1)
    summary = setting_summary(tables | {"provenance": tables["provenance"].with_columns(truncated=cut)})
    assert {row["label"] for row in seed_rows(summary["setting_summary"])} == {"solo"}
    assert {row["label"] for row in seed_rows(setting_summary(tables)["setting_summary"])} == {"solo", "coop-comm"}


def test_side_by_side_solo_stands_first_and_experiments_as_they_were_named() -> None:
    parts = [setting_summary(store(ordinary(name)))["setting_summary"] for name in ("b", "a")]
    labels = list(dict.fromkeys(row["label"] for row in setting_rows(pl.concat(parts), named=True)))
    assert labels == [f"{setting} · {name}" for setting in ("solo", "coop-comm", "coop-nocomm") for name in ("b", "a")]


@pytest.mark.slow
def test_steps_of_messages_are_told_where_trajectories_have_them() -> None:
    tables = store(ordinary())
    tables["messages"] = messages("I will edit core.py", "ok").with_columns(step=pl.lit(3, pl.Int64))
    key = tables["messages"].select("experiment", "setting", "seed", "pair").row(0, named=True)
    tables["agents"] = schema.AGENTS.frame([key | {"agent": name, "steps": 12} for name in ("agent1", "agent2")])
    texts = _texts(drawn(source_of("e", tables), "communication")["communication"].svg or "")
    told = "coop-comm, by trajectory, of 2 of 2 agents that wrote: 8 % of steps sent a message, the first one at step 3"
    assert any(told in text for text in texts)


def test_labels_of_rules_that_are_often_wrong_are_not_drawn_and_the_others_say_how_often_they_are_right() -> None:
    rows = table("solo", "P F") + table("coop-comm", "P F")
    frames = {**store(rows), "messages": messages("Which file?", "a.py")}
    source = source_of("e", frames)
    chart = message_kinds(source.results, source.look)
    assert not isinstance(chart, str)
    text = json.dumps(chart.to_dict())
    assert "question 12 of 12" in text
    assert "Not drawn: answer, right 5 times of 9." in text
    assert source.results["communication"]["share_answer"].to_list() == [0.5, 0.5]
    assert '"kind": "answer"' not in text
    assert '"kind": "question"' in text
