"""The demo's injected infrastructure failures: which tries fail, and how.

What belongs here: whether and how. What does not: failing (``agents``, `runner.sh`).

An agent fails by what it reports itself, an evaluation by what its test program meets. Tests may not know pair and
try, so whoever runs them says so: see `eval_environment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cooperbench_assets.errors import UserError

from .chance import chance, choice
from .endings import Setting, setting_of

# `runner.sh` reads the variable, and its bytes are in the hash of the tasks that results were made with; words in
# `chance` likewise decide which tries fail. So both keep the words that they have.
EVAL_VARIABLE = "COOPERBENCH_DEMO_EVAL_STRIKES"
"""Lists the evaluations of a cell that fail, for `runner.sh`: words ``<pair>@<try>=<kind>``."""

KEY = "injected_faults"
"""The agent config's key for a `FaultPolicy`."""

_OLD_KEY = "strikes"

PAIR_VARIABLE = "COOPERBENCH_ASSETS_PAIR"
ATTEMPT_VARIABLE = "COOPERBENCH_ASSETS_ATTEMPT"
"""Number of the try, from 1, of agents or evaluation; set by whoever runs them."""

Telling = Literal["returned", "raised", "silent"]
"""How an agent that fails says so: in its result, by an exception, or in its stream alone, the error being null."""

EvalKind = Literal["oom", "disk", "timeout"]
"""How an evaluation fails: its process is killed, its disk is full, or it hangs until its deadline."""


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One infrastructure failure of an agent."""

    family: str
    telling: Telling
    text: str
    status: int | None = None
    """HTTP status, where a server answered."""

    agent: int = 1
    """Which of two agents fails, 1 or 2."""


_AGENT_FAULTS: dict[InjectedFault, float] = {
    InjectedFault(
        "rate_limit",
        "returned",
        "litellm.RateLimitError: RateLimitError: scripted/demo - Error code: 429 - {'error': {'message': 'Rate limit "
        "reached for requests per minute. Please try again in 1s.', 'code': 'rate_limit_exceeded'}}",
        429,
    ): 3,
    InjectedFault(
        "provider",
        "returned",
        "litellm.ServiceUnavailableError: ServiceUnavailableError: scripted/demo - Error code: 503 - upstream connect "
        "error or disconnect before headers",
        503,
    ): 2,
    InjectedFault(
        "provider", "silent", "API Error: 529 Overloaded. The scripted endpoint is overloaded, try later.", 529
    ): 3,
    InjectedFault(
        "container_start",
        "raised",
        "Command '['docker', 'run', '-d', '--rm', '--name', 'scripted-demo', '-w', '/workspace/repo', '{image}', "
        "'sleep', '2h']' returned non-zero exit status 125.",
    ): 3,
}


class PolicyError(UserError):
    """The ``injected_faults`` of an agent config say something that cannot be."""


@dataclass(frozen=True, slots=True)
class FaultPolicy:
    """How often infrastructure fails. Each try fails by chance, always the same for the same try."""

    rate: float = 0.035
    """Share of the agents' tries that fail."""

    eval_rate: float = 0.02
    """Share of evaluations that fail."""

    most: int = 1
    """Faults that one pair suffers in one cell, agents and evaluation together."""

    most_eval: int = 1
    """Faults among these that may be its evaluation's: with two tries, one leaves a chance."""

    always: frozenset[str] = frozenset()
    """Names of pairs whose agents fail at every try, beside the above."""

    eval_kinds: Mapping[EvalKind, float] = field(default_factory=lambda: {"oom": 1.0})
    """How evaluations fail, by weight."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> FaultPolicy:
        """The policy that an agent config's ``injected_faults`` describes; the default where it has none.

        ``rate`` alone holds for agents and evaluations alike.

        Raises:
            PolicyError: if it is none.
        """
        if _OLD_KEY in (config or {}):
            raise PolicyError(f"{_OLD_KEY}: the key is {KEY} now; rename it")
        content = (config or {}).get(KEY)
        if content is None:
            return cls()
        if not isinstance(content, dict) or not set(content) <= set(cls.__dataclass_fields__):
            raise PolicyError(f"{KEY}: {content!r}; write a mapping of {', '.join(cls.__dataclass_fields__)}")
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
            raise PolicyError(f"{KEY}: {content!r}: {error}") from error
        if not (shares_right and counts_right):
            raise PolicyError(f"{KEY}: {content!r}; rates lie between 0 and 1, numbers of faults from 0")
        return policy


def agent_fault(
    pair: str, setting: Setting, seed: int, attempt: int, policy: FaultPolicy | None = None
) -> InjectedFault | None:
    """How this try of a pair's agents fails, if it does.

    Args:
        pair: The pair's name.
        setting: How its agents work.
        seed: Number of the repetition.
        attempt: Number of the try, from 1.
        policy: How often anything fails; the default if not given.
    """
    policy = policy or FaultPolicy()
    if attempt > _agent_faults(pair, setting, seed, policy) and pair not in policy.always:
        return None
    about = (pair, setting, seed, attempt)
    # Here and below, words of the first release go into the hashes: others would make another demo.
    fault = choice(_AGENT_FAULTS, "strike", *about)
    hit = 2 if setting != "solo" and chance("struck agent", *about) < 0.5 else 1
    return InjectedFault(fault.family, fault.telling, fault.text, fault.status, hit)


def eval_fault(
    pair: str, setting: Setting, seed: int, attempt: int, policy: FaultPolicy | None = None
) -> EvalKind | None:
    """How this try of a pair's evaluation fails, if it does; arguments as those of `agent_fault`."""
    policy = policy or FaultPolicy()
    left = policy.most - _agent_faults(pair, setting, seed, policy)
    room = min(policy.most_eval, left)
    if attempt > _in_a_row("eval", pair, setting, seed, policy.eval_rate, room):
        return None
    return choice(policy.eval_kinds, "eval kind", pair, setting, seed, attempt)


def eval_environment(
    pairs: Iterable[str], *, mode: str, messaging: bool, seed: int, agent_config: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Variables for the test programs of one cell, so that `runner.sh` knows which tries fail.

    They take effect where ``COOPERBENCH_ASSETS_PAIR`` and ``COOPERBENCH_ASSETS_ATTEMPT`` (number of this evaluation's
    try, from 1) are set for each test program as well.

    Args:
        pairs: Names of the cell's pairs.
        mode: solo, coop or team.
        messaging: Whether the agents may talk.
        seed: Number of the repetition.
        agent_config: The agents' config, for its ``injected_faults``.

    Raises:
        PolicyError: if the config's ``injected_faults`` are none.
    """
    policy = FaultPolicy.from_config(agent_config)
    setting = setting_of(mode, messaging=messaging)
    words = []
    for pair in pairs:
        for attempt in range(1, policy.most_eval + 1):
            kind = eval_fault(pair, setting, seed, attempt, policy)
            if kind is None:
                break
            words.append(f"{pair}@{attempt}={kind}")
    return {EVAL_VARIABLE: " ".join(words)} if words else {}


def _agent_faults(pair: str, setting: Setting, seed: int, policy: FaultPolicy) -> int:
    """Tries of a pair's agents that fail before one does not."""
    return _in_a_row("agent", pair, setting, seed, policy.rate, policy.most)


def _in_a_row(stage: str, pair: str, setting: Setting, seed: int, rate: float, most: int) -> int:
    """Tries at the start that fail by chance, at most `most`."""
    count = 0
    while count < most and chance("struck", stage, pair, setting, seed, count + 1) < rate:
        count += 1
    return count
