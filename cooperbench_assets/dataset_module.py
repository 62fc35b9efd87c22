"""A dataset that a Python module makes, named in defs.yaml as ``dataset_module``.

What belongs here: what such a module offers, and calling it. What does not: any such module.

It has a function ``build_dataset(root: Path)`` that makes the dataset at `root` where it is missing or out of date, and
is called before each use, by several processes at once. It may have a function ``eval_environment(pairs, *, mode,
messaging, seed, agent_config) -> dict[str, str]``: variables for the test programs of one cell, whose pairs are given
by their names. It is imported into our own processes, so it stands in the environment that Dagster runs in.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cooperbench_assets.execution.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.spec import CellSpec, ExperimentSpec


class DatasetModuleError(LaunchError):
    """A module that makes a dataset is missing or fails; the message names it and why."""


def build_dataset(module: str, root: Path) -> None:
    """Have a module make its dataset at `root`, or leave it alone where it is as it should be.

    Raises:
        DatasetModuleError: if the module cannot be imported, has no ``build_dataset``, or that fails.
    """
    build = _function(module, "build_dataset")
    if build is None:
        raise DatasetModuleError(f"dataset_module: {module} has no function build_dataset(root); add it")
    _call(module, build, root)


def eval_environment(module: str, spec: ExperimentSpec, cell: CellSpec, subset: Subset) -> dict[str, str]:
    """Variables for the test programs of a cell; none where the module has no ``eval_environment``.

    Raises:
        DatasetModuleError: if the module cannot be imported, or that function fails.
    """
    variables = _function(module, "eval_environment")
    if variables is None:
        return {}
    names = [pair.name for pair in subset.pairs]
    given = {"mode": cell.mode, "messaging": cell.messaging, "seed": cell.cell.seed, "agent_config": spec.agent_config}
    return dict(_call(module, variables, names, **given))


def _function(module: str, name: str) -> Callable[..., Any] | None:
    try:
        function: Callable[..., Any] | None = getattr(import_module(module), name, None)
    except Exception as error:  # Whatever it does as it is imported.
        raise DatasetModuleError(
            f"dataset_module: {module} cannot be imported ({type(error).__name__}: {error}); correct its name, or "
            "install it where Dagster runs"
        ) from error
    return function


def _call(module: str, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
    try:
        return function(*given, **named)
    except Exception as error:
        raise DatasetModuleError(f"dataset_module: {module}.{function.__name__}: {error}") from error
