"""Which cells each experiment keeps, remembered beside its partition tables.

What belongs here: ``<tables>/<experiment>/planned.json``. Remembering it there lets a publish that was told no
plan, and one that builds anew, leave out what an experiment has dropped, though its Parquet files are still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from cooperbench_assets.faultpoints import hit
from cooperbench_assets.files import write_atomically
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.errors import StoreError
from cooperbench_assets.store.files import make_folders
from cooperbench_assets.store.units import Value, cell_of, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

FILE: Final = "planned.json"

Plans: TypeAlias = "Mapping[str, Collection[Cell]]"
"""The cells that an experiment keeps, by experiment; one that is not named keeps all it has."""


class _File(msgspec.Struct, frozen=True):
    experiment: str
    cells: list[tuple[str, int]]


_FILE: Final = msgspec.json.Decoder(_File)


def remember(tables: Path, plans: Plans) -> None:
    """Keep the plans of these experiments; others stay as they are. For one process at a time."""
    for experiment, cells in plans.items():
        path = tables / quote(experiment) / FILE
        data = msgspec.json.encode(_File(experiment, sorted((cell.setting, cell.seed) for cell in cells)))
        if _bytes(path) != data:
            make_folders(path.parent)
            for left in path.parent.glob(f".{FILE}*"):
                left.unlink()
            hit("publish:plan")
            write_atomically(path, data)
            hit("publish:plan-written")


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def recall(tables: Path, experiment: str | None = None) -> dict[str, frozenset[Cell]]:
    """The plans that were kept, by experiment; of one experiment only, if told so.

    Raises:
        StoreError: if one cannot be read.
    """
    plans = {}
    for path in sorted(tables.glob(f"{'*' if experiment is None else quote(experiment)}/{FILE}")):
        try:
            kept = _FILE.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(f"{path} cannot be read ({error}); delete it and publish with a plan") from error
        plans[kept.experiment] = frozenset(Cell(kept.experiment, *cell) for cell in kept.cells)
    return plans


def keeps(plans: Plans, experiment: str, key: Mapping[str, Value]) -> bool:
    """Whether a unit's rows belong in the store.

    A cell's (and a cell's checks') do if its experiment plans the cell. What belongs to a whole experiment does
    while the experiment plans any cell.
    """
    if experiment not in plans:
        return True
    cell = cell_of(key)
    return bool(plans[experiment]) if cell is None else cell in plans[experiment]
