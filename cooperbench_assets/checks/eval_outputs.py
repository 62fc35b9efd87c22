"""What must hold of one cell's verdicts."""

from __future__ import annotations

import polars as pl

from cooperbench_assets.checks.finding import CellView, Check, Finding, found, pairs_named
from cooperbench_assets.wording import count, plural


def expected_verdicts(view: CellView) -> Finding:
    """Every planned pair has a verdict that can be used: pass or fail."""
    verdict = pl.col("outcome").is_in(["pass", "fail"])
    without = view.pairs.filter(~verdict)
    expected = view.pairs.height
    return found(
        pairs_named(without, "outcome"),
        good=f"{expected} of {expected} verdicts",
        bad=lambda n: f"{expected - without.height} of {expected} verdicts; {count(n, 'pair')} without",
        remedy=view.again,
        numbers={"verdicts": expected - without.height, "expected": expected},
    )


def no_stale_verdict(view: CellView) -> Finding:
    """No verdict is older than its result, or of another patch."""
    return found(
        pairs_named(view.pairs.filter("stale"), "evaluated_at", "ended_at"),
        good="no verdict older than its result or of another patch",
        bad=lambda n: f"{count(n, 'verdict')} not used: older than the result, or of another patch",
        remedy=view.again,
    )


def merge_recorded(view: CellView) -> Finding:
    """Solo has no merge; every other verdict says how the patches were merged."""
    evaluated = view.pairs.filter(pl.col("has_eval") & (pl.col("merge_status").ne_missing("error")))
    if view.reading.mode == "solo":
        wrong = evaluated.filter(pl.col("merge_status").is_not_null())
        good, bad = "no merge in solo", "solo with a merge"
    else:
        wrong = evaluated.filter(pl.col("merge_status").is_null() | pl.col("merge_strategy").is_null())
        good, bad = "every merge has a status and a strategy", "without a merge status or strategy"
    return found(
        pairs_named(wrong, "merge_status", "merge_strategy"),
        good=good,
        bad=lambda n: f"{count(n, 'verdict')} {bad}",
        remedy="look at eval.json of the pairs named: are they of this setting's mode?",
    )


def verdict_agrees(view: CellView) -> Finding:
    """both_passed is what the two features say."""
    both = pl.col("feature_a_passed") & pl.col("feature_b_passed")
    wrong = view.pairs.filter(pl.col("has_eval") & (pl.col("both_passed") != both))
    return found(
        pairs_named(wrong, "both_passed", "feature_a_passed", "feature_b_passed"),
        good="every verdict agrees with its two features",
        bad=lambda n: f"{count(n, 'verdict')} {plural(n, 'disagrees', 'disagree')} with the two features",
        remedy="look at eval.json of the pairs named; evaluate them again",
    )


def no_eval_infra_error(view: CellView) -> Finding:
    """No evaluation was ended by infrastructure errors, but in accepted pairs; timeouts are counted apart."""
    infra_failed = view.pairs.filter((pl.col("outcome") == "infra_error") & (pl.col("stage") == "eval"))
    open_ones = infra_failed.filter(~pl.col("accepted"))
    timeouts = infra_failed.filter(pl.col("family") == "test_timeout").height
    return found(
        pairs_named(open_ones, "family"),
        good=f"no infrastructure failure at the eval stage ({infra_failed.height} accepted)",
        bad=lambda n: f"{count(n, 'evaluation')} lost to infrastructure errors, {timeouts} to a test timeout",
        remedy=view.again,
        numbers={"infra_error_eval": infra_failed.height, "test_timeouts": timeouts},
    )


EVAL_OUTPUTS_CHECKS: tuple[Check[CellView], ...] = (
    Check("expected_verdicts", "As many verdicts as pairs", expected_verdicts),
    Check("no_stale_verdict", "No verdict older than its result, or of another patch", no_stale_verdict),
    Check("merge_recorded", "No merge in solo; status and strategy otherwise", merge_recorded),
    Check("verdict_agrees", "both_passed agrees with the two features", verdict_agrees),
    Check("no_eval_infra_error", "No evaluation ended by infrastructure, but accepted ones", no_eval_infra_error),
)
