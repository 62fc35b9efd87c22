"""Which room may import which, and what a module says of others: read from the sources, at any depth."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dagster
import pytest

import cooperbench_assets

PACKAGE = Path(cooperbench_assets.__file__).parent

EXECUTION = (
    "execution.errors execution.infra_errors execution.job execution.options execution.processes",
    "execution.shared_folders execution.cell_lock",
    "execution.sandboxes",
    "execution.sandboxes.process execution.sandboxes.docker",
    "execution.worker execution.secret_values execution.consistency",
    "execution.attempts",
    "execution.provenance",
    "execution.planning",
    "execution.runner execution.gold execution.fleet",
    "execution.api",
)
"""Rooms of execution from the ground up; those of one line import only each other and what stands before them."""

DECLARED = {"cooperbench", "docker", "requests", "urllib3", "psutil"}
"""What the worker may import beside the standard library: the harness, the Docker SDK with what it requires, and psutil
where there is no ``/proc``."""


def name_of(file: Path) -> str:
    """A module's name below the package."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in PACKAGE.rglob("*.py") if "libraries" not in file.parts}


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run: not what stands below `if TYPE_CHECKING`."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from running(child)


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports when it runs: ours by their names below the package, others by their first word."""
    found: set[str] = set()
    package = PACKAGE.name
    here = [package, *module.split(".")]
    for node in running(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            above = here[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                below = f"{source}.{name.name}".removeprefix(f"{package}.")
                found.add(f"{package}.{below}" if below in MODULES else source)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    ours = {name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")}
    return frozenset(ours | {name.partition(".")[0] for name in found if not name.startswith(package)})


def everything(module: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        one = ahead.pop()
        if one not in seen:
            seen.add(one)
            ahead += imports(one) if one in MODULES else ()
    return seen


def storey(module: str) -> int | None:
    """Where a module of execution stands, from the ground up."""
    found = [
        (len(room), height)
        for height, rooms in enumerate(EXECUTION)
        for room in rooms.split()
        if module == room or module.startswith(f"{room}.")
    ]
    return max(found)[1] if found else None


def test_no_module_of_execution_imports_from_a_room_above_its_own() -> None:
    wrong = []
    for module in MODULES:
        here = storey(module)
        if here is None:
            assert module == "execution" or not module.startswith("execution."), module
            continue
        wrong += [(module, other) for other in imports(module) if (storey(other) or 0) > here]
    assert wrong == []


@pytest.mark.parametrize("room", ["benchmark", "store", "analysis", "transcripts", "report", "execution"])
def test_rooms_below_the_assets_import_neither_dagster_nor_what_stands_above_them(room: str) -> None:
    above = {"assets", "checks", "automation", "commands", "experiment", "definitions", "cli", "local_runs"}
    for module in MODULES:
        if module.partition(".")[0] == room:
            heads = {name.partition(".")[0] for name in imports(module)}
            assert not heads & {"dagster", *above}, module


def test_checks_find_without_dagster_and_assets_make_events_of_what_they_found() -> None:
    assert [name for name in MODULES if name.startswith("checks") and "dagster" in imports(name)] == []


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.startswith("execution.worker.") or name == "execution.worker"]
)
def test_the_worker_needs_only_the_standard_library_the_harness_and_what_is_declared(module: str) -> None:
    foreign = {name for name in everything(module) if name not in MODULES and "." not in name}
    assert foreign - sys.stdlib_module_names <= DECLARED


PRIVATE_OF_DAGSTER = {
    "assets.check_events": {"AssetCheckEvaluationTargetMaterializationData"},
    "automation.backfills": {"AssetGraphSubset", "BulkActionStatus", "BulkActionsFilter", "PartitionBackfill"},
    "automation.dead_runs": {"SqliteRunStorage"},
    "automation.jobs": {"UnresolvedAssetJobDefinition"},
    "container_runs": {"CheckRunHealthResult", "LaunchRunContext", "WorkerStatus"},
    "dagster_storage": {
        "ConcurrencyClaimStatus",
        "ConfigurableClassData",
        "DagsterSqliteStorage",
        "SqliteEventLogStorage",
        "SqliteRunStorage",
        "SqliteScheduleStorage",
        "_event_logs_directory",
    },
    "local_runs": {"InstanceRef", "RegisteredCodeLocationOrigin", "RemoteRepositoryOrigin"},
    "postgres_storage": {"ConfigurableClassData"},
    "shown_checks": {
        "AssetCheckExecutionRecord",
        "AssetCheckExecutionRecordStatus",
        "PartitionKeyFilter",
        "SqlEventLogStorage",
    },
}
"""Names of Dagster's that are not public, by the modules that need them."""


def test_private_names_of_dagster_are_in_few_modules_and_have_no_public_one_yet() -> None:
    found: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster._"):
                found.setdefault(module, set()).update(name.name for name in node.names)
    assert found == PRIVATE_OF_DAGSTER
    assert [name for names in found.values() for name in names if hasattr(dagster, name)] == []


def test_a_decoder_of_structs_is_made_as_its_module_is_imported() -> None:
    """Two threads that decode a Struct for the first time crash the process, without a word (msgspec 0.22)."""
    late = []
    for module, file in MODULES.items():
        tree = ast.parse(file.read_text())
        made_first = {id(node.value) for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).rpartition(".")[2]
            wanted = [ast.unparse(one.value) for one in call.keywords if one.arg == "type"] if name == "decode" else []
            of_struct = any(not one.startswith("dict[") for one in wanted) or name == "convert"
            if of_struct or (name == "Decoder" and id(call) not in made_first):
                late.append(f"{module}:{call.lineno}")
    assert late == []


ROOMS_OF_FACTS = ("assets", "automation", "benchmark", "execution", "importing", "sharing", "store")


def test_a_text_or_a_list_of_texts_that_modules_share_is_declared_once() -> None:
    declared: dict[tuple[str, str], list[str]] = {}
    for module, file in MODULES.items():
        if module.partition(".")[0] not in ROOMS_OF_FACTS and "." in module:
            continue
        if module == "execution.worker.model_calls":  # It may not import `benchmark.records`, which needs msgspec.
            continue
        for node in ast.parse(file.read_text()).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant | ast.Tuple | ast.Set):
                said = ast.unparse(value)
                if "'" in said and len(said) > len("'mode'"):
                    declared.setdefault((target.id.lstrip("_"), said), []).append(module)
    assert {name: modules for name, modules in declared.items() if len(modules) > 1} == {}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """The functions of a module that say what their arguments are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "Args:" in (ast.get_docstring(node) or ""):
            yield node


def test_a_docstring_explains_arguments_that_there_are() -> None:
    wrong = []
    for module, file in MODULES.items():
        for function in functions(ast.parse(file.read_text())):
            text = (ast.get_docstring(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
            named = set(re.findall(r"^    (\w+):", text, re.MULTILINE))
            given = function.args
            there = {
                one.arg
                for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
                if one
            }
            wrong += [(module, function.name, name) for name in sorted(named - there)]
    assert wrong == []


def resolved(reference: str, module: str) -> bool:
    """Whether a name in a module's docstring is that of a module, from its own room or one around it."""
    around = module.split(".")
    return any(".".join([*around[:depth], reference]) in MODULES for depth in range(len(around), -1, -1))


def test_a_docstring_that_names_a_modules_function_names_a_module_that_is_there() -> None:
    wrong = []
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                said = re.findall(r"(?<!`)`([a-z_][a-z_.]*)\.([a-z_]+)`(?!`)", ast.get_docstring(node) or "")
                named = [place for place, name in said if name not in ("duckdb", "json", "md", "patch", "sh", "yaml")]
                ours = [one for one in named if one.partition(".")[0] not in {"scipy", *sys.stdlib_module_names}]
                wrong += [(module, one) for one in ours if not resolved(one, module)]
    assert wrong == []


def test_what_a_docstring_says_belongs_in_another_module_names_one_that_is_there() -> None:
    wrong = []
    for module, file in MODULES.items():
        said = ast.get_docstring(ast.parse(file.read_text())) or ""
        elsewhere = said.partition("What does not:")[2].partition("\n\n")[0]
        for remark in re.findall(r"\(([^()]*``[^()]*)\)", elsewhere):
            names = re.findall(r"``([a-z_.]+)``", remark)
            wrong += [(module, name) for name in names if not resolved(name, module)]
    assert wrong == []
