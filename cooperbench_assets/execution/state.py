"""What is known of each planned pair before and during a launch: its outcome, its files and its tries.

What belongs here: the one picture that plan, budget, summaries and promotion share, and reading it. What does not:
deciding what to do with it (``plan``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts import Attempt


@dataclass(frozen=True, slots=True)
class PairState:
    """One planned pair as it stands."""

    pair: Pair
    outcome: str
    """pass, fail, infra_error, unevaluated or missing."""

    reason: str | None = None
    """Why the pair failed, where it did."""

    stage: str | None = None
    """agent or eval, where infrastructure struck."""

    family: str | None = None
    evidence: str | None = None
    retryable: bool | None = None
    has_result: bool = False
    """A readable result.json lies in the pair's folder."""

    has_eval: bool = False
    """A readable eval.json lies there that is not older than the result."""

    torn: str | None = None
    """What is wrong with a file that cannot be read."""

    both_passed: bool | None = None
    """Upstream's verdict; None without a readable eval.json."""

    eval_error: str | None = None
    """The error that eval.json holds."""

    stale: bool = False
    """The verdict that lies there is of another patch."""

    patch_sha256: str | None = None
    cost_usd: float | None = None
    """Money that the present result cost; None where not known."""

    steps: int | None = None
    seconds: float | None = None
    """Wall time of the present result."""

    agents_failed: bool = False
    """An agent ended with status Error."""

    attempts: tuple[Attempt, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether the pair has its verdict."""
        return self.outcome in ("pass", "fail")
