"""What a launch does with one pair, as codes that programs decide by; the only place that words them for people.

What belongs here: steps and plans as data, and their sentences. What does not: deciding (``plan``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.worker.protocol import Stage

Action = Literal["run", "skip", "blocked"]
"""run; skip: nothing is left to run; blocked: something is left to run that this launch cannot run."""

Code = Literal[
    "run",
    "not_asked",
    "left_out",
    "done",
    "accepted",
    "agents_done",
    "not_tested",
    "exhausted",
    "needs_person",
    "task_missing",
    "not_evaluated",
]
"""What becomes of a pair; its sentence is in `_SENTENCES`."""

Cause = Literal[
    "no_result",
    "agents_failed",
    "result_unreadable",
    "agents_interrupted",
    "last_agents_failed",
    "no_verdict",
    "eval_failed",
    "verdict_outdated",
    "verdict_unreadable",
    "eval_interrupted",
    "last_eval_failed",
    "for_the_record",
    "further_verdict",
    "further_verdict_failed",
    "other_pair_refused",
]
"""Why something is left to run; its sentence is in `_CAUSES`."""

_SKIPPED: Final = frozenset({"not_asked", "left_out", "done", "accepted", "agents_done", "not_tested"})

_SENTENCES: Final[dict[Code, str]] = {
    "run": "{cause}",
    "not_asked": "not asked for in this launch",
    "left_out": "left out: this launch runs at most {detail} pairs",
    "done": "done: {detail}",
    "accepted": "its infrastructure failure is accepted",
    "agents_done": "its agents are done",
    "not_tested": "its tests gave no first verdict",
    "exhausted": "tries exhausted ({used} of {limit}): {cause}",
    "needs_person": "waits for a person ({family}): {cause}",
    "task_missing": "the dataset lacks {detail}; complete the dataset, or take the pair out of the subset",
    "not_evaluated": "not evaluated: {cause}",
}

_CAUSES: Final[dict[Cause, str]] = {
    "no_result": "no result yet",
    "agents_failed": "its agents failed ({family})",
    "result_unreadable": "its result cannot be read ({detail})",
    "agents_interrupted": "no result: its last try was interrupted",
    "last_agents_failed": "no result: its last try failed ({family})",
    "no_verdict": "not evaluated yet",
    "eval_failed": "its evaluation failed ({family})",
    "verdict_outdated": "its verdict is of an older patch",
    "verdict_unreadable": "its verdict cannot be read ({detail})",
    "eval_interrupted": "no verdict: its last evaluation was interrupted",
    "last_eval_failed": "no verdict: its last evaluation failed ({family})",
    "for_the_record": "evaluated for the record: {detail} stands already",
    "further_verdict": "verdict {detail}",
    "further_verdict_failed": "verdict {detail} failed ({family})",
    "other_pair_refused": "{detail} failed, and the other pairs would fail alike",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One planned pair in one launch."""

    pair: Pair
    code: Code
    cause: Cause | None = None
    """Why something is left to run; None where nothing is, or where this launch does not look."""

    family: str | None = None
    """Family of the infrastructure failure that a further try would follow; None where none is known."""

    detail: object = ""
    """The value that the sentence names: a file, an outcome, a number."""

    used: int = 0
    """Tries used up in the retry generation."""

    limit: int = 0
    """Tries that a retry generation has."""

    retry_generation: int = 1
    """Retry generation that the try counts in, where the pair is run."""

    expected_seconds: float | None = None
    """From earlier tries; None where nothing is known."""

    expected_cost_usd: float | None = None

    @property
    def action(self) -> Action:
        """What the launch does with the pair."""
        if self.code == "run":
            return "run"
        return "skip" if self.code in _SKIPPED else "blocked"

    @property
    def given_up(self) -> bool:
        """Whether no retry touches the pair before a person has acted."""
        return self.code in ("exhausted", "needs_person")

    @property
    def sentence(self) -> str:
        """What becomes of the pair and why, for people; programs decide by the other fields."""
        family = self.family or "unknown"
        cause = _CAUSES[self.cause].format(family=family, detail=self.detail) if self.cause else ""
        text = _SENTENCES[self.code].format(
            cause=cause, family=family, detail=self.detail, used=self.used, limit=self.limit
        )
        return f"{text}; try {self.used + 1} of {self.limit}" if self.code == "run" and self.used else text


@dataclass(frozen=True, slots=True)
class Plan:
    """What a launch of one stage will do, pair by pair, in the order of the subset."""

    stage: Stage
    steps: tuple[Step, ...]
    retry_generation: int = 1

    def having(self, action: Action) -> tuple[Step, ...]:
        """The steps of one kind."""
        return tuple(step for step in self.steps if step.action == action)

    @property
    def runs(self) -> tuple[Step, ...]:
        """The pairs to run."""
        return self.having("run")

    @property
    def given_up(self) -> tuple[Step, ...]:
        """The pairs that no retry touches before a person has acted."""
        return tuple(step for step in self.steps if step.given_up)

    @property
    def expected_cost_usd(self) -> float | None:
        """Expected cost of all runs, USD; None where the cost of one is not known."""
        return _total(step.expected_cost_usd for step in self.runs)

    @property
    def expected_seconds(self) -> float | None:
        """Expected time of all runs one after another; None where one is not known."""
        return _total(step.expected_seconds for step in self.runs)


def _total(parts: Iterable[float | None]) -> float | None:
    total = 0.0
    for part in parts:
        if part is None:
            return None
        total += part
    return total
