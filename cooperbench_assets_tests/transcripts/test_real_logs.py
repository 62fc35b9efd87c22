"""The pages of the real flash runs, which keep neither patches nor trajectories."""

from __future__ import annotations

from pathlib import Path

import pytest

from cooperbench_assets.transcripts.listing import pair_rows
from cooperbench_assets.transcripts.page import chunk, pair_page, raw_part
from cooperbench_assets.transcripts.sources import Source, SourceError, source_of_logs

pytestmark = pytest.mark.real_logs


@pytest.fixture(scope="module")
def source(real_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return source_of_logs(real_logs, tmp_path_factory.mktemp("cache"))


def test_every_pair_of_every_run_has_a_row_with_its_own_path(source: Source) -> None:
    rows = list(pair_rows(source))
    assert len(rows) == len({row.path for row in rows}) == 300
    assert {(row.setting, row.seed) for row in rows} == {(mode, n) for mode in ("solo", "coop") for n in (1, 2, 3)}
    passed = [row for row in rows if row.run == "flash_solo_1" and row.outcome == "pass"]
    assert len(passed) == 21


def test_a_page_quotes_the_api_error_that_ended_an_agent_and_says_what_was_not_kept(source: Source) -> None:
    page = pair_page(source, "flash_msg_1/coop/pallets_click_task/2800/f1_f7")
    assert page.row.family == "auth"
    assert page.evidence is not None
    assert (page.evidence.agent, page.evidence.index) == ("agent2", 0)
    body = chunk(source, page.row.path, "agent2", 0).steps[0]
    assert page.evidence.text in body.texts[0].text
    assert "The patch of agent1 was not kept." in page.not_kept
    assert page.messages is not None
    assert len(page.messages) == 5
    assert {message.read for message in page.messages} == {"not recorded"}


def test_failing_tests_come_before_the_output_they_stand_in(source: Source) -> None:
    row = next(row for row in pair_rows(source) if row.reason == "tests" and row.mode == "coop")
    failed = [feature for feature in pair_page(source, row.path).tests if not feature.passed]
    assert failed
    for feature in failed:
        assert feature.output is not None
        assert all(line in feature.output for line in feature.failing)


def test_a_raw_file_is_given_out_in_parts_that_make_up_all_of_it(source: Source) -> None:
    path = "flash_msg_1/coop/pallets_click_task/2800/f1_f7"
    name = next(file.name for file in pair_page(source, path).files if file.name.endswith("eval.json"))
    part, whole = raw_part(source, path, name), ""
    while part.text:
        whole += part.text
        part = raw_part(source, path, name, part.end)
    assert part.end == part.bytes
    assert raw_part(source, path, name, 10**30).text == ""
    assert raw_part(source, path, name, -1).start == 0
    assert whole.startswith("{")
    assert whole.rstrip().endswith("}")


@pytest.mark.parametrize(
    "path",
    [
        "flash_msg_1/coop/../../solo/x_task/1/f1_f2",
        "../logs/flash_msg_1/coop/pallets_click_task/2800/f1_f7",
        "flash_msg_1/coop/pallets_click_task/2800/f7_f1",
        "/etc/passwd",
        "",
    ],
)
def test_a_path_that_is_no_pair_is_refused(source: Source, path: str) -> None:
    with pytest.raises(SourceError, match="is no pair here"):
        pair_page(source, path)


def test_a_file_that_is_not_the_pairs_own_is_refused(source: Source) -> None:
    with pytest.raises(SourceError, match="has no file"):
        raw_part(source, "flash_msg_1/coop/pallets_click_task/2800/f1_f7", "config.json")
