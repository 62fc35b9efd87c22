"""How the scripted agents' tries end: a function of pair, setting and seed.

What belongs here: which ending it is, and what verdict it leads to. What does not: infrastructure failures
(``injected_faults``), and making an ending come about (``agents``).

One agent for both features does best; two that talk do worse, because each knows half and their patches can
collide; two that do not talk cannot even keep out of each other's way. Skill falls with the pair's difficulty,
and repetitions of one setting mostly agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .chance import chance, choice
from .difficulty import Traits

Setting = Literal["solo", "coop-comm", "coop-nocomm"]
"""How agents work, as far as these care: a team is like agents that talk."""

Work = Literal["right", "wrong", "missing"]
"""What became of one feature."""

Status = Literal["Submitted", "LimitsExceeded"]

Manner = Literal["apart", "aside", "joint", "same"]
"""How two agents share the work: ``apart``, each where it likes; ``aside``, the second keeps out of the first one's
way; ``joint``, the first does both features and the second its own all the same; ``same``, both submit one patch."""

_SOLO_SKILL, _SOLO_WAVER, _SOLO_SURPRISE = 0.60, 0.12, 0.04
_COOP_SKILL: dict[Setting, float] = {"coop-comm": 0.54, "coop-nocomm": 0.50}
_COOP_WAVER, _COOP_SURPRISE = 0.25, 0.08
# Skill is the difficulty up to which work goes well; it wavers by so much, and a share of tries surprises.

_SOLO_FAILURES: dict[tuple[Status, Work, Work], float] = {
    ("Submitted", "right", "wrong"): 26,
    ("Submitted", "wrong", "right"): 22,
    ("Submitted", "wrong", "wrong"): 26,
    ("LimitsExceeded", "right", "missing"): 12,
    ("LimitsExceeded", "wrong", "missing"): 7,
    ("LimitsExceeded", "missing", "missing"): 3,
    ("Submitted", "right", "missing"): 4,
}
_COOP_FAILURES: dict[tuple[Status, Work], float] = {
    ("Submitted", "wrong"): 80,
    ("LimitsExceeded", "wrong"): 10,
    ("LimitsExceeded", "missing"): 6,
    ("Submitted", "missing"): 4,
}
_LATE = 0.03
"""Share of right work that is finished just as the limit is reached."""

_MANNERS: dict[Manner, float] = {"aside": 62, "apart": 20, "joint": 10, "same": 8}
"""What two agents that talk agree on where their work collides, for a pair of middling difficulty."""


@dataclass(frozen=True, slots=True)
class SoloEnding:
    """One agent's try of both features."""

    status: Status
    works: tuple[Work, Work]

    def passes(self) -> bool:
        """The verdict that tests come to."""
        return self.works == ("right", "right")


@dataclass(frozen=True, slots=True)
class CoopEnding:
    """Two agents' try, a feature each; `works` is what each can do, `manner` what they agree on."""

    manner: Manner
    statuses: tuple[Status, Status]
    works: tuple[Work, Work]

    def conflicts(self, traits: Traits) -> bool:
        """Whether git cannot merge the two patches."""
        if "missing" in self.works or self.manner == "same":
            return False
        return traits.stubborn if self.manner == "aside" else traits.conflict

    def passes(self, traits: Traits, *, strict: bool) -> bool:
        """The verdict: upstream's, which lets the first agent's patch stand alone where git cannot merge, or strict."""
        if self.conflicts(traits) and (strict or self.manner != "joint"):
            return False
        return self.works == ("right", "right")


def setting_of(mode: str, *, messaging: bool) -> Setting:
    """How agents work in one of the harness's modes (solo, coop, team)."""
    return "solo" if mode == "solo" else "coop-comm" if messaging else "coop-nocomm"


def solo_ending(pair: str, seed: int, traits: Traits) -> SoloEnding:
    """How one agent's try of a pair ends.

    Args:
        pair: The pair's name.
        seed: Number of the repetition.
        traits: What is known of the pair.
    """
    wavers = _SOLO_WAVER * (2 * chance("form", pair, seed) - 1)
    able = traits.difficulty + wavers < _SOLO_SKILL
    if able != (chance("luck", pair, seed) < _SOLO_SURPRISE):
        return SoloEnding(_late("solo", pair, seed), ("right", "right"))
    status, first, second = choice(_SOLO_FAILURES, "failure", pair, seed)
    return SoloEnding(status, (first, second))


def coop_ending(pair: str, setting: Setting, seed: int, traits: Traits) -> CoopEnding:
    """How two agents' try of a pair ends, if nothing keeps them from talking where they may.

    Args:
        pair: The pair's name.
        setting: Whether they talk.
        seed: Number of the repetition.
        traits: What is known of the pair.
    """
    ends = [_coop_agent(pair, setting, seed, traits, agent) for agent in (1, 2)]
    works, statuses = (ends[0][1], ends[1][1]), (ends[0][0], ends[1][0])
    manner: Manner = "apart"
    if setting == "coop-comm" and traits.conflict and "missing" not in works:
        # The harder the pair, the less they understand of each other's plans.
        weights = dict(_MANNERS) | {"apart": _MANNERS["apart"] * 2 * traits.difficulty}
        manner = choice(weights, "manner", pair, setting, seed)
    return CoopEnding(manner, statuses, works)


def _coop_agent(pair: str, setting: Setting, seed: int, traits: Traits, agent: int) -> tuple[Status, Work]:
    """How one of two agents fares with its own feature."""
    about = (pair, setting, seed, agent)
    wavers = _COOP_WAVER * (2 * chance("form", *about) - 1)
    able = traits.difficulty + wavers < _COOP_SKILL[setting]
    if able != (chance("luck", *about) < _COOP_SURPRISE):
        return _late(*about), "right"
    return choice(_COOP_FAILURES, "failure", *about)


def _late(*about: object) -> Status:
    return "LimitsExceeded" if chance("late", *about) < _LATE else "Submitted"
