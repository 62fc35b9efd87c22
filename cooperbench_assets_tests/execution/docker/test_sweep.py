from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
from docker.errors import APIError

from cooperbench_assets.execution.docker.engine import Engine
from cooperbench_assets.execution.docker.ownership import HOST, OWNER, PREFIX, fate, host, labels
from cooperbench_assets.execution.docker.sweep import Belonging, Swept, sweep
from cooperbench_assets.execution.processes import mark_of, process_identity

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
    return [(one.kind, one.id, one.fate) for one in found if one.described.get("pair") == litter.mark]


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

    would = sweep(engine, dry_run=True)
    assert is_there(engine, running)
    swept = sweep(engine)

    gone = {("container", running), ("container", created), ("network", network), ("volume", volume)}
    assert {(kind, one) for kind, one, _ in mine(would.removed, litter)} == gone
    assert {(kind, one) for kind, one, _ in mine(swept.removed, litter)} == gone
    assert {(one, fate) for _, one, fate in mine(swept.kept, litter)} == {(alive, "alive"), (elsewhere, "elsewhere")}
    assert [is_there(engine, one) for one in (running, created)] == [False, False]
    assert [is_there(engine, one) for one in (alive, elsewhere, unlabelled)] == [True, True, True]


def test_what_the_engine_does_not_give_up_is_reported(engine: Engine, litter: Litter, dead_owner: str) -> None:
    volume = f"vol-{litter.mark}"
    engine.api.create_volume(volume, labels=litter.labels(dead_owner))
    engine.api.create_container(
        litter._image,
        ["true"],
        labels={"litter": litter.mark},
        host_config=engine.api.create_host_config(binds=[f"{volume}:/mnt"]),
    )
    failed = [(one.id, why) for one, why in sweep(engine).failed if one.described["pair"] == litter.mark]
    assert failed
    assert failed[0][0] == volume
    assert "in use" in failed[0][1]


def test_sweeping_twice_finds_nothing_the_second_time(engine: Engine, litter: Litter, dead_owner: str) -> None:
    litter.container(litter.labels(dead_owner))
    assert mine(sweep(engine).removed, litter)
    assert mine(sweep(engine).removed, litter) == []
    assert Swept() == Swept((), (), ())


def test_an_owner_is_dead_when_its_number_is_taken_by_another_process() -> None:
    me = os.getpid()
    assert fate({OWNER: mark_of(me, process_identity(me) or ""), HOST: host()}) == "alive"
    assert fate({OWNER: f"{me}/some-boot:1", HOST: host()}) == "dead"
    assert fate({OWNER: "nobody", HOST: host()}) == "elsewhere"
    assert fate({}) == "elsewhere"
