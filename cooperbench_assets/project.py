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
        """Storage of the Dagster instance, as dagster.yaml says."""
        return self.data / "dagster"

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
    named = os.environ.get(ROOT_VARIABLE)
    candidates = [Path(named)] if named else [Path.cwd(), *Path.cwd().parents, Path(__file__).parents[1]]
    for candidate in candidates:
        if (candidate / "dagster.yaml").is_file() and (candidate / "cooperbench_assets" / "defs").is_dir():
            return Project(candidate.resolve())
    raise ProjectError(
        f"no project at {named} ({ROOT_VARIABLE})"
        if named
        else f"no project here: go to a checkout of cooperbench-assets, or name one in {ROOT_VARIABLE}"
    )
