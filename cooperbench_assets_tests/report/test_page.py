from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import polars as pl
import pytest

from cooperbench_assets.report.build import _table_files, build_one
from cooperbench_assets.report.figure import Figure
from cooperbench_assets.report.numbers import numbers_tex
from cooperbench_assets.report.page import draw, tables_of
from cooperbench_assets.report.page import page as whole_page
from cooperbench_assets.report.sections import DECLARED, SECTIONS
from cooperbench_assets.report.sources import source_of
from cooperbench_assets.store import schema
from cooperbench_assets.viewer_links import USUAL
from cooperbench_assets_tests.analysis.stores import START, pair_row
from cooperbench_assets_tests.report.making import Page, dead_arm, drawn, messages, ordinary, source, store, table
from cooperbench_assets_tests.ui import browser, serious_faults

if TYPE_CHECKING:
    from cooperbench_assets.report.sources import Source

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def build(rows: list[dict[str, Any]], folder: Path, logs: Path | None = None, **cells: Any) -> tuple[Path, Page]:
    built, _ = build_one(source(rows, logs, **cells), folder)
    return built.folder, Page(built.page.read_text())


def written(made: Source, folder: Path) -> tuple[str, Page]:
    """The page without its figures, which take most of a report's time."""
    names = [drawing.name for section in SECTIONS for drawing in section.drawings]
    blank = {name: Figure(name, "", sentence="Not drawn.") for name in names}
    text = whole_page([made], {made.experiment: blank}, folder)
    return text, Page(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    return build(ordinary(), tmp_path_factory.mktemp("report"))


@pytest.mark.slow
def test_the_page_takes_nothing_from_anywhere_else(built: tuple[Path, Page]) -> None:
    folder, page = built
    text = (folder / "report.html").read_text()
    assert page.having("src") == []
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "img", "base", "form"}
    linked = re.sub(rf'href="{USUAL}/#/[^"]*"', "", text)  # Links that a person follows, to the viewer on loopback.
    assert not re.search(r"@import|https?:(?!//www\.w3\.org/)", linked)
    assert all(reference.startswith(("#", "data:font/woff2;")) for reference in re.findall(r"url\(([^)]+)\)", text))
    for href in page.having("href"):
        assert href.startswith(("#", "./", "tables/", f"{USUAL}/#/e/e")), href


OUTSIDE = """
document.fonts.ready.then(() => {
  const loaded = [...document.fonts].filter((font) => font.status === "loaded").map((font) => font.weight);
  const edge = document.documentElement.getBoundingClientRect().right;
  const outside = [...document.querySelectorAll("svg text")].filter(
    (text) => text.getBoundingClientRect().right > edge + 1).map((text) => text.textContent);
  return {loaded: [...new Set(loaded)].sort(), outside};
})
"""


FIRST_ROWS = """
for (const one of document.querySelectorAll("details")) one.open = true;
for (const one of document.querySelectorAll("tbody tr:nth-child(n+4), figure svg > *")) one.remove();
"""
"""All else repeats what these are, at a minute of axe's time."""


@pytest.mark.browser
def test_pages_and_figures_carry_the_font_of_their_texts_and_the_page_is_accessible_and_fits_a_narrow_window(
    built: tuple[Path, Page],
) -> None:
    folder, _ = built
    with browser() as page:
        for file in [folder / "report.html", *sorted((folder / "figures").glob("*.svg"))]:
            page.goto(file.as_uri())
            found = page.evaluate(OUTSIDE)
            assert found["loaded"] in (["400", "700"], ["700"]), file.name
            assert found["outside"] == [], file.name
        page.goto((folder / "report.html").as_uri())
        for width in (640, 400):  # 640: of 1280 at 200 %.
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"scrolls sideways at {width}"
        page.evaluate(FIRST_ROWS)
        assert serious_faults(page) == []


def test_every_link_leads_somewhere_and_every_id_is_there_once(built: tuple[Path, Page]) -> None:
    folder, page = built
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    for href in page.having("href"):
        if href.startswith("#"):
            assert href[1:] in ids
        elif href.startswith("tables/"):
            assert (folder / href).is_file()


def test_the_page_has_every_chapter_figure_definition_and_table(built: tuple[Path, Page]) -> None:
    _, page = built
    ids, tables = page.having("id"), page.having("data-table")
    for section in SECTIONS:
        assert section.name in ids
        for drawing in section.drawings:
            assert f"e-{drawing.name}" in ids
            assert " ".join(drawing.definition.split()) in page.visible
    assert set(DECLARED) - {"warnings"} <= set(tables)
    assert {"provenance", "check_results", "no_verdict", "quarantine", "terms", "published", "headline"} <= set(tables)
    assert "not comparable" in page.visible
    assert "arXiv 2601.13295v2" in page.visible


def test_warnings_stand_before_the_headline_and_the_headline_before_every_figure(built: tuple[Path, Page]) -> None:
    ids = built[1].having("id")
    first_figure = next(n for n, name in enumerate(ids) if name.startswith("e-"))
    assert ids.index("warnings") < ids.index("headline") < first_figure


def test_each_table_is_there_as_csv_and_latex_and_each_figure_as_svg_and_png(built: tuple[Path, Page]) -> None:
    folder, page = built
    for name in DECLARED:
        rows = pl.read_csv(folder / "tables" / f"{name}.csv", infer_schema=False)
        assert rows.columns == [column.name for column in DECLARED[name].columns]
        assert r"\toprule" in (folder / "tables" / f"{name}.tex").read_text()
    for section in SECTIONS:
        for drawing in section.drawings:
            files = {path.suffix for path in (folder / "figures").glob(f"{drawing.name}.*")}
            assert files in ({".svg", ".pdf", ".png"}, {".txt"})
            if ".svg" in files:
                ElementTree.fromstring((folder / "figures" / f"{drawing.name}.svg").read_text())
    assert (folder / "numbers.tex").is_file()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["all"]["planned"] == 16 * 5
    assert [row["setting"] for row in manifest["settings"]] == ["solo", "coop-comm", "coop-nocomm"]
    grid = 1  # On the page it is a table, whose squares are links.
    assert page.count("svg") == len(list((folder / "figures").glob("*.svg"))) - grid
    assert f"{USUAL}/#/e/e/solo/0/" in " ".join(page.having("href"))


def test_a_dead_arm_shows_its_warning_its_bounds_and_its_rates_both_ways(tmp_path: Path) -> None:
    _, page = written(source(dead_arm()), tmp_path)
    before = page.visible.split("Success by setting")[0]
    assert "infrastructure errors ended agents in 8 of 16 planned pairs (50.0 %; auth), against 0.0 % in solo" in before
    assert "25.0 % to 75.0 %" in before  # 4 passes, 8 without a verdict, of 16
    assert "50.0 %" in before  # of the 8 judged
    assert "25.0 %" in before  # of all 16
    assert "8 of 16" in before


def test_a_truncated_cell_gets_no_headline_and_its_bounds_stay(tmp_path: Path) -> None:
    tables = store(ordinary())
    cut = (pl.col("setting") == "coop-comm").alias("truncated")
    tables["provenance"] = tables["provenance"].with_columns(cut)
    made = source_of("e", tables)
    text, page = written(made, tmp_path)
    assert "No headline: a budget stopped it before all pairs were bought (seed 0)" in page.visible
    assert "solo − coop-comm: no headline" in page.visible
    row = re.search(r'<tr data-verdict="strict" class="refused">(.*?)</tr>', text, re.DOTALL)
    assert row is not None
    assert "coop-comm" in row[1]
    assert 'class="number rate"' not in row[1]
    assert "25.0 % to 25.0 %" in row[1]
    macros = numbers_tex(made.results)
    assert r"\newcommand{\cbECoopCommRate}{n/a}" in macros
    assert r"\newcommand{\cbECoopCommBoundLow}{25.0}" in macros
    assert r"\newcommand{\cbESoloVsCoopCommDifference}{n/a}" in macros
    assert r"\newcommand{\cbECoopNocommRate}{25.0}" in macros


def test_cells_of_different_models_are_refused_a_headline_and_a_comparison(tmp_path: Path) -> None:
    tables = store(ordinary())
    other = pl.when((pl.col("setting") == "solo") & (pl.col("seed") == 1)).then(pl.lit("another")).otherwise("model")
    tables["provenance"] = tables["provenance"].with_columns(other.alias("model"))
    made = source_of("e", tables)
    _, page = written(made, tmp_path)
    assert "No headline: model differs: another / m" in page.visible
    assert "solo and coop-comm are not compared: model differs" in page.visible
    assert r"\newcommand{\cbESoloRate}{n/a}" in numbers_tex(made.results)
    svg = drawn(made, "success_by_setting")["success_by_setting"].svg
    assert svg is not None
    assert "no headline: model differs" in svg


@pytest.mark.slow
def test_what_agents_and_folders_say_is_never_markup(tmp_path: Path) -> None:
    rows = [
        *table("solo", "PP PF FF"),
        pair_row(
            setting=f"coop{EVIL}", task=1, outcome="infra_error", evidence=EVIL, family=EVIL, path=f"run/{EVIL}/../x",
            pair=f"repo/{EVIL}/f1_f2", suspect=True,
        ),
        pair_row(setting=f"coop{EVIL}", task=2, outcome="fail", reason=EVIL, reason_strict=EVIL),
    ]  # fmt: skip
    tables = store(rows, model=EVIL, mode="coop")
    tables["messages"] = messages(EVIL, f"plan: {EVIL}?")
    check = {"experiment": "e", "asset": "run_logs", "check_name": EVIL, "passed": False, "description": EVIL}
    tables["check_results"] = schema.CHECK_RESULTS.frame([{**check, "remedy": EVIL, "checked_at": START}])
    bad = {"experiment": "e", "setting": "solo", "seed": 0, "path": EVIL, "kind": EVIL, "message": EVIL}
    tables["quarantine"] = schema.QUARANTINE.frame([bad])
    made = source_of("e", tables, tmp_path / "logs")
    figures = draw(made)
    text = whole_page([made], {"e": figures}, tmp_path / "e")
    page = Page(text)
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert page.having("onerror") == []
    assert text.lower().count("<script") == 1
    assert EVIL in page.visible
    assert all(href.startswith(("#", "./", "tables/", f"{USUAL}/#/e/e")) for href in page.having("href"))
    for figure in figures.values():
        if figure.svg:
            names = {element.tag.split("}")[1] for element in ElementTree.fromstring(figure.svg).iter()}
            assert not names & {"script", "img", "image", "foreignObject"}


def test_raw_files_are_linked_by_paths_relative_to_the_page_and_without_known_logs_a_path_is_text(
    tmp_path: Path,
) -> None:
    known = source([pair_row(path="a run/solo/repo/1/f1_f2#x", outcome="fail")], tmp_path / "data" / "logs")
    _, page = written(known, tmp_path / "data" / "report" / "e")
    assert "./../../logs/a%20run/solo/repo/1/f1_f2%23x/" in page.having("href")
    _, page = written(dataclasses.replace(known, logs=None), tmp_path)
    assert "a run/solo/repo/1/f1_f2#x" in page.visible
    assert not any("f1_f2" in href for href in page.having("href") if not href.startswith(USUAL))


THIN: dict[str, list[dict[str, Any]]] = {
    "two seeds of three pairs": [
        *[pair_row(seed=seed, task=task, outcome="pass") for seed in (0, 1) for task in (1, 2, 3)],
        *[pair_row(setting="coop-comm", task=task, outcome="fail") for task in (1, 2, 3)],
    ],
    "one setting": table("solo", "PPF PFF FFF"),
    "one seed of solo": [*table("solo", "P F"), *table("coop-comm", "P F")],
    "no solo": [*table("coop-comm", "P F"), *table("coop-nocomm", "F P")],
    "one task": [pair_row(), pair_row(setting="coop-comm", outcome="fail")],
    "one pair": [pair_row(outcome="fail")],
    "an empty cell": [*table("solo", "PP FF"), *table("coop-comm", "M")],
    "nothing but infrastructure": [*table("solo", "I"), *table("coop-comm", "I")],
    "nothing passes": [*table("solo", "FF"), *table("coop-comm", "F")],
    "all passes": [*table("solo", "PP"), *table("coop-comm", "P")],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", THIN)
def test_thin_data_gives_figures_or_sentences(name: str, tmp_path: Path) -> None:
    made = source(THIN[name])
    figures = draw(made)  # Of PNG and PDF, which are made of an SVG whatever it shows, `built` has enough.
    page = Page(whole_page([made], {made.experiment: figures}, tmp_path))
    shown = " ".join(text for where, text in page.texts if "/td" in where or "/svg" in where or "/figcaption" in where)
    assert not re.search(r"\b(nan|None|inf|NaN|undefined|null)\b", shown)
    for figure in figures.values():
        assert (figure.svg is None) != (figure.sentence is None)
        assert figure.sentence is None or figure.sentence.strip().endswith((".", "?"))
    assert r"{nan}" not in numbers_tex(made.results)
    assert set(DECLARED) <= {Path(file).stem for file in _table_files(made, tables_of(made, tmp_path))}


def test_an_experiment_without_a_row_of_pairs_still_has_a_page_and_replaces_all_of_the_old_one_and_of_a_killed_build(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "e"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "gone.svg").write_text("old")
    left = tmp_path / ".e.new-00000000.part"
    left.mkdir()
    (left / "report.html").write_text("half")
    tables = {name: frame.clear() for name, frame in store(ordinary()).items()}
    built, figures = build_one(source_of("e", tables), tmp_path)
    assert not (folder / "figures" / "gone.svg").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".e.lock", "e"]
    assert all(figure.svg is None for figure in figures.values())
    assert "No planned cell has a pair." in Page(built.page.read_text()).visible


@pytest.mark.slow
def test_two_points_are_not_joined_to_a_curve(built: tuple[Path, Page]) -> None:
    two = drawn(source(THIN["one seed of solo"]), "success_by_difficulty", "success_by_difficulty_paper")
    svg = two["success_by_difficulty_paper"].svg
    assert svg is not None
    assert "mark-line role-mark" not in svg
    assert two["success_by_difficulty"].sentence is not None
    more = built[0] / "figures" / "success_by_difficulty.svg"
    assert "mark-line role-mark" in more.read_text()


@pytest.mark.slow
def test_the_same_store_gives_the_same_bytes(built: tuple[Path, Page], tmp_path: Path) -> None:
    first, _ = built
    second, _ = build(ordinary(), tmp_path / "b")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    same = [name for name in files if name.suffix != ".pdf"]
    assert [name for name in same if (first / name).read_bytes() != (second / name).read_bytes()] == []
