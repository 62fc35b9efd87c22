"""Made studies whose first sentences must be right: what changes a conclusion, and what cannot be concluded."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import polars as pl

from cooperbench_assets.analysis.registry import run_all
from cooperbench_assets.report.headline import changing, statements
from cooperbench_assets_tests.analysis.stores import conflict, outcomes, pair_row, pairs_frame, provenance

COOP = ("coop-comm", "coop-nocomm")


def _first(results: dict[str, pl.DataFrame]) -> dict[str, Any]:
    found = results["paired_comparisons"].filter(verdict="strict", population="clean", family="planned")
    return {row["endpoint"]: row for row in found.iter_rows(named=True)}


def _dead(setting: str, task: int) -> dict[str, Any]:
    """A pair whose agents died: two empty patches that upstream merged without a conflict, and graded."""
    more: dict[str, Any] = {
        "has_eval": True,
        "both_passed": False,
        "hollow": False,
        "patches": 2,
        "merge_status": "clean",
    }
    return pair_row(setting=setting, task=task, outcome="infra_error", **more)


def test_dead_pairs_left_in_reverse_the_conclusion_on_merging() -> None:
    """coop-nocomm merges more often than coop-comm on every task, if pairs whose agents died are left out."""
    rows = []
    for task in range(10):
        for at in range(6):
            key: dict[str, Any] = {"task": task, "features": (at, at + 20)}
            merges = pair_row(setting="coop-nocomm", outcome="fail", **key)
            rows += [merges if at < 3 else conflict(**key | {"setting": "coop-nocomm"})]
            rows += [conflict(**key)] if at < 2 else [_dead("coop-comm", task) | _key(task, at)]
    results = run_all({"pairs": pairs_frame(*rows)})
    found = results["conclusions"].filter(endpoint="merging", verdict="strict")
    assert dict(found.select("dead_pairs", "conclusion").rows()) == {
        "out": "coop-nocomm higher", "in": "coop-comm higher",
    }  # fmt: skip
    sentence = changing(results)
    assert sentence is not None
    assert sentence.startswith(
        "What changes the conclusion: coop-comm − coop-nocomm on merging is “coop-nocomm higher”"
    )
    assert "coop-comm higher with dead pairs left in" in sentence


def _key(task: int, at: int) -> dict[str, Any]:
    return {"pair": f"repo/{task}/f{at}_f{at + 20}", "feature_a": at, "feature_b": at + 20}


def test_only_the_verdict_changes_the_conclusion_on_success() -> None:
    """Every pass of coop-comm is a rescue: by upstream's verdict it equals solo, strictly it never passes."""
    rows = []
    for task in range(10):
        rows += [pair_row(task=task), pair_row(task=task, features=(3, 4), outcome="fail")]
        rescue = {"outcome": "pass", "both_passed": True, "both_passed_strict": False, "merge_strategy": "solo-agent1"}
        rows += [conflict(task=task, **rescue | {"reason": None, "outcome_strict": "fail"})]
        rows += [conflict(task=task, features=(3, 4))]
    results = run_all({"pairs": pairs_frame(*rows)})
    found = results["conclusions"].filter(endpoint="success")
    assert set(found.select("verdict", "conclusion").rows()) == {
        ("strict", "solo higher"), ("upstream", "no difference shown"),
    }  # fmt: skip
    assert changing(results) == (
        "What changes the conclusion: solo − coop-comm on success is “solo higher”, but no difference shown by "
        "upstream's verdict, no difference shown by upstream's verdict and with dead pairs left in."
    )


def test_six_tasks_and_three_contrasts_cannot_decide() -> None:
    keys = [(task, 1) for task in range(6)]
    rows = outcomes("solo", dict.fromkeys(keys, "P"))
    rows += [row for name in (*COOP, "team") for row in outcomes(name, dict.fromkeys(keys, "F"))]
    results = run_all({"pairs": pairs_frame(*rows)})
    row = _first(results)["success"]
    assert (row["p_smallest"], row["claimed"], row["contrasts"]) == (3 * 2 / 2**6, False, 3)
    plan, first, *_ = statements(results)
    assert plan.startswith("Nothing was declared before: the contrasts against the first setting stand as planned")
    assert "this design cannot decide: with so few tasks p is never below 0.094" in first
    assert changing(results) is None


def test_no_difference_is_called_robust_and_none_changes_a_conclusion() -> None:
    keys = {(task, 1): "PF" for task in range(8)}
    results = run_all({"pairs": pairs_frame(*outcomes("solo", keys), *outcomes("coop-comm", keys))})
    assert "robust" not in " ".join(statements(results))
    assert changing(results) is None


DECLARED = {
    "control": "coop-nocomm", "endpoint": "success", "contrasts": [["coop-comm", "coop-nocomm"]],
    "equivalence_margin": 0.1, "excluded": [{"pair": "repo/9/f1_f2", "reason": "its own tests fail"}],
}  # fmt: skip


def _declared(recorded: dict[str, Any] | None, coop: str = "P") -> dict[str, pl.DataFrame]:
    keys = [(task, 1) for task in range(12)]
    rows = [row for name in ("solo", *COOP) for row in outcomes(name, dict.fromkeys(keys, coop))]
    digest = hashlib.sha256(json.dumps(recorded).encode()).hexdigest()
    said = {"analysis": json.dumps(DECLARED), "record": json.dumps({"analysis_sha256": digest} if recorded else {})}
    cells = provenance(*({"setting": name, "seed": 0, **said} for name in ("solo", *COOP)))
    return run_all({"pairs": pairs_frame(*rows), "provenance": cells})


def test_what_was_declared_before_the_first_result_is_planned_and_all_else_explored() -> None:
    results = _declared(DECLARED)
    (plan,) = results["analysis_plan"].iter_rows(named=True)
    assert plan["declared"] == "before the first result"
    assert plan["excluded"] == ["repo/9/f1_f2: its own tests fail"]
    found = results["paired_comparisons"].filter(verdict="strict", population="clean", endpoint="success")
    assert found.select("setting_a", "setting_b", "family", "contrasts", "pairs").rows() == [
        ("solo", "coop-comm", "exploratory", 2, 11),
        ("solo", "coop-nocomm", "exploratory", 2, 11),
        ("coop-comm", "coop-nocomm", "planned", 1, 11),
    ]
    assert next(iter(statements(results))).startswith("The analysis was declared before the first result (coop-comm − ")


def test_a_declaration_that_came_later_or_was_changed_is_called_so() -> None:
    for recorded in (None, DECLARED | {"equivalence_margin": 0.2}):
        first = next(iter(statements(_declared(recorded))))
        assert first.startswith("The analysis was declared afterwards, when there were results already")


def test_equivalence_is_claimed_only_within_a_declared_margin() -> None:
    keys = [(task, 1) for task in range(12)]
    rng = "PF" * 10
    alike = dict.fromkeys(keys, rng)
    rows = [
        *outcomes("coop-comm", alike | {keys[0]: "PF" * 9 + "PP"}),
        *outcomes("coop-nocomm", alike | {keys[1]: "FF" + "PF" * 9}),
    ]
    cells = [{"setting": name, "seed": seed} for name in COOP for seed in range(20)]
    said = json.dumps(DECLARED | {"excluded": []})
    declared = {"pairs": pairs_frame(*rows), "provenance": provenance(*(cell | {"analysis": said} for cell in cells))}
    row = _first(run_all(declared))["success"]
    assert row["equivalent"]
    assert row["statement"].count("equivalent within the declared margin") == 1
    silent = {"pairs": pairs_frame(*rows), "provenance": provenance(*cells)}
    row = _first(run_all(silent))["success"]
    assert row["equivalent"] is None
    assert "equivalent" not in row["statement"]
