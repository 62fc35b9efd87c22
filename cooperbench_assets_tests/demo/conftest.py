"""The demo's dataset, and the harness with the scripted agents registered."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cooperbench_assets.demo import DEMO_MODULE, build_dataset
from cooperbench_assets.demo import dataset as build
from cooperbench_assets_tests.demo.bench import Backend, Bench


@pytest.fixture(scope="package")
def dataset(_written_anew: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


@pytest.fixture(scope="package", autouse=True)
def _written_anew(datasets_written: Callable[[Path, str], None]) -> Iterator[None]:
    """No dataset here is a copy of another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_write", datasets_written)
        yield


@pytest.fixture
def bench(dataset: Path, tmp_path: Path) -> Bench:
    return Bench(dataset, tmp_path / "bench")


@pytest.fixture(scope="session")
def harness(upstream: ModuleType) -> ModuleType:
    """Upstream's package with the demo's agents."""
    # Upstream looks for agents only once, and another test of this process may have imported it before.
    importlib.import_module(DEMO_MODULE)
    return upstream


@pytest.fixture
def evaluating(harness: ModuleType, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Upstream's evaluation, run in plain copies of the checkouts."""
    monkeypatch.setattr(harness.eval.sandbox, "get_backend", lambda name: Backend(bench.dataset, bench.folder))
    return harness


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
