"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import importlib
import os
import shutil
import tarfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from alembic.config import Config

    from cooperbench_assets.store.schema import Table
    from cooperbench_assets_tests.workers import ByPlace

# For workers and all that they start: tables here have a few rows, and waking a thread for each core costs more.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

SHARED_MEMORY = Path("/dev/shm")
LARGE = 8 * 2**30


def _holds_files_of_tests() -> bool:
    """Whether the memory that Linux gives as a folder is there, large, and has its programs run."""
    if not os.access(SHARED_MEMORY, os.W_OK) or shutil.disk_usage(SHARED_MEMORY).free < LARGE:
        return False
    return not os.statvfs(SHARED_MEMORY).f_flag & os.ST_NOEXEC


# What tests and all that they start write is synced thousands of times and thrown away: a third of the time on a disk.
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and _holds_files_of_tests():
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(SHARED_MEMORY)

# A busy machine is no reason to fail: no example has a deadline, and slow generation is none of our business.
# CI draws the same examples every time, so that it is about the change alone; `make test` draws new ones.
settings.register_profile(
    "steady", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

LONGEST_FIRST = ("browser", "engine", "slow")
"""Marks of tests that begin first, so that no worker is alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of the longest tests first; with `--dist loadfile` each free worker takes the next file."""
    ranks = dict.fromkeys((item.path for item in items), len(LONGEST_FIRST))
    for item in items:
        found = [n for n, mark in enumerate(LONGEST_FIRST) if item.get_closest_marker(mark)]
        ranks[item.path] = min(ranks[item.path], *found, len(LONGEST_FIRST))
    items.sort(key=lambda item: ranks[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByPlace | None:
    """With `--dist loadfile`, the tests of a folder that share one place go to one worker, too."""
    if config.getvalue("dist") != "loadfile":
        return None
    from cooperbench_assets_tests.workers import ByPlace

    return ByPlace(config, log)


SHARED = Path(__file__).parents[2] / "shared" / "real-logs"
"""Real logs lie beside the checkout on the maintainers' machines, and nowhere else."""


@pytest.fixture(scope="session", autouse=True)
def _slots_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A state folder for each worker: no test waits for slots that a person's runs or another worker's tests hold."""
    state = tmp_path_factory.mktemp("state")
    (state / "slots.toml").write_text("agents = 4\nevaluations = 2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOPERBENCH_ASSETS_STATE", str(state))
        yield


@pytest.fixture(scope="session", autouse=True)
def _migrations_read_once() -> Iterator[None]:
    """Dagster reads its hundred migrations for each file of a storage that it makes: half of what an instance costs."""
    from alembic.script import ScriptDirectory

    read, found = ScriptDirectory.from_config, {}

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in found:
            found[location] = read(config)
        return found[location]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@pytest.fixture(scope="session", autouse=True)
def _instances_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The files of a fresh Dagster instance take a hundred statements: those of each worker are copies of the first."""
    from cooperbench_assets.dagster_storage import LOCK, LockedSqliteStorage

    make, first = LockedSqliteStorage.__init__, tmp_path_factory.mktemp("instance") / "first"

    def made(self: LockedSqliteStorage, base_dir: str, inst_data: Any = None) -> None:
        if not first.exists():
            storage = LockedSqliteStorage.__new__(LockedSqliteStorage)
            make(storage, str(first))
            storage.dispose()
        if not (Path(base_dir) / "history").exists():
            shutil.copytree(first, base_dir, ignore=shutil.ignore_patterns(LOCK), dirs_exist_ok=True)
        make(self, base_dir, inst_data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LockedSqliteStorage, "__init__", made)
        yield


@pytest.fixture(scope="session", autouse=True)
def _stores_laid_out_once() -> Iterator[None]:
    """A blank store takes some 900 statements, most of them comments: those of the same tables are copies of the first.

    They are what a publish into a folder without a store mostly costs, and a file of a store's tables is always alike.
    """
    from cooperbench_assets.store import layout, publish

    lay_out, made = publish._lay_out, dict[str, bytes]()

    def laid_out(build: Path, declared: Mapping[str, Table]) -> None:
        key = layout.fingerprint(declared)
        if key not in made:
            lay_out(build, declared)
            made[key] = build.read_bytes()
        build.write_bytes(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "_lay_out", laid_out)
        yield


@pytest.fixture(scope="session", autouse=True)
def datasets_written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, str], None]]:
    """Each project has the demo's dataset, of a second: those of each worker are copies of the first.

    What writes one is given to tests of how that is done.
    """
    from cooperbench_assets.demo import dataset

    write, first = dataset._write, tmp_path_factory.mktemp("demo") / "dataset"

    def written(root: Path, sources: str) -> None:
        if not first.exists():
            write(first, sources)
        shutil.copytree(first, root, symlinks=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_write", written)
        yield write


@pytest.fixture(scope="session")
def upstream() -> ModuleType:
    """Upstream's package in this process, without litellm: that takes three seconds of a core, and no test asks it."""
    from cooperbench_assets.execution.worker.harness import only_what_all_need

    with warnings.catch_warnings(), only_what_all_need():
        warnings.simplefilter("ignore")
        return importlib.import_module("cooperbench")


@pytest.fixture(scope="session")
def real_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six real flash runs, unpacked: a folder with one run folder each. Skips where they are not at hand."""
    archive = SHARED / "flash.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no real logs at {archive}: they are not published")
    folder = tmp_path_factory.mktemp("real-logs")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    return folder / "logs"


@pytest.fixture(scope="session")
def flash_subset(real_logs: Path) -> Path:
    """The subset file of the real flash runs."""
    return SHARED / "flash.json"
