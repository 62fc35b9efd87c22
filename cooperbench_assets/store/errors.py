"""What can go wrong in the store, one class a remedy; nothing that raises them belongs here."""

from __future__ import annotations

from cooperbench_assets.errors import UserError


class StoreError(UserError):
    """Something about the partition tables or the results store that a person can fix; says what and how."""


class StoreMissingError(StoreError):
    """There is no results store yet."""


class StoreTooNewError(StoreError):
    """The file was written by a later version of this package."""


class StoreLockedError(StoreError):
    """Another process has been publishing for longer than the caller would wait."""


class UnitError(StoreError):
    """A unit's folder cannot be read: no pointer, a damaged one, or tables that are not what it says."""


class FrameError(ValueError):
    """A frame is not what its table declares, or its rows belong to another unit."""
