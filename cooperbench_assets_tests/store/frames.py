"""Synthetic tables of a cell: valid by the declared schema, random by a seed, small. For tests of any room."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.store.schema import CELL_TABLES, CHECK_RESULTS, PAIRS, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cooperbench_assets.store.cells import Cell

OUTCOMES = {
    "pass": (None, None),
    "fail": ("tests", None),
    "infra_error": (None, "rate_limit"),
    "unevaluated": (None, None),
    "missing": (None, None),
}
START = datetime(2026, 1, 1)  # noqa: DTZ001 - times of the store are UTC without a zone

TEXTS = ("", "plain", "naïve – ünïcode 🙂", "two\nlines", "a\x00b", "'quoted' \"twice\"", "%41")


def random_value(random: random.Random, column: Column) -> object:
    """Any value of a column's type, NULL now and then."""
    if random.random() < 0.2:
        return None
    dtype = column.dtype
    if dtype == pl.String:
        return random.choice(TEXTS)
    if dtype == pl.Boolean:
        return random.random() < 0.5
    if dtype == pl.Float64:
        return random.choice([0.0, -0.0, 0.1, 1e-9, 1234.5, random.random()])
    if isinstance(dtype, pl.List):
        return [random.choice(TEXTS) for _ in range(random.randrange(3))]
    if dtype == pl.Datetime:
        return START + timedelta(microseconds=random.randrange(10**12))
    return random.randrange(1000)


def random_frame(random: random.Random, table: Table, rows: int, **fixed: object) -> pl.DataFrame:
    """A frame of a table with random values, but for the columns of `fixed`: a value, or one for each row."""
    columns = {
        column.name: _column(fixed[column.name], rows)
        if column.name in fixed
        else [random_value(random, column) for _ in range(rows)]
        for column in table.columns
    }
    return pl.DataFrame(columns, schema=table.schema)


def _column(value: object, rows: int) -> Sequence[object]:
    return value if isinstance(value, list) else [value] * rows


def pair_columns(pairs: int) -> dict[str, object]:
    """The columns that name `pairs` distinct pairs, 10 to a task."""
    tasks = [number // 10 + 1 for number in range(pairs)]
    features = [number % 10 + 1 for number in range(pairs)]
    return {
        "pair": [f"demo_task/{task}/f{a}_f{a + 1}" for task, a in zip(tasks, features, strict=True)],
        "repo": "demo_task",
        "task_id": tasks,
        "feature_a": features,
        "feature_b": [a + 1 for a in features],
    }


def cell_frames(cell: Cell, pairs: int = 10, *, draw: int = 0, **provenance: object) -> dict[str, pl.DataFrame]:
    """All tables of a cell with `pairs` pairs; the same `draw` gives the same content.

    Outcomes agree with reason, stage, has_result and has_eval; other columns hold anything.
    """
    return dict(_drawn_frames(cell, pairs, draw, **provenance))


@cache
def _drawn_frames(cell: Cell, pairs: int, draw: int, **provenance: object) -> dict[str, pl.DataFrame]:
    """Drawn once for all tests: frames never change, and drawing took as long as publishing."""
    random_ = random.Random(f"{cell} {draw}")
    key: dict[str, object] = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed}
    frames = {table.name: random_frame(random_, table, pairs, **key, **pair_columns(pairs)) for table in CELL_TABLES}
    frames["pairs"] = random_frame(random_, PAIRS, pairs, **key, **pair_columns(pairs), **_outcomes(random_, pairs))
    frames["provenance"] = (
        frames["provenance"]
        .head(1)
        .with_columns(
            pl.lit(value).cast(frames["provenance"].schema[name]).alias(name)
            for name, value in {"planned": True, "expected_pairs": pairs, "mode": "coop", **provenance}.items()
        )
    )
    return frames


def _outcomes(random_: random.Random, pairs: int) -> dict[str, object]:
    outcomes = [random_.choice(list(OUTCOMES)) for _ in range(pairs)]
    strict = ["fail" if outcome == "pass" and random_.random() < 0.2 else outcome for outcome in outcomes]
    families = [OUTCOMES[outcome][1] for outcome in outcomes]
    verdicts = [{"pass": True, "fail": False}.get(outcome) for outcome in outcomes]
    return {
        "outcome": outcomes,
        "reason": [OUTCOMES[outcome][0] for outcome in outcomes],
        "outcome_strict": strict,
        "reason_strict": ["tests" if outcome == "fail" else None for outcome in strict],
        "stage": [family and "agent" for family in families],
        "family": families,
        "both_passed": verdicts,
        "has_result": [outcome != "missing" for outcome in outcomes],
        "has_eval": [verdict is not None for verdict in verdicts],
        "stale": False,
    }


def check_frame(
    cell: Cell | None, *, experiment: str, asset: str, passed: Mapping[str, bool]
) -> dict[str, pl.DataFrame]:
    """The check results of an asset, of a cell or of the experiment, by name of the check."""
    rows = [
        {
            "experiment": experiment,
            "setting": cell and cell.setting,
            "seed": None if cell is None else cell.seed,
            "asset": asset,
            "check_name": name,
            "passed": good,
            "blocking": False,
            "offenders": 0 if good else 2,
            "description": "what was found",
            "sample": [] if good else ["one", "two"],
            "remedy": None,
            "checked_at": START,
        }
        for name, good in passed.items()
    ]
    return {CHECK_RESULTS.name: CHECK_RESULTS.frame(rows)}
