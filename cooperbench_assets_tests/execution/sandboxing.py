"""Sandboxes of the toy task for tests: upstream's own functions over them, and fixtures to import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cooperbench_assets.execution.sandboxes.base import SandboxOptions
from cooperbench_assets.execution.sandboxes.process import bubblewrap
from cooperbench_assets.execution.sandboxes.process.backend import ProcessBackend, ProcessSandbox
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy, make_toy
from cooperbench_assets_tests.services import missing

ISOLATIONS = ("bubblewrap", "subprocess")


@pytest.fixture(scope="module")
def toy(upstream: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> str:
    if request.param == "bubblewrap" and (why_not := bubblewrap.probe()):
        missing("bubblewrap", why_not)
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.glob("**/sandbox-*"))


class Evaluations:
    """Upstream's own functions, with our backend where they look for one."""

    def __init__(self, toy: Toy, scratch: Path, isolation: str, **options: Any) -> None:
        self.toy = toy
        self.backend = ProcessBackend(toy.task, scratch, SandboxOptions(isolation=isolation, **options))

    def solo(self, patch: str, features: tuple[int, int] = (1, 2)) -> dict[str, Any]:
        return self._call("test_solo", features, patch=patch)

    def merged(self, patch1: str, patch2: str, features: tuple[int, int] = (1, 2)) -> dict[str, Any]:
        return self._call("test_merged", features, patch1=patch1, patch2=patch2)

    def _call(self, name: str, features: tuple[int, int], **patches: str) -> dict[str, Any]:
        from cooperbench.eval import sandbox as upstream

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(upstream, "get_backend", lambda name: self.backend)
            result: dict[str, Any] = getattr(upstream, name)(
                REPO, TASK, *features, backend="process", dataset_dir=self.toy.dataset, **patches
            )
        return result


@pytest.fixture
def evaluations(toy: Toy, tmp_path: Path, isolation: str) -> Evaluations:
    return Evaluations(toy, tmp_path, isolation)


def sandbox(toy: Toy, scratch: Path, isolation: str, **options: Any) -> ProcessSandbox:
    backend = ProcessBackend(toy.task, scratch, SandboxOptions(isolation=isolation, **options))
    return backend.create_sandbox("any/image:task1")
