"""The pages in a real browser: each test tells one way that a person goes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import ViewportSize, expect

from cooperbench_assets.viewer.bundle import BundleError, write_bundle
from cooperbench_assets.viewer.shelves import library_of_logs, library_of_project
from cooperbench_assets_tests.ui import browser, serious_faults
from cooperbench_assets_tests.viewer.places import (
    FIRST_TRY,
    KEY,
    NEVER_READ,
    SCRIPT,
    TRACE,
    make_experiment,
    serving,
    viewing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page, Request

    from cooperbench_assets.experiment_context import ExperimentContext

pytestmark = pytest.mark.browser

WIDE: ViewportSize = {"width": 1600, "height": 1000}
NARROW: ViewportSize = {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    return make_experiment(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def address(experiment: ExperimentContext) -> Iterator[str]:
    with viewing(experiment) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser(**WIDE) as page:
        page.set_default_timeout(20_000)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


@pytest.fixture
def page(chromium: Page) -> Iterator[Page]:
    """The page; a test ends with no error in its console and no request to another machine."""
    wrong: list[str] = []

    def look(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "file:///", "data:")):
            wrong.append(request.url)

    def complain(error: object) -> None:
        wrong.append(str(error))

    chromium.on("request", look)
    chromium.on("pageerror", complain)
    chromium.set_viewport_size(WIDE)
    yield chromium
    chromium.remove_listener("request", look)
    chromium.remove_listener("pageerror", complain)
    assert wrong == []


def talk_of(experiment: ExperimentContext) -> str:
    return f"coop-comm/0/{experiment.subset().pairs[0].name}"


def hostile_of(experiment: ExperimentContext) -> str:
    return f"coop-comm/0/{experiment.subset().pairs[1].name}"


def opened(page: Page, where: str) -> None:
    """Go to a page, and wait until it is drawn."""
    page.goto("about:blank")
    page.goto(where)
    expect(page.locator("main:not([aria-busy])")).to_be_visible()


def test_from_a_bar_of_the_experiment_page_to_the_test_that_failed_in_two_clicks(
    page: Page, address: str, experiment: ExperimentContext
) -> None:
    opened(page, f"{address}/#/e/made")
    page.locator('[data-cell="coop-comm/0"] [data-outcome="fail"]').click()
    page.get_by_role("link", name=experiment.subset().pairs[0].name).click()
    failed = page.locator("#tests article").first
    expect(failed.locator(".failing")).to_contain_text(TRACE)
    expect(failed.locator(".failing")).to_be_in_viewport()
    expect(page.get_by_role("heading", name=re.compile("Feature 1: failed"))).to_be_visible()


def test_a_message_that_was_never_read_is_called_so_and_leads_to_the_step_that_sent_it(
    page: Page, address: str, experiment: ExperimentContext
) -> None:
    opened(page, f"{address}/#/e/made/{talk_of(experiment)}?show=messages")
    read, never = page.locator("#messages tbody tr").all()
    expect(read).to_contain_text("step 2")
    expect(never).to_contain_text("never read")
    expect(never).to_contain_text(NEVER_READ)
    expect(page.locator(".strip .arc")).to_have_count(2)
    expect(page.locator('.strip .arc[data-read="never"]')).to_have_count(1)
    never.get_by_role("button").click()
    step = page.locator(".step.selected")
    expect(step).to_be_in_viewport()
    expect(step.locator('[data-kind="command"]')).to_contain_text(f"send_message agent2 {NEVER_READ}")


def test_a_link_to_a_step_opens_at_it_and_can_be_copied(
    page: Page, address: str, experiment: ExperimentContext
) -> None:
    opened(page, f"{address}/#/e/made/{talk_of(experiment)}?step=agent2.2")
    step = page.locator('[data-step="agent2.2"]')
    expect(step).to_be_in_viewport()
    expect(step.locator('[data-kind="message"]')).to_contain_text("I take parser.py")
    expect(step.locator('[data-kind="output"]')).to_contain_text("\u241b[31mred")
    expect(step.locator('[data-kind="output"]')).not_to_contain_text(KEY)
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.keyboard.press("c")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.url
    assert "step=agent" in copied
    other = re.search(r"step=(\w+)\.(\d+)", copied)
    assert other is not None
    opened(page, copied)
    expect(page.locator(f'[data-step="{other[1]}.{other[2]}"] .step-body')).to_be_in_viewport()


def test_an_earlier_try_shows_its_steps_and_leads_back_to_the_pair(
    page: Page, address: str, experiment: ExperimentContext
) -> None:
    opened(page, f"{address}/#/e/made/{talk_of(experiment)}?show=tries")
    page.locator("#tries").get_by_role("link", name="1: its steps").click()
    expect(page.locator("main:not([aria-busy]) .remark")).to_contain_text("try 1, which ended as infra error (auth)")
    expect(page.locator("main .remark")).to_contain_text(FIRST_TRY)
    page.locator(".step-summary", has_text="git status").click()
    expect(page.locator(".step-body").first).to_contain_text("I begin.")
    page.get_by_role("link", name="see that").click()
    expect(page.locator("#tests .failing")).to_contain_text(TRACE)


def test_overlapping_hunks_are_marked_in_both_patches(page: Page, address: str, experiment: ExperimentContext) -> None:
    opened(page, f"{address}/#/e/made/{talk_of(experiment)}?show=patches")
    expect(page.locator("#patches .overlap")).to_have_count(2)
    expect(page.locator("#patches .overlap .marked").first).to_have_text("agent2 changes the same lines")
    expect(page.locator("#patches .line.removed").first).to_have_text("-    return lines")


def test_a_list_is_chosen_searched_sorted_and_gone_through_pair_by_pair(
    page: Page, address: str, experiment: ExperimentContext
) -> None:
    opened(page, f"{address}/#/e/made/pairs")
    expect(page.get_by_text("16 of 16 results")).to_be_visible()
    page.get_by_role("group", name="Outcome").get_by_role("button", name=re.compile("^fail")).click()
    expect(page.get_by_text("4 of 16 results")).to_be_visible()
    page.get_by_role("columnheader", name="Cell").get_by_role("button").click()
    expect(page.get_by_role("columnheader", name="Cell")).to_have_attribute("aria-sort", "ascending")
    assert "outcome=fail" in page.url
    page.get_by_role("cell").get_by_role("link").first.click()
    expect(page.get_by_text("1 of 4, in the list")).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_text("2 of 4, in the list")).to_be_visible()
    opened(page, f"{address}/#/e/made/pairs")
    page.get_by_role("searchbox").fill("parse_all()")
    expect(page.get_by_text("1 of 16 results")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="pairs, cells side by side").click()
    expect(page.get_by_text("16 of 16 results, 4 pairs")).to_be_visible()
    row = page.get_by_role("row").nth(1)
    expect(row.get_by_role("link")).to_have_count(4)


def test_a_run_of_foreign_logs_leads_to_its_own_pairs(page: Page, experiment: ExperimentContext) -> None:
    with serving(library_of_logs(experiment.logs)) as address:
        opened(page, f"{address}/#/e/{experiment.logs.name}")
        expect(page.get_by_text("Nothing is in the results store yet")).to_have_count(0)
        page.locator('[data-cell="run-solo/solo"]').get_by_role("link", name="1 fail in run-solo/solo").click()
        expect(page.get_by_text("1 of 16 results")).to_be_visible()
        page.get_by_role("cell").get_by_role("link").first.click()
        expect(page.get_by_text("1 of 1, in the list")).to_be_visible()
        page.get_by_role("navigation", name="You are here").get_by_role("link", name="run-solo/solo").click()
        expect(page.get_by_text("4 of 16 results")).to_be_visible()


def test_a_hostile_transcript_is_shown_as_text(page: Page, address: str, experiment: ExperimentContext) -> None:
    opened(page, f"{address}/#/e/made/{hostile_of(experiment)}")
    expect(page.locator("#tests pre").first).to_contain_text(f"FAILED {SCRIPT}")
    expect(page.locator("#tests")).to_contain_text("\u241b[31mred\u241b[0m \u27e8U+202E\u27e9right to left")
    expect(page.locator("#patches")).to_contain_text(SCRIPT)
    page.get_by_role("button", name="unfold all").click()
    expect(page.locator(".step-body .text").first).to_contain_text("\ufffd")
    expect(page.get_by_role("button", name=re.compile("^(Show|Load) more")).first).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script, main img").count() == 0


def test_notes_are_written_beside_a_step(page: Page, address: str, experiment: ExperimentContext) -> None:
    opened(page, f"{address}/#/e/made/{talk_of(experiment)}?step=agent1.1")
    page.get_by_role("button", name="Note", exact=True).click()
    page.get_by_role("textbox", name="Note", exact=True).fill("It does not look first.")
    page.get_by_role("textbox", name=re.compile("Labels")).fill("haste")
    page.get_by_role("button", name="Save").click()
    expect(page.locator('[data-step="agent1.1"] .note-text')).to_have_text("haste It does not look first.")
    kept = (experiment.project.data / "notes" / "made.jsonl").read_text()
    assert json.loads(kept.splitlines()[-1])["labels"] == ["haste"]


def test_a_bundle_opens_from_disk_with_all_pages_and_without_keys(
    page: Page, experiment: ExperimentContext, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    written = write_bundle(library_of_project(experiment.project), folder)
    assert written.pairs == 16
    assert not any(KEY.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    index = f"{(folder / 'index.html').as_uri()}#/e/made"
    opened(page, index)
    expect(page.locator("article.cell")).to_have_count(4)
    page.get_by_role("link", name="All pairs").click()
    page.get_by_role("searchbox").fill("parse_all()")
    expect(page.get_by_text("1 of 16 results")).to_be_visible()
    page.get_by_role("cell").get_by_role("link").first.click()
    expect(page.locator("#messages")).to_contain_text("never read")
    opened(page, f"{index}/{talk_of(experiment)}?step=agent2.2")
    expect(page.locator('[data-step="agent2.2"] [data-kind="message"]')).to_contain_text("I take parser.py")
    write_bundle(library_of_project(experiment.project, "made"), folder)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(BundleError, match="holds something else than a bundle"):
        write_bundle(library_of_project(experiment.project), tmp_path)


def test_no_page_has_a_serious_accessibility_fault_nor_too_little_contrast_in_the_dark(
    page: Page, address: str, experiment: ExperimentContext
) -> None:
    pages = ("", "/pairs?outcome=fail", "/pairs?rows=pairs&setting=solo", f"/{talk_of(experiment)}?step=agent2.2")
    for where in pages:
        page.emulate_media(color_scheme="light")
        opened(page, f"{address}/#/e/made{where}")
        if "step" in where:
            expect(page.locator(".step.selected .text").first).to_be_visible()
        assert serious_faults(page) == [], where
        page.emulate_media(color_scheme="dark")
        assert serious_faults(page, "color-contrast") == [], where
        page.set_viewport_size(NARROW)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{where} scrolls sideways"
        page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")
