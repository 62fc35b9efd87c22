"""An experiment bound to a project: its subset, its folders, and its cells as they are on disk.

What belongs here: the way from a name in defs.yaml to a reading of a cell. What does not: Dagster, and how the
readings are judged, checked or stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cooperbench_assets.benchmark.jsonfiles import BadFileError, read_bytes
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.pairs import Subset, SubsetError, find_subset, load_subset
from cooperbench_assets.checks.finding import CellView
from cooperbench_assets.dataset_module import DatasetModuleError, build_dataset
from cooperbench_assets.errors import UserError
from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.execution.secret_values import redactor
from cooperbench_assets.spec import ExperimentError, load_experiment
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS, overlaps_of
from cooperbench_assets.store.redacted_frames import without_secrets
from cooperbench_assets.store.rows import CellSettings, cell_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.logtree import RunReading
    from cooperbench_assets.checks.finding import Finding
    from cooperbench_assets.execution.runner.progress import Progress
    from cooperbench_assets.project import Project
    from cooperbench_assets.redaction import Redactor
    from cooperbench_assets.spec import CellSpec, ExperimentSpec
    from cooperbench_assets.store.cells import Cell


class MissingInputError(UserError):
    """Something that an asset needs is not on disk; the message names it and the remedy."""


@dataclass(slots=True)
class CellReport:
    """What the assets of one cell said of it when it was read."""

    spec: CellSpec
    metadata: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By asset that was materialised."""

    failed_checks: list[tuple[str, Finding]] = field(default_factory=list)
    """Asset and check, with what was found."""

    problem: str | None = None
    """Why it was not read to its end, and how to fix it."""


@dataclass(frozen=True)
class ExperimentContext:
    """One experiment in one project."""

    name: str
    spec: ExperimentSpec
    project: Project
    listener: Callable[[Cell, Progress], None] | None = None
    """Called with the progress of a stage of a cell that runs in this process. An `Exception` that it raises is logged,
    anything else ends the stage."""

    on_read: Callable[[CellReport], None] | None = None
    """Called with each cell that is read in this process; what it raises ends the reading."""

    @property
    def logs(self) -> Path:
        """Root of the experiment's log trees."""
        return self.project.resolve(self.spec.logs)

    @property
    def dataset(self) -> Path:
        """Root of the dataset."""
        return self.project.resolve(self.spec.dataset)

    @property
    def image_lock(self) -> Path:
        """The lock file of the experiment's task images."""
        return self.project.data / "task_images" / f"{self.name}.lock.json"

    @property
    def redactor(self) -> Redactor:
        """Takes the experiment's secrets, and what looks like one, out of texts."""
        return redactor_of(self.spec)

    @cached_property
    def cells(self) -> tuple[CellSpec, ...]:
        """The planned cells."""
        return self.spec.cells(self.name)

    @cached_property
    def planned(self) -> frozenset[Cell]:
        """Keys of the planned cells."""
        return frozenset(cell.cell for cell in self.cells)

    def planned_now(self) -> frozenset[Cell] | None:
        """Keys of the cells that defs.yaml plans by now; None while it is broken or gone.

        The file may have been edited since this process loaded it: a process that knows an older plan must not take out
        of the store what one with the newer plan has published.
        """
        try:
            spec = load_experiment(self.project.defs / self.name / "defs.yaml")
        except ExperimentError:
            return None
        return None if spec is None else frozenset(cell.cell for cell in spec.cells(self.name))

    def subset(self) -> Subset:
        """The experiment's subset, read anew. A dataset that a module makes is made where it is missing.

        Raises:
            MissingInputError: if there is none, with those that are there; or why the dataset cannot be made.
        """
        if self.spec.dataset_module is not None:
            try:
                build_dataset(self.spec.dataset_module, self.dataset)
            except DatasetModuleError as error:
                raise MissingInputError(f"{self.name}: {error}") from error
        return self.subset_at_hand()

    def subset_at_hand(self) -> Subset:
        """The experiment's subset if it is there; nothing is made.

        Raises:
            MissingInputError: if there is none; the message lists those that are there.
        """
        if self.spec.dataset_module is not None and not self.dataset.is_dir():
            raise MissingInputError(f"{self.name}: its dataset is made when it is first materialised")
        named = self.spec.subset
        try:
            path = find_subset(str(self.project.resolve(named)) if named.endswith(".json") else named, self.dataset)
            return load_subset(path, self.dataset)
        except SubsetError as error:
            raise MissingInputError(f"{self.name}: {error}") from error

    def run_dir(self, cell: CellSpec) -> Path:
        """The run folder of a cell; it need not be there."""
        return self.logs / cell.run_name

    def view(self, cell: CellSpec, subset: Subset | None = None) -> CellView:
        """A cell as it is on disk: its tree read, judged and made into tables.

        Raises:
            MissingInputError: if the subset or the run folder is not there.
        """
        run_dir = self.run_dir(cell)
        if not run_dir.is_dir():
            raise MissingInputError(
                f"{cell.cell}: no run folder {self.project.relative(run_dir)}; "
                "correct logs: or run_name: in defs.yaml, or put the run there"
            )
        subset = subset or self.subset()
        reading = read_run(run_dir, cell.mode)
        accepted = self.spec.accepted_in(cell.cell)
        frames = cell_frames(
            cell.cell,
            subset,
            reading,
            logs_root=self.logs,
            settings=CellSettings(
                planned=cell.cell in self.planned,
                run_name=cell.run_name,
                execution=self.spec.execution,
                messaging=cell.messaging,
                # A run that was made here says it in its record; of others a prompt, or a person's word, that they did.
                git=cell.git or None,
                gold=cell.gold,
                analysis=self.spec.analysis.text() if self.spec.analysis else None,
            ),
            accepted=accepted,
            read_at=datetime.now(UTC).replace(tzinfo=None),
        )
        redactor = self.redactor
        frames = {name: without_secrets(frame, redactor) for name, frame in frames.items()}
        frames[PATCH_OVERLAPS.name] = overlaps_of(_kept_patches(cell.cell, subset, reading))
        whole = read_provenance(run_dir).get("asked_whole") is not False
        return CellView(cell, subset, accepted, self.spec.execution != "none", reading, frames, asked_whole=whole)


def redactor_of(spec: ExperimentSpec, variables: Mapping[str, str] | None = None) -> Redactor:
    """A redactor that knows the secrets of an experiment, and of this process or these `variables` in its place."""
    named = (*spec.secrets, *filter(None, [spec.alerts.webhook_variable]))
    return redactor(named, spec.environment, spec.agent_config, spec.redis_url, variables)


def _kept_patches(cell: Cell, subset: Subset, reading: RunReading) -> Iterator[tuple[dict[str, object], str, str]]:
    """The two patches of every planned pair that still has both: key of the pair, first, second."""
    key = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed}
    for pair in subset.pairs:
        found = reading.pairs.get(pair)
        if reading.mode == "solo" or found is None or found.result is None:
            continue
        texts = [_text(found.folder / f"agent{feature}.patch") for feature in pair.features]
        if texts[0] is not None and texts[1] is not None:
            yield {**key, "pair": pair.name}, texts[0], texts[1]


def _text(path: Path) -> str | None:
    try:
        return read_bytes(str(path)).decode(errors="replace")
    except BadFileError:
        return None
