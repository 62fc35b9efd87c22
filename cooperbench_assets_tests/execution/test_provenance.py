from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.pairs import Subset
from cooperbench_assets.execution import provenance
from cooperbench_assets.execution.errors import LaunchError, RefusedLaunch
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.worker.protocol import Stage
from cooperbench_assets_tests.execution.making import job, pair

HARNESS = {"version": "0.0.29", "commit": "abc123", "dirty": False, "packages": {"litellm": "1.80"}}
CONFIG = """\
config:
  model:
    model_kwargs:
      api_base: https://user:hunter2@models.example.org:8443/v1
      api_key: sk-in-the-config
      temperature: 0.2
      note: canary-of-the-environment
    inline: {auth_token: sk-inline, model_class: litellm}  # sk-in-a-comment
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CellJob:
    monkeypatch.setenv("MODEL_KEY", "canary-of-the-environment")
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIG)
    return job(
        tmp_path,
        (pair(1), pair(3)),
        agent_config=config,
        environment={"PLAIN": "canary-of-defs"},
        secrets=("MODEL_KEY",),
        mode="coop",
        messaging=True,
    )


def begin(of: CellJob, stage: Stage = "agent", *, results: bool = False, verdicts: bool = False, **changes: Any) -> int:
    of.run_dir.mkdir(parents=True, exist_ok=True)
    present = {**provenance.describe(of, HARNESS, {"agents": 4}, {"toy:task1": "toy@sha256:aa"}), **changes}
    return provenance.begin(of, stage, "cli", present, 1, has_results=results, has_verdicts=verdicts)


def test_what_made_a_run_is_recorded_and_read_by_the_tree_reader(made: CellJob) -> None:
    launch = begin(made)
    provenance.end(made.run_dir, launch, {"truncated": True}, {"launched": 2})
    record = provenance.read_provenance(made.run_dir)
    assert record["harness_version"] == "0.0.29"
    assert record["merge_policy"] == "agent1_alone"
    assert record["agent_config_sha256"] == hashlib.sha256(CONFIG.encode()).hexdigest()
    assert record["endpoint_host"] == "models.example.org"
    assert record["sampling"] == {"temperature": 0.2}
    assert record["variables"] == ["MODEL_KEY", "PLAIN"]
    assert record["limits"]["agent_attempts"] == 3
    assert [(one["stage"], one["launched"]) for one in record["launches"]] == [("agent", 2)]
    assert all(record[key].endswith("+00:00") for key in ("started_at", "ended_at"))
    read = read_run(made.run_dir, "coop").provenance
    assert read is not None
    assert (read.record.origin, read.record.truncated, read.record.messaging) == ("executed", True, True)


def test_an_analysis_is_on_record_only_if_it_was_declared_before_the_first_result(made: CellJob) -> None:
    """A launch without results may change it; once there are results, it stays what it was, or unsaid."""
    for said in ("one", "two"):
        begin(replace(made, analysis=said))
    first = hashlib.sha256(b"two").hexdigest()
    assert provenance.read_provenance(made.run_dir)["analysis_sha256"] == first
    begin(replace(made, analysis="three"), results=True)
    begin(replace(made, analysis="three"), "eval", results=True)
    assert provenance.read_provenance(made.run_dir)["analysis_sha256"] == first
    silent = replace(made, run_name="silent")
    begin(silent)
    begin(replace(silent, analysis="three"), results=True)
    assert provenance.read_provenance(silent.run_dir)["analysis_sha256"] is None


def test_no_value_of_a_variable_and_no_secret_of_a_config_is_written(made: CellJob) -> None:
    begin(made)
    text = (made.run_dir / "provenance.json").read_text()
    for canary in ("canary-of-defs", "canary-of-the-environment", "sk-in-the-config", "sk-inline", "sk-in-a-comment"):
        assert canary not in text
    assert "model_class: litellm" in provenance.read_provenance(made.run_dir)["agent_config"]


def test_a_password_in_an_endpoints_address_is_not_written(made: CellJob) -> None:
    begin(made)
    assert "hunter2" not in (made.run_dir / "provenance.json").read_text()


AGENTS_OWN = ("model", "agent_config_sha256", "endpoint_host", "endpoint_sha256")
BOTH = ("merge_policy", "harness_version", "harness_commit")


@pytest.mark.parametrize("key", [*AGENTS_OWN, *BOTH])
def test_a_cell_that_would_hold_two_kinds_of_results_is_refused(made: CellJob, key: str) -> None:
    other: dict[str, Any] = {key: "other"}
    begin(made)
    with pytest.raises(RefusedLaunch, match=rf"results were made otherwise \({key} was .*, is now other\); give the"):
        begin(made, results=True, **other)
    begin(made, results=False, **other)


@pytest.mark.parametrize("key", BOTH)
def test_a_cell_that_would_hold_two_kinds_of_verdicts_is_refused(made: CellJob, key: str) -> None:
    newer: dict[str, Any] = {key: "newer"}
    begin(made)
    begin(made, "eval", results=True, **newer)
    words = rf"verdicts were made otherwise \({key} was newer, is now .*\); change it back, or, .*without buying agents"
    with pytest.raises(RefusedLaunch, match=words):
        begin(made, "eval", results=True, verdicts=True)
    begin(made, "eval", results=True, verdicts=True, **newer)
    begin(made, results=True)


@pytest.mark.parametrize("key", AGENTS_OWN)
def test_evaluations_ask_for_nothing_of_the_agents_side_and_leave_what_is_recorded_of_it(
    made: CellJob, key: str
) -> None:
    begin(made)
    before = provenance.read_provenance(made.run_dir)[key]
    other: dict[str, Any] = {key: "other"}
    begin(made, "eval", results=True, verdicts=True, **other)
    assert provenance.read_provenance(made.run_dir)[key] == before
    begin(made, results=True)


def test_a_changed_prompt_is_the_agents_and_changed_tests_are_the_evaluations(made: CellJob) -> None:
    begin(made)
    begin(made, "eval", results=True)
    feature = made.dataset / "alpha_task/task1/feature2"
    (feature / "tests.patch").write_text("fixed upstream")
    begin(made, results=True)
    with pytest.raises(RefusedLaunch, match=r"\(task_files: alpha_task/task1/feature2 was \w+, is now \w+\)"):
        begin(made, "eval", results=True, verdicts=True)
    (feature / "tests.patch").unlink()
    (feature / ".DS_Store").write_text("a desktop's")
    begin(made, "eval", results=True, verdicts=True)
    (feature / "feature.md").write_text("another prompt")
    with pytest.raises(RefusedLaunch, match=r"\(task_prompts: alpha_task/task1/feature2 was"):
        begin(made, results=True)


def test_a_subset_may_grow(made: CellJob) -> None:
    small = replace(made, subset=Subset("small", made.subset.pairs[:1], made.subset.path))
    begin(small)
    begin(made, results=True)
    assert len(provenance.read_provenance(made.run_dir)["made_with"]["agent"]["task_prompts"]) == 4


@pytest.mark.parametrize("stage", ["agent", "eval"])
def test_another_image_is_refused_and_a_further_one_is_recorded(made: CellJob, stage: Stage) -> None:
    begin(made, stage)
    there = {"results": True, "verdicts": True}
    begin(made, stage, **there, images={"toy:task2": "toy@sha256:bb"})
    with pytest.raises(RefusedLaunch, match=r"images: toy:task1 was toy@sha256:aa, is now toy@sha256:cc"):
        begin(made, stage, **there, images={"toy:task1": "toy@sha256:cc"})
    recorded = provenance.read_provenance(made.run_dir)["made_with"][stage]["images"]
    assert recorded == {"toy:task1": "toy@sha256:aa", "toy:task2": "toy@sha256:bb"}


def test_what_an_older_record_does_not_have_is_not_judged_and_what_it_has_is(made: CellJob) -> None:
    begin(made)
    record = provenance.read_provenance(made.run_dir)
    older = {key: record[key] for key in ("model", "harness_version", "prompts_sha256", "subset_sha256")}
    provenance.write_provenance(made.run_dir, older)
    begin(made, results=True, endpoint_host="elsewhere", harness_commit="other")
    provenance.write_provenance(made.run_dir, older)
    with pytest.raises(RefusedLaunch, match=r"harness_version was 0\.0\.29, is now 0\.0\.30"):
        begin(made, results=True, harness_version="0.0.30")
    with pytest.raises(RefusedLaunch, match=r"prompts_sha256 was"):
        begin(made, results=True, prompts_sha256="other")


def test_an_endpoint_is_told_from_another_by_host_and_path_and_not_by_port_user_or_query(made: CellJob) -> None:
    hashes = set()
    for address in ("https://a@x.org:1/v1/", "https://x.org:2/v1?version=3", "https://x.org/v2", "https://y.org/v1"):
        plain = replace(made, agent_config=None, environment={"OPENAI_API_BASE": address})
        hashes.add(provenance.describe(plain, HARNESS, {})["endpoint_sha256"])
    assert len(hashes) == 3


def test_a_second_verdict_leaves_on_record_what_made_the_first(made: CellJob) -> None:
    begin(made, "eval")
    before = provenance.read_provenance(made.run_dir)
    present = {**provenance.describe(made, HARNESS, {"agents": 9}), "host": {"name": "another"}}
    provenance.begin(made, "eval", "cli", present, None, has_results=True, has_verdicts=True, fresh=True)
    after = provenance.read_provenance(made.run_dir)
    assert {key for key in after if after[key] != before[key]} == {"launches"}
    with pytest.raises(RefusedLaunch, match="harness_version was"):
        provenance.begin(
            made,
            "eval",
            "cli",
            {**present, "harness_version": "0.0.30"},
            None,
            has_results=True,
            has_verdicts=True,
            fresh=True,
        )


def test_a_run_whose_first_results_came_from_elsewhere_is_called_adopted(made: CellJob) -> None:
    begin(made, results=True)
    assert provenance.read_provenance(made.run_dir)["origin"] == "adopted"


@pytest.mark.parametrize("stage", ["agent", "eval"])
@pytest.mark.parametrize("old", [{}, {"origin": "adopted"}])
def test_a_launch_of_an_adopted_run_claims_no_git_server_nor_its_absence(
    made: CellJob, stage: Stage, old: dict[str, Any]
) -> None:
    if old:
        made.run_dir.mkdir(parents=True)
        provenance.write_provenance(made.run_dir, old)
    for _ in range(2):
        begin(made, stage, results=True)
        assert provenance.read_provenance(made.run_dir)["git"] is None


def test_a_run_that_was_made_here_says_whether_its_agents_shared_a_git_server(made: CellJob) -> None:
    begin(made)
    begin(made, "eval", results=True)
    assert provenance.read_provenance(made.run_dir)["git"] is False


@pytest.mark.parametrize("content", [None, "config: [unclosed"])
def test_an_agent_config_that_the_harness_would_only_warn_about_is_an_error(made: CellJob, content: str | None) -> None:
    assert made.agent_config is not None
    made.agent_config.unlink()
    if content is not None:
        made.agent_config.write_text(content)
    with pytest.raises(LaunchError, match=str(made.agent_config)):
        begin(made)


def test_the_datasets_hash_follows_the_planned_features_and_nothing_else(made: CellJob) -> None:
    before = provenance.hash_tasks(made.dataset, made.subset.pairs)
    task = made.dataset / "alpha_task/task1"
    (task / "feature9").mkdir()
    (task / "feature9/feature.md").write_text("nobody plans this")
    (task / "image/repo").mkdir(parents=True)
    (task / "image/repo/module.py").write_text("")
    assert provenance.hash_tasks(made.dataset, made.subset.pairs) == before
    (task / "feature1/tests.patch").write_text("changed")
    after = provenance.hash_tasks(made.dataset, made.subset.pairs)
    assert after["dataset_sha256"] != before["dataset_sha256"]
    assert after["prompts_sha256"] == before["prompts_sha256"]
    (task / "feature1/feature.md").write_text("changed")
    assert provenance.hash_tasks(made.dataset, made.subset.pairs)["prompts_sha256"] != before["prompts_sha256"]


def test_the_id_by_which_the_model_answered_is_found_in_a_trajectory(tmp_path: Path) -> None:
    file = tmp_path / "solo_traj.json"
    response = {"id": "x", "model": "scripted-2026-01", "choices": []}
    file.write_text(json.dumps({"model": "asked", "messages": [{"role": "user"}, {"extra": {"response": response}}]}))
    assert provenance.answered_model(file) == "scripted-2026-01"
    file.write_text(json.dumps({"model": "asked", "messages": []}))
    assert provenance.answered_model(file) is None
    assert provenance.answered_model(tmp_path / "none.json") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]"], ids=["empty", "cut", "list"])
def test_a_record_that_cannot_be_read_is_no_empty_one_where_results_lie_beside_it(
    made: CellJob, content: bytes
) -> None:
    begin(made)
    file = made.run_dir / "provenance.json"
    file.write_bytes(content)
    with pytest.raises(RefusedLaunch, match=r"provenance\.json cannot be read.*restore it, or.*delete it"):
        begin(made, results=True)
    begin(made, results=False)
    assert provenance.read_provenance(made.run_dir)["origin"] == "executed"
