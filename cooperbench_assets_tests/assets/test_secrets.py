"""Secrets in logs that came from elsewhere, and in what goes wrong here: in no event and no table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest

from cooperbench_assets.assets.keys import asset_key, partition_key
from cooperbench_assets.assets.redacted_steps import keeping_secrets
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.experiments import bind, fill, tree

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-aaaabbbbccccdddd1234"
CANARY = "canary-7f3a91c2"


@pytest.mark.slow
def test_a_key_in_imported_logs_is_in_no_event_and_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    experiment = bind(tmp_path)
    first, second, *_ = fill(experiment, "coop-comm")
    made = tree(experiment, "coop-comm")
    said = f"401 Incorrect API key provided: {KEY} {CANARY}"
    made.result(first, agents=[trees.agent(status="Error", error=said), trees.agent()])
    made.conversation(second, trees.message(text=said))
    with dg.DagsterInstance.ephemeral() as instance:
        job = experiment_definitions(experiment).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance,
            partition_key=partition_key(Cell("made", "coop-comm", 0)),
            asset_selection=[asset_key("made", asset) for asset in CELL_ASSETS],
        )
        events = "".join(str(entry) for entry in instance.all_logs(result.run_id))
    files = list(experiment.project.tables.rglob("*.parquet"))
    tables = "".join(str(column.to_list()) for file in files for column in pl.read_parquet(file).iter_columns())
    for text in (events, tables):
        assert "401 Incorrect API key provided: [redacted:api_key] [redacted:SOME_TOKEN]" in text
        assert KEY not in text
        assert CANARY not in text


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def test_what_a_step_logs_and_raises_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", CANARY)
    experiment = bind(tmp_path, secrets=["MINE"])
    log, lines = logging.getLogger("a step"), Lines()
    log.addHandler(lines)

    def go_wrong() -> None:
        log.warning("%s does not answer", CANARY)
        try:
            raise OSError(2, "no such file", f"/tmp/{CANARY}")
        except OSError as error:
            raise ValueError(f"cannot read {CANARY}") from error

    with pytest.raises(ValueError, match=r"cannot read \[redacted:MINE\]") as caught, keeping_secrets(experiment, log):
        go_wrong()
    assert lines.said == ["[redacted:MINE] does not answer"]
    assert "no such file: '/tmp/[redacted:MINE]'" in str(caught.value.__cause__)
    log.warning("the filter is gone: %s", "x")
    assert lines.said[1:] == ["the filter is gone: x"]
