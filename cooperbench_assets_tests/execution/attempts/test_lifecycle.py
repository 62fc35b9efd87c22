"""The life of a single try on disk: recorded, given a process, and settled or withdrawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.attempts.lifecycle import How, Try, begin, record_process, settle, withdraw
from cooperbench_assets.execution.attempts.pair_state import PairState, read_states
from cooperbench_assets.execution.attempts.recovery import recover
from cooperbench_assets.execution.job import STAGING, CellJob
from cooperbench_assets.execution.runner.child_requests import child_request
from cooperbench_assets.execution.worker.protocol import ChildRequest, Stage
from cooperbench_assets_tests.execution import making
from cooperbench_assets_tests.execution.cells import attempts, nothing_left, outcomes
from cooperbench_assets_tests.execution.fake_worker import FIRST_PID, PATCH, write_files
from cooperbench_assets_tests.trees import Tree

ONE = making.pair(1)


@pytest.fixture(params=["solo", "coop"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> CellJob:
    return making.job(tmp_path, (ONE,), mode=request.param)


def state(job: CellJob) -> PairState:
    return read_states(job)[ONE]


def record(made: Try) -> Any:
    return json.loads((made.folder / "attempt.json").read_text())


def request_of(made: Try) -> ChildRequest:
    return child_request(made, None)


def one_try(job: CellJob, deed: str, stage: Stage = "agent", how: How = "ended") -> Try:
    """A try from its record to its end; its child leaves what `deed` says (nothing, if that is empty)."""
    made = begin(job, stage, state(job), 1)
    record_process(made, FIRST_PID, "none")
    if deed:
        write_files(request_of(made), *deed.partition(":")[::2])
    settle(made, how, None)
    return made


def test_a_try_is_on_record_before_anything_of_it_runs_and_knows_its_process_then(job: CellJob) -> None:
    made = begin(job, "agent", state(job), 3)
    said = record(made)
    assert (said["outcome"], said["n"], said["campaign"], said["pid"]) == ("running", 1, 3, None)
    assert made.place.root.is_dir()
    assert request_of(made).staging == str(made.place.root)
    record_process(made, FIRST_PID, "none")
    assert (record(made)["pid"], record(made)["identity"]) == (FIRST_PID, "none")


def test_a_try_that_is_withdrawn_counts_for_nothing(job: CellJob) -> None:
    made = begin(job, "agent", state(job), 1)
    withdraw(made)
    assert not made.folder.exists()
    assert not made.place.root.exists()
    assert begin(job, "agent", state(job), 1).attempt.n == 1


def test_a_good_try_puts_its_files_in_place_and_completes_its_record(job: CellJob) -> None:
    made = one_try(job, "good")
    said = record(made)
    assert (said["outcome"], said["promoted"], said["family"]) == ("completed", True, None)
    assert said["patch_sha256"] == state(job).patch_sha256 is not None
    assert said["ended_at"] >= said["started_at"]
    patches = sorted(job.pair_dir(ONE).glob("*.patch"))
    assert [file.read_text() for file in patches] == [PATCH] * (1 if job.mode == "solo" else 2)
    assert outcomes(job) == {ONE.folder: "unevaluated"}


def test_fresh_agents_push_the_files_and_the_verdict_of_the_earlier_ones_into_their_tries(job: CellJob) -> None:
    one_try(job, "error:litellm.RateLimitError: Error code: 429")
    Tree(job.run_dir, job.mode).evaluation(ONE)
    one_try(job, "good")
    assert not (job.pair_dir(ONE) / "eval.json").exists(), "no verdict on a patch that is gone"
    folder = job.attempts_dir(ONE)
    assert (folder / "agent-1" / "result.json").is_file()
    assert (folder / "eval-1" / "eval.json").is_file()
    assert [name for name, _, _ in attempts(job, ONE)] == ["agent-1", "agent-2", "eval-1"]
    assert outcomes(job) == {ONE.folder: "unevaluated"}


@pytest.mark.parametrize(
    ("deed", "how", "ending"),
    [
        ("", "interrupted", ("interrupted", "interrupted")),
        ("half", "ended", ("infra_error", "unknown")),
        ("half", "interrupted", ("interrupted", "interrupted")),
        ("stranger", "ended", ("infra_error", "unknown")),
        ("good", "interrupted", ("completed", None)),
        ("good", "deadline", ("completed", None)),
    ],
)
def test_what_a_try_left_decides_and_not_how_its_process_went(
    job: CellJob, deed: str, how: How, ending: tuple[str, str | None]
) -> None:
    made = one_try(job, deed, how=how)
    said = record(made)
    assert (said["outcome"], said["family"]) == ending
    assert (job.pair_dir(ONE) / "result.json").exists() == (said["outcome"] == "completed")
    assert said["promoted"] == (said["outcome"] == "completed")


def test_a_verdict_is_put_beside_the_result_that_it_judges(job: CellJob) -> None:
    one_try(job, "good")
    made = one_try(job, "good", "eval")
    assert record(made)["patch_sha256"] == state(job).patch_sha256
    assert outcomes(job) == {ONE.folder: "pass"}


def test_files_that_nobody_recorded_become_a_try_that_counts_for_no_limit(job: CellJob) -> None:
    Tree(job.run_dir, job.mode).pair(ONE)
    one_try(job, "good")
    found = json.loads((job.attempts_dir(ONE) / "agent-1" / "attempt.json").read_text())
    assert (found["campaign"], found["outcome"]) == (0, "completed")
    assert (job.attempts_dir(ONE) / "agent-1" / "result.json").is_file()
    assert [name for name, _, _ in attempts(job, ONE)] == ["agent-1", "agent-2", "eval-1"]


@pytest.mark.parametrize(("deed", "outcome"), [("good", "completed"), ("", "interrupted"), ("half", "interrupted")])
def test_a_try_of_a_dead_launch_is_settled_by_the_next_one(job: CellJob, deed: str, outcome: str) -> None:
    made = begin(job, "agent", state(job), 1)
    record_process(made, FIRST_PID, "none")
    if deed:
        write_files(request_of(made), deed)
    recover(job)
    assert [one[1] for one in attempts(job, ONE)] == [outcome]
    assert (job.pair_dir(ONE) / "result.json").exists() == (outcome == "completed")
    assert not (job.run_dir / STAGING).exists()
    nothing_left(job)
