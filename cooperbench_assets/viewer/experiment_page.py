"""The experiment page's data: every cell with outcomes and checks, what runs and what it waits for, money and time.

What belongs here: putting together what rows, tables and locks say. What does not: the rows (``transcripts.listing``)
and the page. What is not known is None, never 0.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from cooperbench_assets.errors import UserError
from cooperbench_assets.execution.cell_lock import holder
from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.execution.runner.slots import SlotPool
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.errors import StoreError
from cooperbench_assets.store.partition_tables import read_unit
from cooperbench_assets.store.units import cell_unit, check_unit, quote
from cooperbench_assets.viewer_links import pair_in, pair_page
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cooperbench_assets.execution.runner.slots import SlotUser
    from cooperbench_assets.project import Project
    from cooperbench_assets.transcripts.model import PairRow
    from cooperbench_assets.transcripts.sources import Source, SourceCell

POOLS: Final = {"agents": "agents", "evaluations": "evaluation"}


def overview(name: str, source: Source, rows: Sequence[PairRow], project: Project | None) -> dict[str, Any]:
    """Everything of the page but the headline.

    Args:
        name: What is shown.
        source: Its cells.
        rows: A row for every pair.
        project: Where the experiment's tables are; None for foreign logs, which have no checks.
    """
    of_cell: dict[tuple[str, str, int, str | None], list[PairRow]] = {}
    for row in rows:
        of_cell.setdefault((row.run, row.setting, row.seed, row.mode), []).append(row)
    users = _slot_users() if project is not None else {}
    cells = [_cell(one, _rows_of(one, of_cell), project, users) for one in source.cells]
    report = None if project is None else project.report / name / "report.html"
    return {
        "name": name,
        "cells": cells,
        "waiting": _waiting(cells, users, name),
        "checks": [] if project is None else _failed(_check_rows(project.tables, name, None), None),
        "report": f"report/{name}/report.html" if report is not None and report.is_file() else None,
    }


def _rows_of(cell: SourceCell, rows: dict[tuple[str, str, int, str | None], list[PairRow]]) -> list[PairRow]:
    """The rows of a cell; of one that does not know its mode, whatever mode its results have."""
    place = (cell.run_dir.name, cell.setting, cell.seed)
    return [row for key, found in rows.items() if key[:3] == place and cell.mode in (None, key[3]) for row in found]


def _cell(
    cell: SourceCell, rows: Sequence[PairRow], project: Project | None, users: dict[str, list[tuple[SlotUser, int]]]
) -> dict[str, Any]:
    counts = Counter(row.outcome for row in rows)
    if not rows and cell.pairs is not None:
        counts["missing"] = len(cell.pairs)
    costs = [row.cost_usd for row in rows if row.cost_usd is not None]
    times = [row.duration_seconds for row in rows if row.duration_seconds is not None]
    held = holder(cell.run_dir)
    key = None if cell.experiment is None else Cell(cell.experiment, cell.setting, cell.seed)
    return {
        "address": list(address_of(cell)),
        "setting": cell.setting if key is not None else None,
        "seed": cell.seed if key is not None else None,
        "run": cell.run_dir.name,
        "counts": dict(counts),
        "total": counts.total(),
        "judged": counts["pass"] + counts["fail"],
        "strict_pass": sum(row.outcome_strict == "pass" for row in rows),
        "cost_usd": sum(costs) if costs else None,
        "cost_unknown": sum(row.cost_usd is None and row.outcome != "missing" for row in rows),
        "agent_seconds": sum(times) if times else None,
        "wasted_usd": None if key is None or project is None else _wasted(project.tables, key),
        "checks": None if key is None or project is None else _cell_checks(project.tables, key),
        "running": sum(
            n for user, n in users.get("all", []) if key is not None and f"{user.experiment} {user.cell}" == str(key)
        ),
        "holder": None if held is None else str(held),
        "over_budget": _over_budget(cell),
        "problem": None if cell.run_dir.is_dir() else f"There is no run folder {cell.run_dir.name} yet.",
    }


def address_of(cell: SourceCell) -> tuple[str, str]:
    """How pages name a cell: ``setting/seed`` of an experiment, ``run/mode`` of foreign logs."""
    if cell.experiment is not None:
        return cell.setting, str(cell.seed)
    return cell.run_dir.name, cell.mode or "-"


def _slot_users() -> dict[str, list[tuple[SlotUser, int]]]:
    """Who holds slots of the machine now, by pool and together; nothing where that cannot be told."""
    found: dict[str, list[tuple[SlotUser, int]]] = {"all": []}
    with contextlib.suppress(OSError, UserError):
        for pool in ("agents", "evaluations"):
            found[pool] = list(SlotPool(pool).others())
            found["all"] += found[pool]
    return found


def _waiting(cells: Sequence[dict[str, Any]], users: dict[str, list[tuple[SlotUser, int]]], name: str) -> list[str]:
    """What cells wait for: a sentence for each that a launch holds none of whose pairs runs, with who has the machine's
    slots, and for each that has no money left."""
    holders = [
        f"{n} of the machine's {POOLS[pool]} slots: {user.experiment or 'another process'} {user.cell}".rstrip()
        for pool in POOLS
        for user, n in users.get(pool, [])
    ]
    said = []
    for cell in cells:
        called = f"{name} {'/'.join(cell['address'])}"
        if cell["holder"] and not cell["running"]:
            said.append(f"{called} waits, or reads what is there. {'; '.join(holders)}".rstrip())
        elif cell["over_budget"] and not cell["holder"]:
            said.append(
                f"{called} waits for money, with {count(cell['total'] - cell['judged'], 'pair')} not judged: its last "
                f"launch ended because {cell['over_budget']}. Raise it (limits in defs.yaml) and materialize the cell."
            )
    return said


def _over_budget(cell: SourceCell) -> str | None:
    """Why a budget keeps a cell from being whole, as its last launch recorded it; None where none does."""
    record = read_provenance(cell.run_dir)
    reason = record.get("truncated_reason") if record.get("truncated") else None
    return None if reason is None else str(reason)


def _wasted(tables: Path, cell: Cell) -> float | None:
    """USD of tries that infrastructure ended; None where nothing of it is known."""
    try:
        attempts = read_unit(tables, cell_unit(cell))["attempts"]
    except (StoreError, KeyError):
        return None
    known = attempts.filter("counted")["cost_usd"].drop_nulls()
    return float(known.sum()) if known.len() else None


def _cell_checks(tables: Path, cell: Cell) -> dict[str, Any] | None:
    """The checks of a cell as they were last evaluated; None where none was."""
    rows = _check_rows(tables, cell.experiment, cell)
    return {"passed": sum(row["passed"] for row in rows), "failed": _failed(rows, cell)} if rows else None


def _check_rows(tables: Path, experiment: str, cell: Cell | None) -> list[dict[str, Any]]:
    """The check results of a cell's assets, or of those without cells."""
    rows: list[dict[str, Any]] = []
    for folder in sorted((tables / quote(experiment) / "checks").glob("*"), reverse=True):
        with contextlib.suppress(StoreError, KeyError):
            rows += read_unit(tables, check_unit(experiment, unquote(folder.name), cell))["check_results"].to_dicts()
    return rows


def _failed(rows: Sequence[dict[str, Any]], cell: Cell | None) -> list[dict[str, Any]]:
    return [
        {
            "asset": row["asset"],
            "name": row["check_name"],
            "description": row["description"] or "",
            "remedy": row["remedy"],
            "pairs": [{"text": text, "href": _href(text, cell)} for text in row["sample"] or []],
        }
        for row in rows
        if not row["passed"]
    ]


def _href(text: str, cell: Cell | None) -> str | None:
    """The page of the pair that an affected line begins with."""
    name = pair_in(text)
    return None if cell is None or name is None else pair_page(cell, name).removeprefix("/")


def headline(name: str, project: Project) -> dict[str, Any]:
    """Warnings, success by setting, and the sentences that may be said, from the results store.

    Raises:
        UserError: if the experiment is not in the store.
    """
    from cooperbench_assets.report.headline import headline_rows, statements  # drawing libraries: half a second
    from cooperbench_assets.report.sources import read_sources

    (source,) = read_sources(project.database, [name], {})
    summary = source.results["setting_summary"].filter(level="setting", verdict="strict")
    bounds = {row["setting"]: row for row in summary.iter_rows(named=True)}
    rows = [
        {
            "setting": row.setting,
            "strict": row.rates.get("strict", ""),
            "upstream": row.rates.get("upstream", ""),
            "bounds": row.bounds.get("strict", ""),
            "judged": row.judged,
            "planned": row.planned,
            "refused": row.refused,
            "rate": bounds[row.setting]["rate_clean"],
            "bound_low": bounds[row.setting]["bound_low"],
            "bound_high": bounds[row.setting]["bound_high"],
        }
        for row in headline_rows(source.results["setting_summary"])
    ]
    order = {"error": 0, "warning": 1, "info": 2}
    warnings = sorted(source.results["warnings"].to_dicts(), key=lambda row: order.get(row["level"], 0))
    return {
        "remarks": [source.look.remark] if source.look.remark else [],
        "rows": rows,
        "statements": list(statements(source.results)),
        "warnings": [{key: row[key] for key in ("level", "subject", "text")} for row in warnings],
    }


def no_headline() -> dict[str, Any]:
    """The headline of foreign logs, of which nothing is planned."""
    return {
        "remarks": ["Foreign logs: nothing is planned or compared here."],
        "rows": [],
        "statements": [],
        "warnings": [],
    }
