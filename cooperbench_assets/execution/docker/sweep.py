"""Removing what dead owners have left on an engine, and nothing else.

What belongs here: finding what carries our labels, and removing what has no owner any more. What does not: the labels
(``ownership``). Things without our labels are not looked at, whatever their names are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from docker.errors import APIError, NotFound

from cooperbench_assets.execution.docker.engine import TROUBLE, innermost
from cooperbench_assets.execution.docker.ownership import OWNER, PREFIX, Fate, fate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cooperbench_assets.execution.docker.engine import Engine

PATIENCE_SECONDS: Final = 1.0
"""How long a sweep tries again to remove what the engine would not give up at once."""

Kind = Literal["container", "network", "volume"]


@dataclass(frozen=True, slots=True)
class Belonging:
    """Something on the engine that carries our labels."""

    kind: Kind
    id: str
    name: str
    fate: Fate
    """What became of its owner."""

    described: Mapping[str, str]
    """What it was made for: experiment, setting, seed, pair, attempt, purpose, owner."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, or would do."""

    removed: tuple[Belonging, ...] = ()
    """Of dead owners; gone now, unless it was a dry run."""

    kept: tuple[Belonging, ...] = ()
    """Of living owners, and of owners on other machines."""

    failed: tuple[tuple[Belonging, str], ...] = ()
    """Of dead owners, and why the engine did not remove it."""


def belongings(engine: Engine) -> list[Belonging]:
    """Everything on the engine that carries our labels: containers first, then what they may hold on to.

    Raises:
        InfrastructureError: family ``engine``, if it cannot be asked.
    """
    wanted = {"label": OWNER}
    containers = engine.call("list containers", engine.api.containers, all=True, filters=wanted)
    networks = engine.call("list networks", engine.api.networks, filters=wanted)
    volumes: Any = engine.call("list volumes", engine.api.volumes, filters=wanted)
    found = [_belonging("container", one["Id"], _first_name(one), one) for one in containers]
    found += [_belonging("network", one["Id"], one["Name"], one) for one in networks]
    found += [_belonging("volume", one["Name"], one["Name"], one) for one in volumes.get("Volumes") or []]
    return found


def sweep(engine: Engine, *, dry_run: bool = False) -> Swept:
    """Remove what dead owners have left.

    Args:
        engine: Where to look.
        dry_run: Only say what would be removed.

    Raises:
        InfrastructureError: family ``engine``, if it cannot be asked what is there.
    """
    found = belongings(engine)
    orphans = [one for one in found if one.fate == "dead"]
    kept = tuple(one for one in found if one.fate != "dead")
    if dry_run:
        return Swept(tuple(orphans), kept)
    tried = [(one, _remove(engine, one)) for one in orphans]
    end = time.monotonic() + PATIENCE_SECONDS
    # A container that is still going holds on to its network and its volume.
    while any(problem for _, problem in tried) and time.monotonic() < end:
        time.sleep(PATIENCE_SECONDS / 10)
        tried = [(one, problem and _remove(engine, one)) for one, problem in tried]
    return Swept(
        tuple(one for one, problem in tried if not problem),
        kept,
        tuple((one, problem) for one, problem in tried if problem),
    )


def _belonging(kind: Kind, identifier: str, name: str, content: Mapping[str, Any]) -> Belonging:
    labels: dict[str, str] = content.get("Labels") or {}
    described = {key.removeprefix(f"{PREFIX}."): value for key, value in labels.items() if key.startswith(f"{PREFIX}.")}
    return Belonging(kind, identifier, name, fate(labels), described)


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
