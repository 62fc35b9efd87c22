"""``analysis_plan``: what of an experiment's comparisons was declared, and whether before its first result.

What belongs here: reading declarations, and what they make of a contrast. What does not: how a declaration gets into
the store (``spec``, ``execution.provenance``), and contrasts (``contrasts``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from cooperbench_assets.analysis.endpoints import ENDPOINTS
from cooperbench_assets.analysis.frames import (
    Frames,
    cells_of,
    compared_cells,
    conform,
    pairs_of,
    result_table,
    settings_of,
)

PLANNED, EXPLORATORY = "planned", "exploratory"

ANALYSIS_PLAN = result_table(
    "analysis_plan",
    "Which contrasts were planned, by what was declared under `analysis` in defs.yaml, and when.",
    ("declared", pl.String, "before the first result, afterwards, or not at all"),
    ("endpoint", pl.String, "Primary endpoint: " + ", ".join(ENDPOINTS)),
    ("contrasts", pl.List(pl.String), "Planned contrasts; all others are exploratory"),
    ("margin", pl.Float64, "Equivalence margin; NULL where none was declared"),
    ("excluded", pl.List(pl.String), "Pairs that no comparison counts, with the reasons"),
    ("statement", pl.String, "The same in a sentence"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is planned of one experiment."""

    experiment: str
    when: str
    endpoint: str
    contrasts: tuple[tuple[str, str], ...]
    margin: float | None
    excluded: tuple[tuple[str, str], ...]


def plans_of(frames: Frames) -> dict[str, Plan]:
    """The plan of every experiment: as declared, or, without a declaration, every setting against the first."""
    cells = compared_cells(cells_of(frames))
    judged = pairs_of(frames).filter(pl.col("has_result").fill_null(False)).select("experiment", "setting", "seed")
    cells = cells.join(judged.unique().with_columns(results=True), on=["experiment", "setting", "seed"], how="left")
    settings = settings_of(cells)
    found = {}
    for (name,), own in cells.group_by("experiment", maintain_order=True):
        labels = settings.filter(experiment=name)["setting"].to_list()
        text = next((row for row in own["analysis"] if row), None)
        found[str(name)] = _plan(str(name), json.loads(text) if text else None, _when(text, own), labels)
    return found


def _when(text: str | None, cells: pl.DataFrame) -> str:
    """Before the first result only if every cell with a result recorded this declaration before it had any."""
    if text is None:
        return "not at all"
    records = [json.loads(row or "{}") for row in cells.filter("results")["record"]]
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = all(record.get("analysis_sha256") == digest for record in records)
    return "before the first result" if before else "afterwards"


def _plan(experiment: str, declared: dict[str, Any] | None, when: str, settings: list[str]) -> Plan:
    said = declared or {}
    control = said.get("control") or (settings[0] if settings else "")
    chosen = said.get("contrasts") or [[control, other] for other in settings if other != control]
    excluded = tuple((entry["pair"], entry["reason"]) for entry in said.get("excluded") or [])
    contrasts = tuple((one, other) for one, other in chosen)
    return Plan(
        experiment, when, said.get("endpoint") or "success", contrasts, said.get("equivalence_margin"), excluded
    )


def with_plan(contrasts: pl.DataFrame, plans: dict[str, Plan]) -> pl.DataFrame:
    """Contrasts with their ``family``, and their experiment's ``primary`` endpoint and ``margin``."""
    planned = {(plan.experiment, *sorted(two)) for plan in plans.values() for two in plan.contrasts}
    keys = contrasts.select("experiment", "setting_a", "setting_b").rows()
    families = [PLANNED if (name, *sorted((a, b))) in planned else EXPLORATORY for name, a, b in keys]
    return contrasts.with_columns(
        family=pl.Series(families, dtype=pl.String),
        primary=pl.Series([plans[name].endpoint for name, _, _ in keys], dtype=pl.String),
        margin=pl.Series([plans[name].margin for name, _, _ in keys], dtype=pl.Float64),
    )


def without_excluded(frames: Frames, plans: dict[str, Plan]) -> Frames:
    """The frames without the pairs that a declaration excludes."""
    rows = [(plan.experiment, pair) for plan in plans.values() for pair, _ in plan.excluded]
    if not rows:
        return frames
    out = pl.DataFrame(rows, schema=["experiment", "pair"], orient="row")
    return {**frames, "pairs": frames["pairs"].join(out, on=["experiment", "pair"], how="anti")}


def analysis_plan(frames: Frames) -> dict[str, pl.DataFrame]:
    """Which contrasts were planned, and whether that was declared before the first result."""
    rows = [
        {
            "experiment": plan.experiment,
            "declared": plan.when,
            "endpoint": plan.endpoint,
            "contrasts": [f"{a} − {b}" for a, b in plan.contrasts],
            "margin": plan.margin,
            "excluded": [f"{pair}: {reason}" for pair, reason in plan.excluded],
            "statement": _sentence(plan),
        }
        for plan in plans_of(frames).values()
    ]
    return {ANALYSIS_PLAN.name: conform(ANALYSIS_PLAN, ANALYSIS_PLAN.frame(rows))}


def _sentence(plan: Plan) -> str:
    contrasts = ", ".join(f"{a} − {b}" for a, b in plan.contrasts) or "none"
    if plan.when == "not at all":
        begin = "Nothing was declared before: the contrasts against the first setting stand as planned"
    elif plan.when == "afterwards":
        begin = "The analysis was declared afterwards, when there were results already"
    else:
        begin = "The analysis was declared before the first result"
    parts = [f"{begin} ({contrasts}; primary endpoint: {plan.endpoint}); every other contrast is exploratory."]
    if plan.margin is not None:
        parts.append(f"Differences within {100 * plan.margin:g} points were declared to count as equivalent.")
    if plan.excluded:
        parts.append("Excluded: " + "; ".join(f"{pair} ({reason})" for pair, reason in plan.excluded) + ".")
    return " ".join(parts)
