"""Where things lie: the project's root, and the run-time folders below it.

What belongs here: paths, resolved once. What does not: what is in them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cooperbench_assets.errors import UserError

ROOT_VARIABLE = "COOPERBENCH_ASSETS_ROOT"
"""Names the project's root where it is not the checkout that the package runs from."""

INSTANCE_VARIABLE = "COOPERBENCH_ASSETS_INSTANCE"
"""Names the folder whose dagster.yaml describes the Dagster instance, where it is not the project's own."""


class ProjectError(UserError):
    """The project's root cannot be found."""


@dataclass(frozen=True, slots=True)
class Project:
    """The folders of one project."""

    root: Path

    @property
    def defs(self) -> Path:
        """One folder an experiment, each with a defs.yaml."""
        return self.root / "cooperbench_assets" / "defs"

    @property
    def data(self) -> Path:
        """Run-time files, ignored by git."""
        return self.root / "data"

    @property
    def tables(self) -> Path:
        """Partition tables (Parquet)."""
        return self.data / "tables"

    @property
    def database(self) -> Path:
        """The results store, published read-only."""
        return self.data / "results.duckdb"

    @property
    def report(self) -> Path:
        """Figures and pages, a folder an experiment."""
        return self.data / "report"

    @property
    def dagster(self) -> Path:
        """Storage of the project's own Dagster instance, as its dagster.yaml says."""
        return self.data / "dagster"

    @property
    def instance(self) -> Path:
        """The folder whose dagster.yaml describes the Dagster instance: the project's, unless a variable says else.

        Raises:
            ProjectError: if the variable names a folder without one.
        """
        named = os.environ.get(INSTANCE_VARIABLE)
        if named and not (Path(named) / "dagster.yaml").is_file():
            raise ProjectError(f"no dagster.yaml in {named} ({INSTANCE_VARIABLE})")
        return Path(named).resolve() if named else self.root

    def resolve(self, path: str) -> Path:
        """A path of defs.yaml: absolute, below the home folder (~), or relative to the root."""
        return self.root / Path(path).expanduser()

    def relative(self, path: Path) -> str:
        """`path` as a person would write it from the root; absolute where it lies elsewhere."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def find_project() -> Project:
    """The project that the variable, the current folder or the package's own checkout names, in this order.

    Raises:
        ProjectError: if none of them holds a dagster.yaml and this package's folder.
    """
    if (named := named_project()) is not None:
        return named
    for candidate in (Path.cwd(), *Path.cwd().parents, Path(__file__).parents[1]):
        if _is_project(candidate):
            return Project(candidate.resolve())
    raise ProjectError(f"no project here: go to a checkout of cooperbench-assets, or name one in {ROOT_VARIABLE}")


def named_project() -> Project | None:
    """The project that the variable names, for code that is installed elsewhere; None if it is not set.

    Raises:
        ProjectError: if it names a folder without a dagster.yaml and this package's folder.
    """
    named = os.environ.get(ROOT_VARIABLE)
    if not named:
        return None
    if not _is_project(Path(named)):
        raise ProjectError(f"no project at {named} ({ROOT_VARIABLE})")
    return Project(Path(named).resolve())


def _is_project(folder: Path) -> bool:
    return (folder / "dagster.yaml").is_file() and (folder / "cooperbench_assets" / "defs").is_dir()
