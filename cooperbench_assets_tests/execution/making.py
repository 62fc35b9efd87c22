"""Jobs, states and tries for the tests of execution's core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cooperbench_assets.benchmark.pairs import Pair, Subset
from cooperbench_assets.execution.attempts.pair_state import PairState
from cooperbench_assets.execution.attempts.records import Attempt
from cooperbench_assets.execution.job import CellJob, Limits


def pair(n: int, repo: str = "alpha_task") -> Pair:
    """The n-th pair of a repository."""
    return Pair(repo, 1, (n, n + 1))


def job(root: Path, pairs: tuple[Pair, ...], **changes: Any) -> CellJob:
    """A solo cell whose dataset has every feature that the pairs name."""
    dataset = root / "dataset"
    for one in pairs:
        for feature in one.features:
            folder = dataset / one.task.folder / f"feature{feature}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "feature.md").write_text(f"feature {feature}\n")
    values: dict[str, Any] = {
        "experiment": "toy",
        "setting": "solo",
        "seed": 0,
        "mode": "solo",
        "run_name": "toy-solo",
        "logs": root / "logs",
        "dataset": dataset,
        "subset": Subset("lite", pairs, dataset / "subsets" / "lite.json"),
        "model_name": "scripted/one",
        "agent": "scripted",
        "execution": "process",
        "limits": Limits(),
        "state": root / "state",
    }
    return CellJob(**{**values, **changes})


def attempt(n: int, stage: str = "agent", outcome: str = "infra_error", **changes: Any) -> Attempt:
    """A try that ended a second after it began."""
    values: dict[str, Any] = {
        "n": n,
        "retry_generation": 1,
        "stage": stage,
        "outcome": outcome,
        "family": None if outcome == "completed" else "provider",
        "retryable": None if outcome == "completed" else True,
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "ended_at": "2026-01-01T00:00:01.000+00:00",
    }
    return Attempt(**{**values, **changes})


def state(of: Pair, outcome: str = "missing", **changes: Any) -> PairState:
    """A pair as it stands."""
    return PairState(pair=of, outcome=outcome, **changes)
