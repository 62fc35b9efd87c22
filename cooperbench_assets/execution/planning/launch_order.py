"""The order in which pairs are launched: pure functions.

What belongs here: orders. What does not: which pairs are run (``plan``), and how many at once (``runner.slots``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.planning.steps import Step


def launch_order(steps: Sequence[Step], seed: str, *, budgeted: bool) -> list[Step]:
    """The steps in the order of their launches.

    Longest expected first: the time of all then comes within a third of the best possible (Graham 1969, "Bounds on
    multiprocessing timing anomalies"). A pair of which nothing is known counts as a typical one. With a budget the
    order is random instead, and the same in every cell of the experiment, so that what is not bought is neither the
    easy nor the hard part.

    Args:
        steps: What to launch.
        seed: Seeds the random order: the experiment's name.
        budgeted: Whether a budget may stop the launches.
    """
    shuffled = sorted(steps, key=lambda step: shuffle_key(step.pair, seed))
    if budgeted:
        return shuffled
    known = sorted(step.expected_seconds for step in steps if step.expected_seconds is not None)
    typical = known[len(known) // 2] if known else 0.0

    def length(step: Step) -> float:
        return typical if step.expected_seconds is None else step.expected_seconds

    return sorted(shuffled, key=length, reverse=True)


def shuffle_key(pair: Pair, seed: str) -> str:
    """A key whose order is random in the pair, and the same wherever the seed is."""
    return hashlib.sha256(f"{seed}\n{pair.name}".encode()).hexdigest()


def spread(pairs: Iterable[Pair], limit: int) -> list[Pair]:
    """`limit` of the pairs, over as many repositories, then tasks, as possible; the same ones each time."""
    by_repo: dict[str, dict[int, list[Pair]]] = {}
    for pair in sorted(pairs):
        by_repo.setdefault(pair.repo, {}).setdefault(pair.task_id, []).append(pair)
    repos = [_round_robin(list(tasks.values())) for tasks in by_repo.values()]
    return _round_robin(repos)[:limit]


def _round_robin(lists: Sequence[Sequence[Pair]]) -> list[Pair]:
    """The first of each list, then the second of each, and so on."""
    longest = max(map(len, lists), default=0)
    return [items[place] for place in range(longest) for items in lists if place < len(items)]
