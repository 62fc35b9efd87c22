"""What is known of agents that were killed: whether their model still answered, and what they had cost.

What belongs here: reading what a child counted (``worker.model_calls``), and deciding from it. What does not: counting,
killing (``runner.scheduler``), and the pair's outcome, which follows from what is written of each agent (``staging``,
``benchmark``).

What shows that a model works: a reply. Of agents that ask it from this machine through litellm every call is seen; of
those that ask from their containers, the lines of their streams that only a reply can cause. Of other agents nothing is
known but the files that they write below their log folder. What a child prints shows nothing: that its container
started is printed, and so is each attempt to ask a dead endpoint again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.benchmark.failures import classify
from cooperbench_assets.execution.job import ASKS_FROM_HERE
from cooperbench_assets.execution.worker.model_calls import FILE, TOKENS, AgentCalls

if TYPE_CHECKING:
    from cooperbench_assets.execution.attempts.staging import Staged

LONGEST_PATIENCE_SECONDS: Final = 600.0
"""A model that an agent has waited for this long does not answer any more, whatever the deadline is."""

SHORTEST_PATIENCE_SECONDS: Final = 10.0

PART_OF_DEADLINE: Final = 3
SLOWER_THAN_EVER: Final = 3

SEEN_IN_STREAMS: Final = frozenset({"claude_code", "codex"})
"""Agents whose replies are seen in their streams."""


class Counted(msgspec.Struct, frozen=True):
    """What a child counted of its agents."""

    agents: dict[str, AgentCalls] = {}

    @property
    def replies(self) -> int:
        """Replies of the model, of all agents."""
        return sum(one.replies for one in self.agents.values())

    def spent(self, agent: str) -> float | None:
        """What all agents cost, USD; None where that of one is not known."""
        costs = [cost_of(one, agent) for one in self.agents.values()]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if costs and len(known) == len(costs) else None

    def known(self, name: str, agent: str) -> dict[str, float]:
        """Cost and tokens of one agent, by the names of upstream's result.json; what is not known is left out."""
        calls = self.agents.get(name)
        if calls is None:
            return {}
        cost = cost_of(calls, agent)
        costs = {} if cost is None else {"cost": cost}
        return costs | {token: calls.tokens[token] for token in TOKENS if token in calls.tokens}


_COUNTED: Final = msgspec.json.Decoder(Counted)


def cost_of(calls: AgentCalls, agent: str) -> float | None:
    """What one agent cost so far, USD; None where not known.

    Args:
        calls: What its child counted of it.
        agent: Name of the agent's framework.
    """
    counted = None if calls.unpriced or not (calls.asked or agent in ASKS_FROM_HERE) else calls.cost_usd
    # Upstream's own sum leaves out what the summaries of a long conversation cost.
    return max(calls.result_cost, counted or 0.0) if calls.result_cost else counted


def read_counted(place: Staged) -> Counted:
    """What a child has counted by now; nothing where it wrote nothing that can be read."""
    try:
        return _COUNTED.decode((place.root / FILE).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return Counted()


@dataclass(frozen=True, slots=True)
class ActivityAtDeadline:
    """What was known of a pair's agents at their deadline, before they were killed."""

    at: float
    """Seconds since 1970."""

    counted: Counted
    written: float | None = None
    """When they last wrote a file below their log folder, if ever."""


def observe_activity(place: Staged) -> ActivityAtDeadline:
    """Look at agents that are about to be killed: what a killed child still says is no reply."""
    times = [
        status.st_mtime
        for file in (place.root / "logs").rglob("*")
        if file.is_file() and (status := file.stat()).st_size > 0
    ]
    return ActivityAtDeadline(time.time(), read_counted(place), max(times, default=None))


@dataclass(frozen=True, slots=True)
class End:
    """How one agent of a killed pair ended."""

    status: str
    error: str | None
    by_itself: bool = False
    """It ended before the deadline, and was not killed."""


def patience_seconds(deadline_seconds: float, longest_wait: float = 0.0) -> float:
    """How long an agent may wait for a reply at its deadline before the model counts as hung.

    Ten minutes at most: no model takes longer. Of a short deadline a third, since ten minutes of it would excuse every
    hang; but three times what this agent's slowest reply took, since a slow model that answers is no hung one.

    Args:
        deadline_seconds: The pair's deadline.
        longest_wait: What the agent's slowest reply took, seconds.
    """
    wanted = max(deadline_seconds / PART_OF_DEADLINE, SLOWER_THAN_EVER * longest_wait, SHORTEST_PATIENCE_SECONDS)
    return min(wanted, LONGEST_PATIENCE_SECONDS)


def ends(sight: ActivityAtDeadline, names: tuple[str, ...], agent: str, deadline_seconds: float) -> dict[str, End]:
    """How each agent of a pair that was killed at its deadline ended.

    An agent that ended before is left as it was. One that waits for its model longer than `patience_seconds`, or that
    never got a reply, was kept from working: ``[infra:…]``. Any other used up its time: ``[agent_timeout]``, also one
    that has long been running a command of its own. One agent that was kept from working makes the pair an
    infrastructure error, whatever the other did: what it would have contributed is not known.

    Args:
        sight: What was known of them before.
        names: The agents' names: solo, or agent1 and agent2.
        agent: Name of their framework.
        deadline_seconds: The pair's deadline.
    """
    counted = sight.counted.agents
    if agent in ASKS_FROM_HERE | SEEN_IN_STREAMS or any(one.asked for one in counted.values()):
        return {name: _end(counted.get(name, AgentCalls()), sight.at, agent, deadline_seconds) for name in names}
    late = f"killed at the deadline of {deadline_seconds / 60:g} minutes"
    if sight.written is not None and sight.at - sight.written <= patience_seconds(deadline_seconds):
        text = f"[agent_timeout] {late}, {_span(sight.at - sight.written)} after it last wrote to its logs"
    else:
        text = f"[infra:provider_timeout] {late}; nothing shows a reply of the model"
    return {name: _ended_before(counted.get(name)) or End("Error", text) for name in names}


def _ended_before(calls: AgentCalls | None) -> End | None:
    return None if calls is None or calls.status is None else End(calls.status, calls.error, by_itself=True)


def _end(calls: AgentCalls, at: float, agent: str, deadline_seconds: float) -> End:
    if (ended := _ended_before(calls)) is not None:
        return ended
    late = f"killed at the deadline of {deadline_seconds / 60:g} minutes"
    waited = 0.0 if calls.waiting is None else at - calls.waiting
    if calls.replies and waited <= patience_seconds(deadline_seconds, calls.longest_wait):
        ago = _span(at - (calls.last_reply or at))
        return End("Error", f"[agent_timeout] {late}; the model answered {_times(calls.replies)}, last {ago} ago")
    if not calls.asked:
        return End("Error", f"[infra:{_set_up(agent)}] {late}; the model was not asked anything yet")
    before = f"it had answered {_times(calls.replies)}" if calls.replies else "it never answered"
    error = f", last error {calls.problem}" if calls.problem else ""
    return End("Error", f"[infra:{_family(calls.problem)}] {late}; no reply for {_span(waited)}{error}; {before}")


def _set_up(agent: str) -> str:
    return "agent_install" if agent in SEEN_IN_STREAMS else "container_start"


def _family(problem: str | None) -> str:
    """The family of the error that came in place of replies; that of a silent endpoint where none came."""
    found = classify(problem)
    return "provider_timeout" if found is None or found.kind != "infra" or found.family == "unknown" else found.family


def _times(replies: int) -> str:
    return "once" if replies == 1 else f"{replies} times"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
