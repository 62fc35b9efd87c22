"""Addresses of the viewer's pages, for whatever links to them: assets, checks, alerts, the report.

What belongs here: where the viewer is, and how its pages are called. What does not: the pages (``viewer``).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from dotenv import dotenv_values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cooperbench_assets.store.cells import Cell

VARIABLE: Final = "COOPERBENCH_ASSETS_VIEWER_URL"
"""Environment variable with the address of the viewer: where `view` listens, and where links lead."""

_PAIR: Final = re.compile(r"[^\s/]+/\d+/f\d+_f\d+(?!\S)")
USUAL: Final = "http://127.0.0.1:3001"


def viewer_address(root: Path) -> str:
    """Address of the viewer, without a slash at its end: the project's (.env), where it runs, or the usual one."""
    # .env first, as for the UI: `make ui` sets the variable to a port on loopback, and people may come another way.
    written = dotenv_values(root / ".env").get(VARIABLE)
    return (written or os.environ.get(VARIABLE) or USUAL).rstrip("/")


def experiment_page(experiment: str) -> str:
    """The overview of an experiment, relative to the viewer's address."""
    return f"/#/e/{quote(experiment, safe='')}"


def list_page(experiment: str, **filters: str | None) -> str:
    """The list of an experiment's pairs, with those filters that have a value: setting, seed, outcome, reason, …"""
    chosen = {name: value for name, value in filters.items() if value is not None}
    return f"{experiment_page(experiment)}/pairs{'?' if chosen else ''}{urlencode(chosen)}"


def cell_list_page(cell: Cell, **filters: str | None) -> str:
    """The list of a cell's pairs."""
    return list_page(cell.experiment, setting=cell.setting, seed=str(cell.seed), **filters)


def report_page(experiment: str) -> str:
    """The report of an experiment."""
    return f"/report/{quote(experiment, safe='')}/report.html"


def pair_in(line: str) -> str | None:
    """The pair that a line of text begins with, such as one of what a check found affected."""
    match = _PAIR.match(line)
    return None if match is None else match[0]


def affected_page(cell: Cell, lines: Sequence[str]) -> str | None:
    """The pairs that these lines begin with: the page of one, the list of several; None where they name none."""
    pairs = list(dict.fromkeys(filter(None, map(pair_in, lines))))
    if len(pairs) == 1:
        return pair_page(cell, pairs[0])
    return cell_list_page(cell, pair=",".join(pairs)) if pairs else None


def pair_page(cell: Cell, pair: str, *, part: str | None = None) -> str:
    """The page of a pair (``repo/task_id/f<a>_f<b>``); `part` names what is shown first: tests, messages, tries, …"""
    place = "/".join(quote(word, safe="") for word in (cell.setting, str(cell.seed), *pair.split("/")))
    return f"{experiment_page(cell.experiment)}/{place}{f'?show={part}' if part else ''}"
