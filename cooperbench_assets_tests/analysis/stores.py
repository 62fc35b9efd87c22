"""Hand-made and random frames of the store for the tests of ``analysis``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from cooperbench_assets.store import schema

START = datetime(2026, 1, 1)  # noqa: DTZ001 - times of the store have no zone


def pair_row(
    experiment: str = "e",
    setting: str = "solo",
    seed: int = 0,
    task: int = 1,
    features: tuple[int, int] = (1, 2),
    outcome: str = "pass",
    **more: Any,
) -> dict[str, Any]:
    """One row of PAIRS with the columns that follow from its outcome; `more` stands above them."""
    judged = outcome in ("pass", "fail")
    solo = "solo" in setting
    a, b = features
    row: dict[str, Any] = {
        "experiment": experiment,
        "setting": setting,
        "seed": seed,
        "pair": f"repo/{task}/f{a}_f{b}",
        "repo": "repo",
        "task_id": task,
        "feature_a": a,
        "feature_b": b,
        "outcome": outcome,
        "outcome_strict": outcome,
        "reason": "tests" if outcome == "fail" else None,
        "reason_strict": "tests" if outcome == "fail" else None,
        "stage": "agent" if outcome == "infra_error" else None,
        "family": "auth" if outcome == "infra_error" else None,
        "both_passed": outcome == "pass" if judged else None,
        "both_passed_strict": outcome == "pass" if judged else None,
        "has_result": outcome != "missing",
        "has_eval": judged,
        "merge_status": None if solo or not judged else "clean",
        "merge_strategy": None if solo or not judged else "naive",
        "agents": None if outcome == "missing" else (1 if solo else 2),
        "agents_submitted": None if outcome == "missing" else (1 if solo else 2),
        "agents_failed": None if outcome == "missing" else int(outcome == "infra_error"),
        "patches": None if outcome == "missing" else (1 if solo else 2),
        "started_at": START,
        "ended_at": START + timedelta(minutes=10),
        "duration_seconds": 600.0,
    }
    return row | more


def pairs_frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return schema.PAIRS.frame(rows)


def conflict(**more: Any) -> dict[str, Any]:
    """A coop pair whose merge conflicts."""
    kept = {"setting": "coop-comm", "outcome": "fail", "merge_status": "conflicts", "merge_strategy": "naive"}
    return pair_row(**(kept | {"reason": "conflict", "reason_strict": "conflict"} | more))


def provenance(*cells: dict[str, Any]) -> pl.DataFrame:
    """PROVENANCE of cells that agree in everything but what is given."""
    plain = {
        "experiment": "e", "planned": True, "truncated": False, "model": "m", "agent": "a", "agent_config_sha256": "c",
        "harness_version": "0.0.29", "harness_version_source": "recorded", "merge_policy": "agent1_alone",
        "subset_sha256": "s",
    }  # fmt: skip
    rows = []
    for cell in cells:
        solo = "solo" in cell["setting"]
        made = {"mode": "solo" if solo else "coop", "messaging": None if solo else "nocomm" not in cell["setting"]}
        rows.append(plain | made | ({"merge_policy": "none"} if solo else {}) | cell)
    return schema.PROVENANCE.frame(rows)


def gold_cells(*settings: tuple[str, str], seeds: int = 2) -> pl.DataFrame:
    """PROVENANCE of gold baselines, by experiment and setting."""
    rows: list[dict[str, Any]] = [
        {"experiment": experiment, "setting": setting, "seed": seed, "gold": True, "planned": False}
        for experiment, setting in settings
        for seed in range(seeds)
    ]
    return provenance(*({**row, "mode": "coop" if "coop" in row["setting"] else "solo"} for row in rows))


def outcomes(setting: str, table: dict[tuple[int, int], str], experiment: str = "e") -> list[dict[str, Any]]:
    """Rows of a setting from {(task, pair of the task): "PF-…"}: one letter a seed.

    P pass, F fail, I infra_error, U unevaluated, M (or -) missing.
    """
    names = {"P": "pass", "F": "fail", "I": "infra_error", "U": "unevaluated", "M": "missing", "-": "missing"}
    return [
        pair_row(experiment, setting, seed, task, (pair, pair + 1), names[letter])
        for (task, pair), letters in table.items()
        for seed, letter in enumerate(letters)
    ]


def random_frames(
    rows: int, experiments: int = 1, settings: tuple[str, ...] = ("solo", "coop-comm", "coop-nocomm"), *,
    pairs: int = 100, tasks: int = 26, messages: bool = True, seed: int = 0,
) -> dict[str, pl.DataFrame]:  # fmt: skip
    """A large random store of about `rows` pair rows: whole cells of `pairs` pairs."""
    rng = np.random.default_rng(seed)
    seeds = max(1, rows // (experiments * len(settings) * pairs))
    grid = (
        pl.DataFrame({"experiment": [f"e{i}" for i in range(experiments)]})
        .join(pl.DataFrame({"setting": settings}), how="cross")
        .join(pl.DataFrame({"seed": pl.int_range(seeds, dtype=pl.Int32, eager=True)}), how="cross")
    )
    of_pair = pl.DataFrame({"number": np.arange(pairs), "task_id": (np.arange(pairs) % tasks).astype(np.int32)})
    of_pair = of_pair.with_columns(
        pair=pl.format("repo/{}/f{}_f{}", "task_id", "number", pl.col("number") + 1), repo=pl.lit("repo")
    )
    frame = grid.join(of_pair, how="cross")
    count = frame.height
    ease = rng.beta(0.5, 0.7, pairs)[frame["number"].to_numpy()]
    solo = frame["setting"].str.contains("solo").to_numpy()
    passed = rng.random(count) < np.where(solo, ease, ease * 0.4)
    kind = rng.choice([0, 1, 2, 3], count, p=[0.94, 0.03, 0.02, 0.01])
    judged = kind == 0
    names = np.array(["", "infra_error", "unevaluated", "missing"])
    outcome = np.where(judged, np.where(passed, "pass", "fail"), names[kind])
    clash = judged & ~solo & ~passed & (rng.random(count) < 0.6)
    rescued = judged & ~solo & passed & (rng.random(count) < 0.05)
    reason = np.where(clash, "conflict", np.where(outcome == "fail", "tests", ""))
    cost = np.where(rng.random(count) < 0.02, np.nan, rng.gamma(2, 0.3, count))
    began = np.datetime64("2026-01-01", "us") + rng.integers(0, 10**6, count) * np.timedelta64(1, "s")
    status = np.where(solo | ~judged, "", np.where(clash | rescued, "conflicts", "clean"))
    frame = frame.with_columns(
        pl.Series("outcome", outcome), pl.Series("reason", reason).replace("", None),
        pl.Series("merge_status", status).replace("", None), pl.Series("cost_usd", cost).fill_nan(None),
        outcome_strict=pl.Series(np.where(rescued, "fail", outcome)), has_eval=pl.Series(judged),
        reason_strict=pl.Series(np.where(rescued, "conflict", reason)).replace("", None),
        both_passed=pl.when(pl.Series(judged)).then(pl.Series(passed)), steps=pl.Series(rng.integers(5, 60, count)),
        both_passed_strict=pl.when(pl.Series(judged)).then(pl.Series(passed & ~rescued)),
        has_result=pl.Series(kind != 3), stage=pl.Series(np.where(kind == 1, "agent", "")).replace("", None),
        family=pl.Series(np.where(kind == 1, "auth", "")).replace("", None), agents=pl.Series(np.where(solo, 1, 2)),
        agents_failed=pl.Series((kind == 1).astype(int)), patches=pl.Series(np.where(solo, 1, 2)),
        merge_strategy=pl.Series(np.where(rescued, "solo-agent1", "naive")), started_at=pl.Series(began),
        ended_at=pl.Series(began + np.timedelta64(600, "s")), duration_seconds=pl.lit(600.0),
        input_tokens=pl.lit(1000), output_tokens=pl.lit(100), agent_tries=pl.Series(rng.integers(1, 4, count)),
        hollow=pl.lit(False), feature_a=pl.lit(1), feature_b=pl.lit(2), path=pl.format("run/{}", "pair"),
    )  # fmt: skip
    blank = [pl.lit(None).alias(name) for name in schema.PAIRS.schema if name not in frame.columns]
    frame = frame.with_columns(blank).select(pl.col(n).cast(t) for n, t in schema.PAIRS.schema.items())
    cells = [dict(zip(grid.columns, values, strict=True)) for values in grid.iter_rows()]
    made = {"pairs": frame, "provenance": provenance(*cells)}
    return made | ({"messages": _random_messages(frame, rng)} if messages else {}) | {"agents": _agents(frame)}


_TEXTS = (
    "agent1: implementing the retry option in src/pkg/core.py. Will touch Option.__init__ only.",
    "ack, thanks. Let me know if you are touching lines 10-20 of core.py?",
    "done: added the parameter at the end of the signature in termui.py:120, all tests pass.",
    "heads up, we overlap in that file. Can you keep your change below mine?",
)


def _random_messages(pairs: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    talk = pairs.filter(pl.col("setting").str.contains("-comm") & pl.col("has_result"))
    talk = talk.with_columns(position=pl.int_ranges(0, pl.Series(rng.integers(0, 9, talk.height))))
    talk = talk.explode("position", empty_as_null=False)
    texts = np.array(_TEXTS)[rng.integers(0, len(_TEXTS), talk.height)]
    sender = rng.integers(1, 3, talk.height)
    return talk.select(
        *schema.MESSAGES.schema.names()[:8],
        pl.col("position").cast(pl.Int32),
        sender=pl.format("agent{}", pl.Series(sender)),
        recipient=pl.format("agent{}", pl.Series(3 - sender)),
        feature_id=pl.lit(1, pl.Int32),
        message=pl.Series(texts),
        sent_at=pl.col("started_at") + pl.duration(minutes=1),
        step=pl.col("position") + 1,
    ).cast(schema.MESSAGES.schema)


def _agents(pairs: pl.DataFrame) -> pl.DataFrame:
    rows = pairs.filter("has_result").with_columns(agent=pl.int_ranges(1, pl.col("agents") + 1)).explode("agent")
    rows = rows.with_columns(agent=pl.format("agent{}", "agent"), status=pl.lit("Submitted"))
    blank = [pl.lit(None).alias(name) for name in schema.AGENTS.schema if name not in rows.columns]
    return rows.with_columns(blank).select(pl.col(n).cast(t) for n, t in schema.AGENTS.schema.items())
