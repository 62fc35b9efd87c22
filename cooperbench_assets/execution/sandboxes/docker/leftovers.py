"""Removing what dead owners have left on an engine, and nothing else.

What belongs here: finding what carries our labels, and removing what has no owner any more. What does not: the labels
(``ownership``). Things without our labels are not looked at, whatever their names are.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from docker.errors import APIError, NotFound

from cooperbench_assets.execution.sandboxes.docker.engine import TRIES, TROUBLE, innermost
from cooperbench_assets.execution.sandboxes.docker.ownership import OWNER, PREFIX, OwnerState, owner_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine

SWEEP_SECONDS: Final = 30.0
"""After this time a sweep begins no further removal: it holds up a launch."""

CALL_SECONDS: Final = 20
"""How long one call of a sweep may take."""

AT_ONCE: Final = 8
"""Removals at once: a container that runs takes the engine a second."""

PATIENCE_SECONDS: Final = 1.0
"""How long a sweep tries again to remove what the engine would not give up at once."""

Kind = Literal["container", "network", "volume"]


@dataclass(frozen=True, slots=True)
class Belonging:
    """Something on the engine that carries our labels."""

    kind: Kind
    id: str
    name: str
    owner_state: OwnerState
    """What became of its owner."""

    described: Mapping[str, str] = field(hash=False)
    """What it was made for: experiment, setting, seed, pair, attempt, purpose, owner."""


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """What a sweep did, or would do."""

    removed: tuple[Belonging, ...] = ()
    """Of dead owners; gone now, unless it was a dry run."""

    kept: tuple[Belonging, ...] = ()
    """Of living owners, and of owners on other machines."""

    failed: tuple[tuple[Belonging, str], ...] = ()
    """Of dead owners, and why the engine did not remove it."""


def belongings(engine: Engine, *, tries: int = TRIES) -> list[Belonging]:
    """Everything on the engine that carries our labels: containers first, then what they may hold on to.

    Args:
        engine: Where to look.
        tries: How often it is asked at most.

    Raises:
        InfrastructureError: family ``engine``, if it cannot be asked.
    """
    wanted = {"label": OWNER}
    containers = engine.call("list containers", engine.api.containers, all=True, filters=wanted, tries=tries)
    networks = engine.call("list networks", engine.api.networks, filters=wanted, tries=tries)
    volumes: Any = engine.call("list volumes", engine.api.volumes, filters=wanted, tries=tries)
    local = engine.is_local
    found = [_belonging("container", one["Id"], _first_name(one), one, local) for one in containers]
    found += [_belonging("network", one["Id"], one["Name"], one, local) for one in networks]
    found += [_belonging("volume", one["Name"], one["Name"], one, local) for one in volumes.get("Volumes") or []]
    return found


def remove_leftovers(engine: Engine, *, dry_run: bool = False, cell: str | None = None) -> CleanupResult:
    """Remove what dead owners have left, within `SWEEP_SECONDS` and one call.

    Args:
        engine: Where to look.
        dry_run: Only say what would be removed.
        cell: A cell (`ownership.cell_of`) whose lock the caller holds: what was made for it goes, too, if its owner
            cannot be looked for from here, such as a container that was killed and in which a run was.

    Raises:
        InfrastructureError: family ``engine``, if it cannot be asked what is there.
    """
    patience, engine.api.timeout = engine.api.timeout, CALL_SECONDS
    try:
        found = belongings(engine, tries=1)
        orphans = [one for one in found if one.owner_state == "dead" or _is_of(one, cell)]
        kept = tuple(one for one in found if one not in orphans)
        if dry_run:
            return CleanupResult(tuple(orphans), kept)
        tried = _remove_all(engine, orphans)
    finally:
        engine.api.timeout = patience
    return CleanupResult(
        tuple(one for one, problem in tried if not problem),
        kept,
        tuple((one, problem) for one, problem in tried if problem),
    )


def _is_of(one: Belonging, cell: str | None) -> bool:
    return cell is not None and one.owner_state == "elsewhere" and one.described.get("cell") == cell


def _remove_all(engine: Engine, orphans: Sequence[Belonging]) -> list[tuple[Belonging, str]]:
    """Remove several at once; each with why it could not be, or an empty text."""
    end = time.monotonic() + SWEEP_SECONDS

    def remove(one: Belonging) -> str:
        return _remove(engine, one) if time.monotonic() < end else "the engine is too slow; the next sweep tries again"

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sweep") as threads:
        tried = list(zip(orphans, threads.map(remove, orphans), strict=True))
        soon = min(end, time.monotonic() + PATIENCE_SECONDS)
        # A container that is still going holds on to its network and its volume.
        while any(problem for _, problem in tried) and time.monotonic() < soon:
            time.sleep(PATIENCE_SECONDS / 10)
            again = [one for one, problem in tried if problem]
            said = dict(zip(again, threads.map(remove, again), strict=True))
            tried = [(one, said.get(one, "") if problem else "") for one, problem in tried]
    return tried


def _belonging(kind: Kind, identifier: str, name: str, content: Mapping[str, Any], is_local: bool) -> Belonging:
    labels: dict[str, str] = content.get("Labels") or {}
    described = {key.removeprefix(f"{PREFIX}."): value for key, value in labels.items() if key.startswith(f"{PREFIX}.")}
    return Belonging(kind, identifier, name, owner_state(labels, is_local=is_local), described)


def _first_name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [container["Id"]]
    return str(names[0]).lstrip("/")


def _remove(engine: Engine, one: Belonging) -> str:
    """Remove it; why it could not be, or empty. What has gone meanwhile, or is going, counts as removed."""
    try:
        if one.kind == "container":
            engine.api.remove_container(one.id, force=True, v=True)
        elif one.kind == "network":
            engine.api.remove_network(one.id)
        else:
            engine.api.remove_volume(one.id)
    except NotFound:
        return ""
    except APIError as error:
        said = innermost(error)
        return "" if "already in progress" in said else said
    except TROUBLE as error:
        return innermost(error)
    return ""
