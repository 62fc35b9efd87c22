"""Reports from a real results store: by function, by command, as an asset, and in a browser."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.assets.report import MOST_BYTES, build_report_asset
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES, STORE_TABLES
from cooperbench_assets.cli import cli
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.local_runs import open_instance
from cooperbench_assets.report.build import build_reports, build_side_by_side
from cooperbench_assets.report.sources import ReportError
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests import experiments, trees
from cooperbench_assets_tests.commands.place import Place, make_place
from cooperbench_assets_tests.report.making import Page

if TYPE_CHECKING:
    from collections.abc import Iterator


def published(root: Path, count: int = 8, *, dead: bool = False, **changes: Any) -> ExperimentContext:
    """The experiment `made`, read and published; with `dead`, most agents of coop-comm died of a bad key."""
    experiment = experiments.bind(root, count, **changes)
    for cell in experiment.cells:
        experiments.fill(experiment, cell.cell.setting, cell.cell.seed)
    if dead:
        built = experiments.tree(experiment, "coop-comm")
        gone = trees.agent(status="Error", error="AuthenticationError: 401 <script>alert(1)</script>")
        for pair in experiment.subset().pairs[2:]:
            built.result(pair, agents=[gone, trees.agent()])
    _publish(experiment)
    return experiment


def _publish(experiment: ExperimentContext) -> None:
    """Write the tables of every planned cell, and publish them."""
    for cell in experiment.cells:
        write_unit(
            experiment.project.tables, cell_unit(cell.cell), experiment.view(cell).frames, declared=CELL_UNIT_TABLES
        )
    publish(experiment.project.database, experiment.project.tables, declared=STORE_TABLES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    """A published experiment in which nothing went wrong."""
    return published(tmp_path_factory.mktemp("whole"))


def test_an_experiment_that_is_not_in_the_store_is_an_error_that_says_what_to_do(whole: ExperimentContext) -> None:
    with pytest.raises(ReportError, match="other is not in the results store; make it with"):
        build_reports(whole.project.database, whole.project.report, ["other"])


def _add_other(experiment: ExperimentContext, **changes: str) -> None:
    """Publish the same cells as an experiment `other` besides, whose provenance has `changes`."""
    for cell in experiment.cells:
        frames = experiment.view(cell).frames
        other = type(cell.cell)("other", cell.cell.setting, cell.cell.seed)
        frames = {name: frame.with_columns(experiment=pl.lit("other")) for name, frame in frames.items()}
        for name, value in changes.items():
            frames["provenance"] = frames["provenance"].with_columns(pl.lit(value).alias(name))
        write_unit(experiment.project.tables, cell_unit(other), frames, declared=CELL_UNIT_TABLES)
    publish(experiment.project.database, experiment.project.tables, declared=STORE_TABLES)


@pytest.mark.slow
def test_reports_are_made_of_the_published_store_and_comparable_experiments_stand_side_by_side(
    whole: ExperimentContext, tmp_path: Path
) -> None:
    shutil.copytree(whole.project.root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("report"))
    experiment = experiments.bind(tmp_path, 8)
    _add_other(experiment, model="another-model")
    (*single, joint), problem = build_side_by_side(
        experiment.project.database, experiment.project.report, ["made", "other"], {"made": experiment.logs}
    )
    assert problem is None
    assert [one.folder.name for one in single] == ["made", "other"]
    of_one = Page(single[0].page.read_text())
    assert "87.5 %" in of_one.visible  # 7 of 8 pass in every cell
    links = [href for href in of_one.having("href") if href.startswith("./")]
    assert links
    assert all((single[0].folder / href).resolve().is_dir() for href in links)
    assert joint.folder.name == "made+other"
    page = Page(joint.page.read_text())
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    assert {"all-success_by_experiment", "made-pair_grid", "other-pair_grid"} <= set(ids)
    for href in page.having("href"):
        if href.startswith("../"):
            assert (joint.folder / href).is_file(), href
    assert "another-model" in page.visible
    assert list(joint.figures) == ["success_by_experiment", "experiment_comparisons"]
    assert (joint.folder / "figures" / "experiment_comparisons.png").is_file()
    assert "all-experiment_comparisons" in ids
    line, *_ = re.findall(r"^solo: made \u2212 other = 0\.0 points .*$", page.visible, re.MULTILINE)
    assert "this design cannot decide: with so few tasks p is never below 1.0" in line
    table = pl.read_csv(joint.folder / "tables" / "experiment_comparisons.csv").filter(verdict="strict")
    assert "model differs" in table["differs"][0]
    numbers = (joint.folder / "numbers.tex").read_text()
    assert r"\newcommand{\cbAcrossSoloMadeVsOtherDifference}{0.0}" in numbers


@pytest.mark.slow
def test_experiments_on_other_subsets_are_refused_a_common_page_and_get_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One cell of two pairs: most figures are sentences, which are no matter here.
    experiment = published(tmp_path, 2, settings={"solo": {"mode": "solo", "seeds": [0]}})
    _add_other(experiment, subset_sha256="0" * 64)
    monkeypatch.setenv("COOPERBENCH_ASSETS_ROOT", str(tmp_path))
    (tmp_path / "dagster.yaml").touch()
    done = CliRunner().invoke(cli, ["report", "made", "other"])
    assert done.exit_code == 1
    assert "cannot be set side by side, subset differs" in done.stderr
    assert sorted(path.name for path in experiment.project.report.iterdir() if path.is_dir()) == ["made", "other"]


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the report asset says of an experiment most of whose agents in coop-comm died."""
    done = dg.materialize([build_report_asset(published(tmp_path_factory.mktemp("dead"), dead=True))])
    (found,) = done.get_asset_materialization_events()
    return {name: value.value for name, value in found.materialization.metadata.items()}


@pytest.mark.slow
def test_the_asset_shows_where_the_page_is_and_two_small_figures(dead: dict[str, object]) -> None:
    metadata = dead
    assert Path(str(metadata["page"])).is_file()
    assert metadata["open_it"] == "data/report/made/report.html"
    assert int(str(metadata["warnings"])) >= 1
    for name in ("success_by_setting", "paired_comparisons"):
        image = re.fullmatch(rf"!\[{name}\]\(data:image/png;base64,(.+)\)", str(metadata[name]))
        assert image is not None
        png = base64.b64decode(image[1])
        assert png.startswith(b"\x89PNG")
        assert len(png) <= MOST_BYTES


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = make_place(tmp_path_factory.mktemp("place"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOPERBENCH_ASSETS_ROOT", str(made.project.root))
        made.add_run("mine-solo")
        made.add_run("mine-coop", "coop", passed=False)
        runs = ("--run", "solo=mine-solo", "--run", "coop-nocomm=mine-coop")
        done = made.run("import-logs", made.logs, "--experiment", "mine", "--subset", made.subset, *runs)
        assert done.exit_code == 0, done.output
        _publish(ExperimentContext("mine", load_experiments(made.project.defs)["mine"], made.project))
        yield made


@pytest.mark.slow
def test_the_command_makes_the_report_says_where_and_has_it_materialised_in_the_ui(place: Place) -> None:
    done = place.run("report", "mine")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith("data/report/mine/report.html")
    assert (place.project.report / "mine" / "figures" / "pair_grid.png").is_file()
    with open_instance(place.project) as instance:
        event = instance.get_latest_materialization_event(asset_key("mine", "report"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert metadata["open_it"] == "data/report/mine/report.html"
    assert "data:image/png;base64," in str(metadata["success_by_setting"])


def test_the_command_says_which_experiment_is_not_there(place: Place) -> None:
    done = place.run("report", "nobody")
    assert done.exit_code == 2
    assert "no experiment 'nobody' (there are: mine)" in done.stderr


@pytest.mark.browser
def test_a_person_opens_the_page_offline_sees_the_warning_and_the_bounds_first_and_sorts_a_table(
    dead: dict[str, object],
) -> None:
    from cooperbench_assets_tests.ui import browser

    report = Path(str(dead["page"]))
    with browser(1500, 950) as page:
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.context.set_offline(True)
        page.goto(report.as_uri())

        for text in ("infrastructure errors ended agents in 6 of 8 planned pairs", "12.5 % to 87.5 %", "50.0 %"):
            box = page.get_by_text(text).first.bounding_box()
            assert box is not None, text
            assert box["y"] + box["height"] < 950, text

        headline = page.locator("table[data-table=headline]")
        rates = headline.locator("tbody tr td:nth-child(3)")
        headline.get_by_role("button", name="passes of judged").click()
        up = [float(text.split(" %")[0]) for text in rates.all_inner_texts()]
        assert up == sorted(up)
        headline.get_by_role("button", name="passes of judged").click()
        assert [float(text.split(" %")[0]) for text in rates.all_inner_texts()] == sorted(up, reverse=True)
        assert headline.locator("th[aria-sort=descending]").count() == 1

        assert page.evaluate("document.querySelectorAll('figure svg').length") > 5
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert asked == [report.as_uri()]
        assert said == []


@pytest.mark.browser
def test_on_a_narrow_screen_letters_keep_their_size_and_on_paper_no_table_is_cut(dead: dict[str, object]) -> None:
    from cooperbench_assets_tests.ui import browser

    report = Path(str(dead["page"]))
    scale = "s.getBoundingClientRect().width / s.viewBox.baseVal.width"
    natural = f"[...document.querySelectorAll('figure svg')].map(s => {scale})"
    right = "Math.max(...[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right))"
    with browser(420, 900) as page:
        page.goto(report.as_uri())
        assert min(page.evaluate(natural)) > 0.99
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    with browser(1040, 720) as page:
        page.emulate_media(media="print")
        page.goto(report.as_uri())
        assert page.evaluate(right) <= 1040
        assert page.get_by_text("notes").locator("xpath=../ul").is_visible()
