"""What a scripted agent says it used: steps, tokens, money. Made up, plausible, and always the same.

What belongs here: these numbers. What does not: anything that depends on how a try ended, besides its limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from .chance import chance
from .difficulty import Traits

STEP_LIMIT = 30
"""Steps after which a scripted agent has reached its limit."""

_PROMPT, _GROWTH, _REPLY = 1_400, 260, 150
"""Tokens of the first prompt, by which each step's prompt is longer, and of a reply."""

_CACHED = 0.7
_INPUT_PRICE, _CACHED_PRICE, _OUTPUT_PRICE = 0.20e-6, 0.02e-6, 0.80e-6
"""USD a token."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one agent used."""

    steps: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost: float
    """USD, by a made-up price list."""

    @staticmethod
    def prompt_tokens(step: int) -> int:
        """Tokens of a step's prompt; steps count from 0."""
        return _PROMPT + _GROWTH * step


def usage(traits: Traits, share: float, *about: object, limited: bool = False) -> Usage:
    """What an agent used for its `share` (0 to 1) of a pair.

    Args:
        traits: What is known of the pair: harder and longer ones take more steps.
        share: Share of the pair's work; 1 for one agent, half for each of two.
        about: What the numbers are about, for their chance.
        limited: Whether the agent reached its limit of steps.
    """
    work = 3 + (traits.lines / 4 + 9 * traits.difficulty) * share
    steps = STEP_LIMIT if limited else min(STEP_LIMIT - 1, round(work * (0.8 + 0.5 * chance("steps", *about))))
    prompts = steps * _PROMPT + _GROWTH * steps * (steps - 1) // 2
    reads = round(prompts * _CACHED)
    replies = round(steps * _REPLY * (0.7 + 0.6 * chance("replies", *about)))
    cost = (prompts - reads) * _INPUT_PRICE + reads * _CACHED_PRICE + replies * _OUTPUT_PRICE
    return Usage(steps, prompts, replies, reads, round(cost, 6))
