"""status: one row a cell, planned or in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from cooperbench_assets.cli import NOT_IN_ORDER
from cooperbench_assets.commands.context import (
    Experiments,
    NotLoadedError,
    choose,
    find_project,
    read_experiments,
)
from cooperbench_assets.commands.output import (
    OUTCOME_STYLES,
    console,
    dollars,
    emit,
    emit_json,
    new_table,
    note,
    number,
    warn,
)
from cooperbench_assets.store.cells import Cell

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rich.table import Table

    from cooperbench_assets.project import Project
    from cooperbench_assets.spec import ExperimentSpec

WIDE: Final = 90
"""Columns from which the table has room for two blanks between its columns."""

PLANNED: Final = {True: "", False: "not planned", None: "not loaded"}
"""What stands behind a cell that its experiment plans, does not plan, and where that is not known."""

_COUNTS: Final = ("results", "evals", "pass", "fail", "infra_error", "unevaluated", "missing")
_SQL: Final = f"""
    SELECT experiment, setting, seed, {", ".join(f'"{name}"' for name in _COUNTS)}, cost_usd,
           CASE WHEN checks > 0 THEN checks_failed END AS checks_failed
    FROM cells ORDER BY experiment, setting, seed
"""  # noqa: S608 - names of this module


@dataclass(frozen=True, slots=True)
class CellStatus:
    """One cell. What is not known, because the cell is not in the results store yet, is None."""

    cell: Cell
    planned: bool | None
    """The experiment asks for it; None where its defs.yaml cannot be used."""

    expected: int | None
    """Pairs of the subset; None where that cannot be read."""

    stored: Mapping[str, Any] | None
    """Its row of the view `cells`."""

    def as_dict(self) -> dict[str, Any]:
        """The cell as JSON says it."""
        row = {**asdict(self.cell), "planned": self.planned, "expected": self.expected}
        stored = self.stored or {}
        return {**row, **{name: stored.get(name) for name in (*_COUNTS, "cost_usd", "checks_failed")}}


@click.command()
@click.argument("experiment", required=False)
@click.option("--json", "as_json", is_flag=True, help="A list of objects, one a cell.")
def status(experiment: str | None, as_json: bool) -> None:
    """Show every cell: what is planned, what is there, what came out.

    A row for each planned cell of EXPERIMENT (of all experiments without it), and for each cell in the results store
    that is not planned any more. A dash (null in JSON) says that the cell is not in the store yet: materialize it.
    Where a defs.yaml cannot be used, standard error says why, the experiment's rows are those of the store, and the
    exit code is 1 (2 if it is EXPERIMENT).

    \b
    expected              pairs of the subset
    results, evals        pairs with a readable result and verdict
    pass, fail            by upstream's verdict
    infra(_error)         infrastructure failed, not the agents: neither pass nor fail
    uneval(uated)         no verdict
    missing               nothing readable
    checks(_failed)       asset checks of the cell that did not pass
    """
    project = find_project()
    found = read_experiments(project)
    in_store = stored(project)
    rows = look(project, _asked_about(found, in_store, experiment), in_store, experiment)
    if as_json:
        emit_json([row.as_dict() for row in rows])
    else:
        show(rows)
        hint(rows)
    if experiment in found.broken:
        raise NotLoadedError(found.broken[experiment])
    if experiment is None and found.broken:
        for sentence in found.broken.values():
            warn(f"not loaded: {sentence}")
        raise click.exceptions.Exit(NOT_IN_ORDER)


def _asked_about(found: Experiments, in_store: Collection[Cell], name: str | None) -> Experiments:
    """The experiments of which cells are shown."""
    if name is None or name in found.broken:
        return found if name is None else Experiments(broken=found.broken)
    if name not in found.usable and name in {cell.experiment for cell in in_store}:
        return Experiments()  # Its folder is gone, and its rows are not.
    return Experiments({name: choose(found, name)})


def look(
    project: Project,
    experiments: Experiments,
    in_store: Mapping[Cell, dict[str, Any]],
    only: str | None = None,
) -> list[CellStatus]:
    """Every cell of the experiments, in the order of their files; then those that only the store knows.

    Args:
        project: The project.
        experiments: The experiments asked about.
        in_store: The rows of the store.
        only: The one experiment asked about, so that cells of others in the store are left out.
    """
    rows = dict(in_store)
    found: list[CellStatus] = []
    expected: dict[str, int | None] = {}
    for name, spec in experiments.usable.items():
        expected[name] = _expected(project, name, spec)
        for planned in spec.cells(name):
            found.append(CellStatus(planned.cell, True, expected[name], rows.pop(planned.cell, None)))
    for cell, row in rows.items():
        if only in (None, cell.experiment):
            planned_at_all = None if cell.experiment in experiments.broken else False
            found.append(CellStatus(cell, planned_at_all, expected.get(cell.experiment), row))
    return found


def stored(project: Project) -> dict[Cell, dict[str, Any]]:
    """The cells in the results store; none where there is no store yet.

    Raises:
        StoreError: if there is a results store that cannot be read.
    """
    from cooperbench_assets.store.errors import StoreMissingError
    from cooperbench_assets.store.read import query

    try:
        rows = query(project.database, _SQL).to_dicts()
    except StoreMissingError:
        return {}
    return {Cell(row["experiment"], row["setting"], row["seed"]): row for row in rows}


def _expected(project: Project, name: str, spec: ExperimentSpec) -> int | None:
    from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError

    try:
        return len(ExperimentContext(name, spec, project).subset_at_hand().pairs)
    except MissingInputError as error:
        note(f"{error}")
        return None


def show(rows: Sequence[CellStatus]) -> None:
    """The cells as one table an experiment."""
    gap = 2 if console().width >= WIDE else 1
    for n, (experiment, cells) in enumerate(groupby(rows, key=lambda row: row.cell.experiment)):
        if n:
            click.echo()
        emit(Text(experiment, style="bold"))
        emit(_table(cells, gap))


def _table(rows: Iterable[CellStatus], gap: int) -> Table:
    table = new_table(
        *("setting", "seed>", "results>", "evals>", "pass>", "fail>", "infra>", "uneval>", "missing>", "cost USD>"),
        *("checks>", ""),
        gap=gap,
    )
    for row in rows:
        values = row.as_dict()
        table.add_row(
            Text(row.cell.setting),
            Text(str(row.cell.seed)),
            _of_expected(values["results"], row.expected),
            _of_expected(values["evals"], row.expected),
            *(number(values[name], OUTCOME_STYLES[name]) for name in _COUNTS[2:]),
            dollars(values["cost_usd"]),
            number(values["checks_failed"], "red"),
            Text(PLANNED[row.planned], style="yellow"),
        )
    return table


def _of_expected(found: int | None, expected: int | None) -> Text:
    text = number(found)
    if found is None or expected is None:
        return text
    return Text(f"{found}/{expected}", style="" if found == expected else "yellow")


def hint(rows: Sequence[CellStatus]) -> None:
    """What to do about cells that are not in the store, and where failed checks are explained."""
    if not rows:
        note("No experiment yet. Import runs with: cooperbench-assets import-logs --help")
    for experiment in dict.fromkeys(row.cell.experiment for row in rows if row.stored is None):
        note(f"{experiment}: cells with – are not in the store yet: cooperbench-assets materialize {experiment}")
    if any(row.as_dict()["checks_failed"] for row in rows):
        note('Failed checks: cooperbench-assets query "FROM check_results WHERE NOT passed"')
