"""Errors that a person must fix before pairs can be run; what infrastructure did to one pair is no such error.

What belongs here: the exceptions that the core of execution raises, each with one clear sentence and a remedy. What
does not: failures of single pairs, which are recorded as attempts.
"""

from __future__ import annotations

from cooperbench_assets.errors import UserError


class LaunchError(UserError):
    """A stage of a cell cannot be run as asked; nothing was bought, and what had finished is recorded."""


class RefusedLaunch(LaunchError):
    """What was asked for would spoil the cell: a second try where the first verdict stands, say."""


class CellBusy(LaunchError):
    """Another process runs this cell."""


class PricesUnknown(LaunchError):
    """A budget was set, and the model's prices are not known."""
