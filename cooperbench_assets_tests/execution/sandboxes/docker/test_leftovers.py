from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import APIError

from cooperbench_assets.execution.processes import mark_of, process_identity
from cooperbench_assets.execution.sandboxes.docker.cleanup import EngineCleanup
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import Belonging, CleanupResult, remove_leftovers
from cooperbench_assets.execution.sandboxes.docker.ownership import (
    CELL,
    HOST,
    OWNER,
    PREFIX,
    cell_of,
    host,
    labels,
    owner_state,
)

pytestmark = pytest.mark.engine


class Litter:
    """Makes things on the engine that carry a mark of this test, and removes them."""

    def __init__(self, engine: Engine, image: str) -> None:
        self.mark = secrets.token_hex(8)
        self._engine = engine
        self._image = image

    def labels(self, owner: str | None, where: str | None = None) -> dict[str, str]:
        made = labels("agent", {"pair": self.mark})
        return made | {OWNER: owner or made[OWNER], HOST: where or made[HOST]}

    def container(self, carried: dict[str, str], *, start: bool = False, name: str | None = None) -> str:
        made = self._engine.api.create_container(
            self._image,
            ["sleep", "600"],
            entrypoint="",
            name=name,
            labels={**carried, "litter": self.mark},
            host_config=self._engine.api.create_host_config(init=True),
        )["Id"]
        if start:
            self._engine.api.start(made)
        return str(made)

    def clear(self) -> None:
        api = self._engine.api
        for one in api.containers(all=True, filters={"label": f"litter={self.mark}"}):
            with contextlib.suppress(APIError):
                api.remove_container(one["Id"], force=True)
        mine = {"label": f"{PREFIX}.pair={self.mark}"}
        for network in api.networks(filters=mine):
            api.remove_network(network["Id"])
        for volume in api.volumes(filters=mine)["Volumes"] or []:
            api.remove_volume(volume["Name"])


@pytest.fixture
def litter(engine: Engine, toy_image: str, own_host: str) -> Iterator[Litter]:
    made = Litter(engine, toy_image)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def dead_owner() -> str:
    """An owner that lived on this machine, and does not any more."""
    program = "import os; from cooperbench_assets.execution.processes import *; print(process_identity(os.getpid()))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate()
    return mark_of(process.pid, said.strip())


def mine(found: tuple[Belonging, ...], litter: Litter) -> list[tuple[str, str, str]]:
    return [(one.kind, one.id, one.owner_state) for one in found if one.described.get("pair") == litter.mark]


def is_there(engine: Engine, container: str) -> bool:
    return bool(engine.api.containers(all=True, filters={"id": container}))


def test_a_sweep_removes_what_dead_owners_left_and_only_that(engine: Engine, litter: Litter, dead_owner: str) -> None:
    running = litter.container(litter.labels(dead_owner), start=True)
    created = litter.container(litter.labels(dead_owner))
    network = engine.api.create_network(f"net-{litter.mark}", labels=litter.labels(dead_owner))["Id"]
    volume = engine.api.create_volume(f"vol-{litter.mark}", labels=litter.labels(dead_owner))["Name"]
    alive = litter.container(litter.labels(None), start=True)
    elsewhere = litter.container(litter.labels(dead_owner, where="another/machine/pid:[1]"))
    unlabelled = litter.container({}, name=f"minisweagent-{litter.mark[:8]}", start=True)

    would = remove_leftovers(engine, dry_run=True)
    assert is_there(engine, running)
    swept = remove_leftovers(engine)

    gone = {("container", running), ("container", created), ("network", network), ("volume", volume)}
    assert {(kind, one) for kind, one, _ in mine(would.removed, litter)} == gone
    assert {(kind, one) for kind, one, _ in mine(swept.removed, litter)} == gone
    assert {(one, state) for _, one, state in mine(swept.kept, litter)} == {
        (alive, "alive"),
        (elsewhere, "elsewhere"),
    }
    assert [is_there(engine, one) for one in (running, created)] == [False, False]
    assert [is_there(engine, one) for one in (alive, elsewhere, unlabelled)] == [True, True, True]


def test_whoever_holds_a_cell_removes_what_a_killed_run_container_left_for_it(
    engine: Engine, litter: Litter, dead_owner: str, tmp_path: Path
) -> None:
    cells = {}
    for name in ("mine", "of_a_copy"):
        (tmp_path / name).mkdir()
        cells[name] = cell_of(tmp_path / name)
    elsewhere = {"where": "run-container/machine/pid:[4026532999]"}
    left = litter.container({**litter.labels("7/boot:1", **elsewhere), CELL: cells["mine"]}, start=True)
    network = engine.api.create_network(
        f"net-{litter.mark}", labels={**litter.labels("7/boot:1", **elsewhere), CELL: cells["mine"]}
    )["Id"]
    copied = litter.container({**litter.labels("7/boot:1", **elsewhere), CELL: cells["of_a_copy"]})
    alive = litter.container({**litter.labels(None), CELL: cells["mine"]})

    assert mine(remove_leftovers(engine).removed, litter) == [], "without the lock nobody can tell"
    with EngineCleanup(cell=cells["mine"]):
        assert not is_there(engine, left)
        late = litter.container({**litter.labels("7/boot:1", **elsewhere), CELL: cells["mine"]})
    assert [is_there(engine, one) for one in (left, late, copied, alive)] == [False, False, True, True]
    assert not engine.api.networks(ids=[network])


def test_many_things_go_at_once_and_all_are_reported(engine: Engine, litter: Litter, dead_owner: str) -> None:
    made = {litter.container(litter.labels(dead_owner)) for _ in range(12)}
    assert {one for _, one, _ in mine(remove_leftovers(engine).removed, litter)} == made


def test_a_sweep_ends_although_the_engine_is_slow(
    engine: Engine, litter: Litter, dead_owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cooperbench_assets.execution.sandboxes.docker.leftovers.SWEEP_SECONDS", 0.0)
    left = litter.container(litter.labels(dead_owner))
    failed = {one.id: why for one, why in remove_leftovers(engine).failed}
    assert "too slow; the next sweep tries again" in failed[left]
    assert is_there(engine, left)


def test_a_cell_is_known_by_its_folder_and_a_copy_is_another(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    before = cell_of(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert cell_of(tmp_path / "moved") == before
    assert cell_of(tmp_path / "copy") != before


def test_an_owner_of_another_boot_is_dead_on_an_engine_of_this_machine_only() -> None:
    labels = {OWNER: "4711/00000000-another-boot:1", HOST: host()}
    assert owner_state(labels, is_local=True) == "dead"
    assert owner_state(labels, is_local=False) == "elsewhere", "it may live on a copy of this machine"


def test_what_the_engine_does_not_give_up_is_reported(engine: Engine, litter: Litter, dead_owner: str) -> None:
    volume = f"vol-{litter.mark}"
    engine.api.create_volume(volume, labels=litter.labels(dead_owner))
    engine.api.create_container(
        litter._image,
        ["true"],
        labels={"litter": litter.mark},
        host_config=engine.api.create_host_config(binds=[f"{volume}:/mnt"]),
    )
    failed = [(one.id, why) for one, why in remove_leftovers(engine).failed if one.described["pair"] == litter.mark]
    assert failed
    assert failed[0][0] == volume
    assert "in use" in failed[0][1]


def test_sweeping_twice_finds_nothing_the_second_time(engine: Engine, litter: Litter, dead_owner: str) -> None:
    litter.container(litter.labels(dead_owner))
    assert mine(remove_leftovers(engine).removed, litter)
    assert mine(remove_leftovers(engine).removed, litter) == []
    assert CleanupResult() == CleanupResult((), (), ())


def test_an_owner_is_dead_when_its_number_is_taken_by_another_process() -> None:
    me = os.getpid()
    assert owner_state({OWNER: mark_of(me, process_identity(me) or ""), HOST: host()}) == "alive"
    assert owner_state({OWNER: f"{me}/some-boot:1", HOST: host()}) == "dead"
    assert owner_state({OWNER: "nobody", HOST: host()}) == "elsewhere"
    assert owner_state({}) == "elsewhere"
