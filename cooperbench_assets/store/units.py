"""Units: what is replaced at once in the partition tables and in the results store, and where it lies.

What belongs here: names, paths, and the record in ``current.json``. What does not: reading and writing
(``store.partition_tables``).

A unit lies in ``<tables>/<experiment>/<kind>/<part>/…``. Its ``current.json`` names the one content folder
(``@<hash>-<token>``, beside it) that counts. Unit folders are never nested in one another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote

import msgspec

from cooperbench_assets.store.cells import Cell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Value: TypeAlias = str | int | None
"""A value of a key column."""

POINTER: Final = "current.json"
"""The file that says which content folder of a unit counts; renamed into place, never written over."""

CONTENT_MARK: Final = "@"
"""First character of a content folder. `quote` never lets a component begin with it."""

_PLAIN = re.compile(r"[A-Za-z0-9_.\-]")
_LONGEST: Final = 200


def quote(text: str) -> str:
    """`text` as one path component: all but ``A-Z a-z 0-9 _ . -`` as ``%XX`` of its UTF-8 bytes.

    A leading dot, and the first letter of ``current.json``, are written as ``%XX`` too. `unquote` of urllib
    turns it back.

    Raises:
        ValueError: if `text` is empty, no valid Unicode, has a NUL, or is longer than 200 bytes when quoted.
    """
    if not text or "\0" in text:
        raise ValueError(f"{text!r} cannot name a folder of the partition tables; rename it")
    try:
        parts = [_quote_character(character) for character in text]
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is not valid Unicode and cannot name a folder; rename it") from None
    if parts[0] == "." or text == POINTER:
        parts[0] = f"%{ord(text[0]):02X}"
    quoted = "".join(parts)
    if len(quoted) > _LONGEST:
        raise ValueError(f"{text[:40]!r}… is too long for a folder of the partition tables; shorten it")
    return quoted


def _quote_character(character: str) -> str:
    if _PLAIN.fullmatch(character):
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode())


@dataclass(frozen=True, slots=True)
class Unit:
    """What is replaced at once: a cell, an asset's check results, an analysis table of an experiment."""

    experiment: str
    kind: str
    """``cells``, ``checks``, ``analysis``, …: the folder below the experiment's."""

    parts: tuple[str, ...]
    """What tells this unit from others of its kind; the folders below the kind's."""

    key: tuple[tuple[str, Value], ...]
    """The columns and values that every row of the unit carries, and that no row of another unit does."""

    @property
    def name(self) -> str:
        """``<experiment>/<kind>/<part>/…``, each part quoted: the unit's path and its id in the store."""
        return "/".join(map(quote, (self.experiment, self.kind, *self.parts)))

    def folder(self, tables: Path) -> Path:
        """The unit's folder below the root of the partition tables."""
        return tables / self.name

    @classmethod
    def of(cls, experiment: str, kind: str, *parts: str, key: Mapping[str, Value]) -> Unit:
        """A unit of any kind; `key` must name exactly the key columns of its tables."""
        return cls(experiment, kind, parts, tuple(key.items()))


def cell_unit(cell: Cell) -> Unit:
    """The unit of a cell's tables."""
    key: dict[str, Value] = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed}
    return Unit.of(cell.experiment, "cells", cell.setting, str(cell.seed), key=key)


def check_unit(experiment: str, asset: str, cell: Cell | None = None) -> Unit:
    """The unit of the check results of one asset, of one of its cells where the asset has cells."""
    key: dict[str, Value] = {"experiment": experiment, "setting": None, "seed": None, "asset": asset}
    if cell is None:
        return Unit.of(experiment, "checks", asset, "all", key=key)
    key |= {"setting": cell.setting, "seed": cell.seed}
    return Unit.of(experiment, "checks", asset, "cells", cell.setting, str(cell.seed), key=key)


def analysis_unit(experiment: str, table: str) -> Unit:
    """The unit of one analysis table of an experiment; the table's key is ``("experiment",)``."""
    return Unit.of(experiment, "analysis", table, key={"experiment": experiment})


def parse_name(name: str) -> tuple[str, ...]:
    """Experiment, kind and parts that a unit's name stands for."""
    return tuple(map(unquote, name.split("/")))


def cell_of(key: Mapping[str, Value]) -> Cell | None:
    """The cell that a unit with this key belongs to; None for a unit of a whole experiment."""
    experiment, setting, seed = (key.get(name) for name in ("experiment", "setting", "seed"))
    if isinstance(experiment, str) and isinstance(setting, str) and isinstance(seed, int):
        return Cell(experiment, setting, seed)
    return None


def key_problem(name: str, key: Mapping[str, Value]) -> str | None:
    """What is wrong with a unit whose key is not the one that its name stands for; None if they agree.

    Rows are counted and deleted by key: of two units with one key, each would count and remove the other's rows.
    """
    experiment, *parts = parse_name(name)
    cell = cell_of(key)
    place = [] if cell is None else [cell.setting, str(cell.seed)]
    if parts[:1] == ["cells"]:
        agrees = bool(place) and parts[1:] == place
    elif parts[:1] == ["checks"]:
        agrees = parts[1:] == [key.get("asset"), *(["cells", *place] if place else ["all"])]
    else:
        agrees = not place or parts[-2:] == place
    if agrees and key.get("experiment") == experiment:
        return None
    found = ", ".join(f"{column} {value!r}" for column, value in key.items() if value is not None)
    return f"unit {name} has the key of another one ({found or 'none'})"


class TableRecord(msgspec.Struct, frozen=True):
    """One Parquet file of a unit."""

    rows: int
    bytes: int
    sha256: str
    """Of the file."""

    columns_sha256: str
    """Of the column names and types, as `store.content_hash.columns_sha256` gives it."""


class Record(msgspec.Struct, frozen=True):
    """What ``current.json`` says. Unknown keys are tolerated."""

    unit: str
    key: dict[str, str | int | None]
    schema_version: int
    content_sha256: str
    folder: str
    tables: dict[str, TableRecord]
    written_at: str
    """When the content last changed: UTC, ISO 8601."""

    imported: bool = False
    """Another machine made it: it stays in the store though no plan here names its cell."""

    @property
    def rows(self) -> dict[str, int]:
        """Rows by table."""
        return {name: table.rows for name, table in self.tables.items()}
