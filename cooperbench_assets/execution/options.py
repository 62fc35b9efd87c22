"""What a person wants differently for one launch; the experiment's own wishes are in ``job``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """Options of one launch of a stage of a cell; the defaults run whatever is still to run."""

    pairs: tuple[str, ...] | None = None
    """Only these pairs (``repo/task_id/f1_f2``)."""

    at_most: int | None = None
    """At most this many pairs, over as many repositories as possible."""

    concurrency: int | None = None
    """Another number of pairs at once than the experiment's; the machine's slots stay the upper bound."""

    dry_run: bool = False
    """Plan, and run nothing."""

    reset_retries: bool = False
    """Count tries anew, because the cause is gone."""

    automatic: bool = False
    """Nobody asked: leave alone what only a person can fix (keys, quota, configuration)."""
