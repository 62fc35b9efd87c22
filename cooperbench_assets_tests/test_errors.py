"""Which errors are written for people, and which are between modules of this package."""

from __future__ import annotations

import ast
import builtins

from cooperbench_assets_tests.test_rooms import MODULES

INTERNAL = {
    "execution.fleet.archive": {"ArchiveError"},
    "benchmark.jsonfiles": {"BadFileError"},
    "demo.agents": {"InjectedFaultError"},
    "execution.api": {"Terminated"},
    "execution.sandboxes.commands": {"DeadlineError"},
    "execution.sandboxes.docker.images": {"_PullError"},
    "execution.sandboxes.docker.session": {"ContainerGoneError"},
    "execution.worker.agent_containers": {"ContainerLimit"},
    "execution.worker.child": {"Terminated"},
    "execution.worker.harness": {"HarnessImportError"},
    "execution.worker.wire": {"WireError"},
    "local_runs": {"Cancelled"},
    "store.errors": {"FrameError"},
    "store.files": {"FolderGoneError"},
    "viewer.library": {"NotThere"},
}
"""Errors that a module of this package handles; one that gets as far as a person is a mistake of ours."""


def test_every_error_is_for_people_or_between_modules() -> None:
    found: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            kinds = [getattr(builtins, base, None) for base in bases]
            if any(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
                assert isinstance(node, ast.ClassDef)
                found.setdefault(module, set()).add(node.name)
    assert found.pop("errors") == {"UserError"}
    assert found == INTERNAL
