"""The demo's dataset, and the harness with the scripted agents registered."""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cooperbench_assets.demo import DEMO_MODULE, build_dataset
from cooperbench_assets_tests.demo.bench import Backend, Bench


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


@pytest.fixture
def bench(dataset: Path, tmp_path: Path) -> Bench:
    return Bench(dataset, tmp_path / "bench")


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    """Upstream's package as its own entry points import it, with the demo's agents."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        patch.setenv("COOPERBENCH_EXTERNAL_AGENTS", DEMO_MODULE)
        import cooperbench.eval.sandbox
        import cooperbench.runner.coop
        import cooperbench.runner.solo

        # Another test of this process may have imported the package before, and it looks for agents only once.
        importlib.import_module(DEMO_MODULE)
    return cooperbench


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
