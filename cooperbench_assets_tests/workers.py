"""Which tests one worker of pytest-xdist gets together: those of a file, and those of a folder that share one place."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from cooperbench_assets_tests import dagster_ui

SHARED_PLACES = (f"{dagster_ui.__name__.replace('.', '/')}/",)
"""Folders whose tests share what takes long to start."""


class ByPlace(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A shared place is started once, not by each worker that gets a file of its folder."""

    def _split_scope(self, nodeid: str) -> str:
        """The folder or the file that a test belongs to."""
        folders = (folder for folder in SHARED_PLACES if nodeid.startswith(folder))
        return next(folders, None) or str(super()._split_scope(nodeid))
