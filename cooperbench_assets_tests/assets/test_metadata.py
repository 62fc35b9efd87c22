"""What each asset of a cell says of itself: what that asset knows, and nothing that another one decides."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooperbench_assets.assets.describe import AGENT_FIGURES, CELL_METADATA, VERDICT_FIGURES, _attention
from cooperbench_assets.assets.reading import CELL_CHECKS
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.benchmark.looking import DIED
from cooperbench_assets_tests.experiments import bind, tree, view

if TYPE_CHECKING:
    from cooperbench_assets.experiment_context import ExperimentContext

LIMITED = trees.agent(status="Error", error="litellm.RateLimitError: 429 too many requests", patch_lines=0)
AGENTS: dict[str, Any] = {
    "well": trees.agent(),
    "dead": LIMITED,
    "limits": trees.agent(status="LimitsExceeded"),
    "window": trees.agent(status="Error", error="ContextWindowExceededError: prompt is too long"),
}
ENGINE = {"error": "docker.errors.APIError: 500 Server Error: Internal Server Error"}
EVALUATIONS: dict[str, dict[str, Any]] = {
    "passed": {},
    "failed": {"passed": (False, True)},
    "engine": ENGINE,
    "timeout": {"passed": (False, False), "outputs": ("[test timed out after 600 s]", None)},
    "older": {"evaluated_at": "2026-07-01T00:00:00"},
    "disagrees": {"both_passed": False},
}
Made: TypeAlias = "tuple[str | None, str | None, bool | None]"
PAIR = st.tuples(st.sampled_from([*AGENTS, None]), st.sampled_from([*EVALUATIONS, None]), st.booleans())


def write(experiment: ExperimentContext, setting: str, made: list[Made]) -> None:
    """A cell's tree: of each pair the agents' end, the evaluation, and whether a stream ended in an API error."""
    built = tree(experiment, setting)
    shutil.rmtree(built.run_dir, ignore_errors=True)
    built.config()
    for pair, (agent, evaluation, stream) in zip(experiment.subset().pairs, made, strict=True):
        if agent is not None:
            built.result(pair, agents=[AGENTS[agent]] * (1 if built.mode == "solo" else 2))
            built.patches(pair, *["diff --git a/x b/x\n"] * (1 if built.mode == "solo" else 2))
            if stream:
                built.write(
                    pair, "solo_stream.jsonl" if built.mode == "solo" else "agent1_stream.jsonl", json.dumps(DIED)
                )
        if evaluation is not None:
            built.evaluation(pair, **EVALUATIONS[evaluation])


def said(experiment: ExperimentContext, setting: str, asset: str) -> tuple[dict[str, Any], list[Any]]:
    """Metadata and findings of an asset of a cell."""
    seen = view(experiment, setting)
    metadata = {name: getattr(value, "records", value) for name, value in CELL_METADATA[asset](seen).items()}
    return metadata, [check.find(seen) for check in CELL_CHECKS[asset]]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    return bind(tmp_path_factory.mktemp("metadata"), 4)


@pytest.mark.slow
@settings(max_examples=40)
@given(setting=st.sampled_from(["solo", "coop-comm"]), made=st.lists(PAIR, min_size=4, max_size=4))
def test_run_logs_say_the_same_before_and_after_the_evaluation(
    experiment: ExperimentContext, setting: str, made: list[Made]
) -> None:
    write(experiment, setting, made)
    after = said(experiment, setting, "run_logs")
    for file in tree(experiment, setting).run_dir.rglob("eval.json"):
        file.unlink()
    assert said(experiment, setting, "run_logs") == after


@pytest.mark.slow
@settings(max_examples=40)
@given(made=st.lists(PAIR, min_size=4, max_size=4))
def test_eval_outputs_say_the_same_whatever_the_agents_cost(experiment: ExperimentContext, made: list[Made]) -> None:
    write(experiment, "solo", made)
    before, _ = said(experiment, "solo", "eval_outputs")
    for file in tree(experiment, "solo").run_dir.rglob("result.json"):
        content = json.loads(file.read_bytes())
        content["agent"] |= {"cost": 99.0, "steps": 1, "input_tokens": 1, "output_tokens": 1}
        file.write_text(json.dumps(content | {"total_cost": 99.0, "total_steps": 1, "duration_seconds": 9.0}))
    assert said(experiment, "solo", "eval_outputs")[0] == before


def figures(experiment: ExperimentContext, asset: str) -> set[str]:
    """The numbers that an asset of a cell plots over time."""
    return {name for name, value in said(experiment, "solo", asset)[0].items() if isinstance(value, int | float)}


def test_each_asset_plots_its_own_figures_and_pair_results_all_of_them(experiment: ExperimentContext) -> None:
    write(
        experiment,
        "solo",
        [("well", "passed", False), ("dead", "failed", True), ("limits", "engine", True), (None, None, None)],
    )
    extra = {"need_attention", "excluded"}
    assert figures(experiment, "run_logs") == AGENT_FIGURES | extra
    assert figures(experiment, "eval_outputs") == VERDICT_FIGURES | {"need_attention"}
    assert figures(experiment, "pair_results") == AGENT_FIGURES | VERDICT_FIGURES | extra | {"infra_error", "accepted"}


def test_run_logs_say_why_an_agent_needs_attention_though_its_evaluation_broke_too(
    experiment: ExperimentContext,
) -> None:
    write(
        experiment,
        "solo",
        [("well", "engine", True), ("dead", "engine", False), ("well", "engine", False), (None, None, None)],
    )
    rows = [record.data for record in said(experiment, "solo", "run_logs")[0]["pairs_that_need_attention"]]
    assert [(row["has_result"], row["family"], row["suspect"]) for row in rows] == [
        (False, None, False),
        (True, "rate_limit", False),
        (True, None, True),
    ]
    assert [str(row["evidence"]) for row in rows][1:] == [LIMITED["error"], DIED["result"]]
    assert next(iter(rows[0])) == "evidence", "what a person looks for is not off the screen"


def test_evidence_is_one_short_line_so_that_a_row_of_the_table_is_too() -> None:
    rows = pl.DataFrame({"pair": ["a"], "outcome": ["missing"], "evidence": ["line\n  " * 40]})
    (row,) = _attention(rows)["pairs_that_need_attention"].records
    assert row.data["evidence"] == ("line " * 40)[:80]
