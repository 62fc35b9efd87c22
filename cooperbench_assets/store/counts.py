"""A cell's table of pairs in a few numbers.

What belongs here: counts and sums of what is known. What does not: rates and their intervals (``analysis``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.records import TOKENS

if TYPE_CHECKING:
    import polars as pl


def cell_counts(pairs: pl.DataFrame) -> dict[str, int | float | None]:
    """How a cell stands, in numbers: what its materialisation's metadata holds.

    Args:
        pairs: The `pairs` table of one cell, or of several.

    Returns:
        ``planned, results, evals, pass, fail, infra_error, infra_agent, infra_eval, unevaluated, missing,
        accepted, suspect, stale`` as counts; ``cost_usd`` (USD), ``input_tokens``, ``output_tokens``,
        ``cache_read_tokens``, ``cache_write_tokens`` as sums over what is known (None where nothing is);
        ``hours``: wall time of the agents.
    """
    outcomes = dict(pairs["outcome"].value_counts().iter_rows())
    stages = dict(pairs["stage"].value_counts().iter_rows())
    counts: dict[str, int | float | None] = {
        "planned": pairs.height,
        "results": int(pairs["has_result"].sum()),
        "evals": int(pairs["has_eval"].sum()),
    }
    counts |= {name: outcomes.get(name, 0) for name in ("pass", "fail", "infra_error")}
    counts |= {"infra_agent": stages.get("agent", 0), "infra_eval": stages.get("eval", 0)}
    counts |= {name: outcomes.get(name, 0) for name in ("unevaluated", "missing")}
    counts |= {name: int(pairs[name].sum()) for name in ("accepted", "suspect", "stale")}
    for name in ("cost_usd", *TOKENS):
        counts[name] = _total(pairs[name])
    seconds = _total(pairs["duration_seconds"])
    counts["hours"] = None if seconds is None else seconds / 3600
    return counts


def _total(values: pl.Series) -> int | float | None:
    """The sum of what is known; None where nothing is."""
    known: list[int | float] = values.drop_nulls().to_list()
    return sum(known) if known else None
