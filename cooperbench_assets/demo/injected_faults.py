"""The demo's scripted infrastructure failures: which tries are struck, and by what.

What belongs here: whether and how. What does not: being struck (``agents``, `runner.sh`).

A try of the agents is struck by what they themselves report; an evaluation by what its test program meets. Tests
may not know pair and try, so whoever runs them says so: see `eval_environment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cooperbench_assets.errors import UserError

from .chance import chance, choice
from .endings import Setting, setting_of

EVAL_VARIABLE = "COOPERBENCH_DEMO_EVAL_STRIKES"
"""Lists the struck evaluations of a cell for `runner.sh`: words ``<pair>@<try>=<kind>``."""

PAIR_VARIABLE = "COOPERBENCH_ASSETS_PAIR"
ATTEMPT_VARIABLE = "COOPERBENCH_ASSETS_ATTEMPT"
"""Number of the try, from 1, of agents or evaluation; set by whoever runs them."""

Telling = Literal["returned", "raised", "silent"]
"""How an agent that is struck says so: in its result, by an exception, or in its stream alone, the error being null."""

EvalKind = Literal["oom", "disk", "timeout"]
"""What strikes an evaluation: its process is killed, its disk is full, or it hangs until its deadline."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One infrastructure failure of an agent."""

    family: str
    telling: Telling
    text: str
    status: int | None = None
    """HTTP status, where a server answered."""

    agent: int = 1
    """Which of two agents is struck, 1 or 2."""


_STRIKES: dict[Strike, float] = {
    Strike(
        "rate_limit",
        "returned",
        "litellm.RateLimitError: RateLimitError: scripted/demo - Error code: 429 - {'error': {'message': 'Rate limit "
        "reached for requests per minute. Please try again in 1s.', 'code': 'rate_limit_exceeded'}}",
        429,
    ): 3,
    Strike(
        "provider",
        "returned",
        "litellm.ServiceUnavailableError: ServiceUnavailableError: scripted/demo - Error code: 503 - upstream connect "
        "error or disconnect before headers",
        503,
    ): 2,
    Strike("provider", "silent", "API Error: 529 Overloaded. The scripted endpoint is overloaded, try later.", 529): 3,
    Strike(
        "container_start",
        "raised",
        "Command '['docker', 'run', '-d', '--rm', '--name', 'scripted-demo', '-w', '/workspace/repo', '{image}', "
        "'sleep', '2h']' returned non-zero exit status 125.",
    ): 3,
}


class PolicyError(UserError):
    """The ``strikes`` of an agent config say something that cannot be."""


@dataclass(frozen=True, slots=True)
class StrikePolicy:
    """How often infrastructure strikes. Each try is struck by chance, always the same for the same try."""

    rate: float = 0.035
    """Share of the agents' tries that are struck."""

    eval_rate: float = 0.02
    """Share of evaluations that are struck."""

    most: int = 1
    """Strikes that one pair suffers in one cell, agents and evaluation together."""

    most_eval: int = 1
    """Strikes among these that may hit its evaluation: with two tries, one leaves a chance."""

    always: frozenset[str] = frozenset()
    """Names of pairs whose agents are struck at every try, beside the above."""

    eval_kinds: Mapping[EvalKind, float] = field(default_factory=lambda: {"oom": 1.0})
    """What strikes evaluations, by weight."""

    @classmethod
    def from_config(cls, content: object) -> StrikePolicy:
        """The policy that an agent config's ``strikes`` describes; None means the default.

        ``rate`` alone holds for agents and evaluations alike.

        Raises:
            PolicyError: if it is none.
        """
        if content is None:
            return cls()
        if not isinstance(content, dict) or not set(content) <= set(cls.__dataclass_fields__):
            raise PolicyError(f"strikes: {content!r}; write a mapping of {', '.join(cls.__dataclass_fields__)}")
        given: dict[str, Any] = dict(content)
        if "rate" in given:
            given.setdefault("eval_rate", given["rate"])
        if isinstance(given.get("eval_kinds"), list):
            given["eval_kinds"] = dict.fromkeys(given["eval_kinds"], 1.0)
        try:
            policy = cls(**{**given, "always": frozenset(given.get("always") or ())})
            shares_right = 0 <= policy.rate <= 1 and 0 <= policy.eval_rate <= 1
            counts_right = policy.most >= 0 and policy.most_eval >= 0 and bool(policy.eval_kinds)
        except TypeError as error:
            raise PolicyError(f"strikes: {content!r}: {error}") from error
        if not (shares_right and counts_right):
            raise PolicyError(f"strikes: {content!r}; rates lie between 0 and 1, numbers of strikes from 0")
        return policy


def strikes_agent(
    pair: str, setting: Setting, seed: int, attempt: int, policy: StrikePolicy | None = None
) -> Strike | None:
    """What strikes this try of a pair's agents, if anything.

    Args:
        pair: The pair's name.
        setting: How its agents work.
        seed: Number of the repetition.
        attempt: Number of the try, from 1.
        policy: How often anything is struck; the default if not given.
    """
    policy = policy or StrikePolicy()
    if attempt > _agent_strikes(pair, setting, seed, policy) and pair not in policy.always:
        return None
    about = (pair, setting, seed, attempt)
    strike = choice(_STRIKES, "strike", *about)
    hit = 2 if setting != "solo" and chance("struck agent", *about) < 0.5 else 1
    return Strike(strike.family, strike.telling, strike.text, strike.status, hit)


def strikes_eval(
    pair: str, setting: Setting, seed: int, attempt: int, policy: StrikePolicy | None = None
) -> EvalKind | None:
    """What strikes this try of a pair's evaluation, if anything; arguments as those of `strikes_agent`."""
    policy = policy or StrikePolicy()
    left = policy.most - _agent_strikes(pair, setting, seed, policy)
    room = min(policy.most_eval, left)
    if attempt > _in_a_row("eval", pair, setting, seed, policy.eval_rate, room):
        return None
    return choice(policy.eval_kinds, "eval kind", pair, setting, seed, attempt)


def eval_environment(
    pairs: Iterable[str], *, mode: str, messaging: bool, seed: int, agent_config: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Variables for the test programs of one cell, so that `runner.sh` knows which tries are struck.

    They take effect where ``COOPERBENCH_ASSETS_PAIR`` and ``COOPERBENCH_ASSETS_ATTEMPT`` (number of this evaluation's
    try, from 1) are set for each test program as well.

    Args:
        pairs: Names of the cell's pairs.
        mode: solo, coop or team.
        messaging: Whether the agents may talk.
        seed: Number of the repetition.
        agent_config: The agents' config, for its ``strikes``.

    Raises:
        PolicyError: if the config's ``strikes`` are none.
    """
    policy = StrikePolicy.from_config((agent_config or {}).get("strikes"))
    setting = setting_of(mode, messaging=messaging)
    words = []
    for pair in pairs:
        for attempt in range(1, policy.most_eval + 1):
            kind = strikes_eval(pair, setting, seed, attempt, policy)
            if kind is None:
                break
            words.append(f"{pair}@{attempt}={kind}")
    return {EVAL_VARIABLE: " ".join(words)} if words else {}


def _agent_strikes(pair: str, setting: Setting, seed: int, policy: StrikePolicy) -> int:
    """Tries of a pair's agents that are struck before one is not."""
    return _in_a_row("agent", pair, setting, seed, policy.rate, policy.most)


def _in_a_row(stage: str, pair: str, setting: Setting, seed: int, rate: float, most: int) -> int:
    """Tries at the start that chance strikes, at most `most`."""
    count = 0
    while count < most and chance("struck", stage, pair, setting, seed, count + 1) < rate:
        count += 1
    return count
