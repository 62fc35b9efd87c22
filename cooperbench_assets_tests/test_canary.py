"""Keys that are given away on purpose, and looked for in all that a full run leaves: found nowhere."""

from __future__ import annotations

import base64
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import polars as pl
import pytest

from cooperbench_assets.project import Project
from cooperbench_assets_tests.execution.leaks import ANCESTORS, KEYS
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy, make_toy
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project

pytestmark = pytest.mark.slow

CODE = """
import contextlib, sys
from cooperbench_assets.cli import main
for line in sys.argv[1:]:
    sys.argv = ["cooperbench-assets", *line.split()]
    with contextlib.suppress(SystemExit):
        main()
"""
CANARIES = {
    "named": "canary/named+7f3a91=",
    "in_config": "canary-in-config-51d0",
    "in_endpoint": "canary&endpoint%e1f2",
    "in_redis": "canary-of-redis-93ac",
    "bystander": "canary-bystander-0c44",
}
"""Where a key is → the key. The last one is told to nobody: it is a variable of the shell."""

LEAKING, BROKEN = "leaking", "broken"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


def write_subset(file: Path, pairs: list[list[int]]) -> Path:
    file.write_text(json.dumps({"name": file.stem, "tasks": [{"repo": REPO, "task_id": TASK, "pairs": pairs}]}))
    return file


def experiment(toy: Toy, folder: Path, **changes: Any) -> dict[str, Any]:
    subset = write_subset(folder / "six.json", [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]])
    hostile = folder / "hostile.patch"
    hostile.write_text(toy.at_import(3, f"exec({ANCESTORS!r})"))
    return {
        "subset": str(subset),
        "dataset": str(toy.dataset),
        "execution": "process",
        "model_name": "scripted/leaking",
        "agent": "leaking",
        "agent_config": {"model": {"api_key": CANARIES["in_config"]}},
        "settings": {"solo": {"mode": "solo", "seeds": [0]}, "coop-comm": {"mode": "coop", "seeds": [0]}},
        "limits": {"agent_attempts": 2, "breaker": 20},
        "external_agents": ["cooperbench_assets_tests.execution.leaking_agents"],
        "secrets": ["MY_PROVIDER"],
        "environment": {
            "PYTHONPATH": str(CHECKOUT),
            "TOY_TASK": str(toy.task),
            "TOY_HOSTILE": str(hostile),
            "MODEL_API_BASE": f"https://me:{quote(CANARIES['in_endpoint'], safe='')}@example.org/v1",
            KEYS: "MY_PROVIDER,MODEL_API_BASE",
        },
        **changes,
    }


def commands(project: Project, *lines: str) -> None:
    """Call the command line, in one process that imports all of it once, with the keys in its variables."""
    keys = {"MY_PROVIDER": CANARIES["named"], "BYSTANDER_API_KEY": CANARIES["bystander"]}
    command = [sys.executable, "-c", CODE, *lines]
    with (project.data / "said.txt").open("wb") as said:
        subprocess.run(
            command, cwd=project.root, env=environment(project, **keys), stdout=said, stderr=said, check=False
        )


def test_a_key_that_is_given_away_is_in_nothing_that_a_run_leaves(toy: Toy, tmp_path: Path) -> None:
    bad_redis = f"redis+nonsense://:{CANARIES['in_redis']}@127.0.0.1:1"
    coop = {"coop-comm": {"mode": "coop", "seeds": [0]}}
    experiments = {
        LEAKING: experiment(toy, tmp_path),
        # Each pair would say the same of the server that it cannot reach.
        BROKEN: experiment(
            toy,
            tmp_path,
            redis_url=bad_redis,
            settings=coop,
            subset=str(write_subset(tmp_path / "one.json", [[1, 2]])),
        ),
    }
    project = make_project(tmp_path / "project", experiments)
    project.data.mkdir()
    export = f"export {LEAKING} --raw-logs -o data/{LEAKING}.tar.gz"
    commands(project, f"materialize {LEAKING}", f"materialize {BROKEN}", f"report {LEAKING}", export)

    looked_at = {place: text for file in files_of(project) for place, text in texts_of(file, project)}
    assert_it_leaked(project, looked_at)
    for name, canary in CANARIES.items():
        found = [place for place, text in looked_at.items() if any(form in text for form in forms(canary))]
        assert not found, f"{name}: {found}"


def assert_it_leaked(project: Project, looked_at: dict[str, bytes]) -> None:
    """See that there was something to be found: every kind of place holds what stands in a key's stead."""
    run = f"data/logs/{LEAKING}-solo"
    pair = f"{REPO}/{TASK}"
    places = [
        f"{run}/solo/{pair}/f1_f4/solo.patch",
        f"{run}/solo/{pair}/f2_f4/solo_traj.json",
        f"{run}/attempts/solo/{pair}/f1_f2/agent-1/child.log",
        f"{run}/attempts/solo/{pair}/f1_f3/agent-1/attempt.json",
        f"{run}/solo/{pair}/f2_f3/result.json",
        f"{run}/attempts/solo/{pair}/f1_f3/agent-1/child.log",
        f"{run}/provenance.json",
        f"data/logs/{LEAKING}-coop-comm/coop/{pair}/f1_f2/conversation.json",
        "data/results.duckdb: pairs",
        "data/results.duckdb: messages",
        "data/results.duckdb: attempts",
        f"data/{LEAKING}.tar.gz: logs/{LEAKING}-solo/solo/{pair}/f1_f4/solo.patch",
        "data/said.txt",
    ]
    for place in places:
        assert b"[redacted:" in looked_at[place], place
    assert any(b"[redacted:" in text for place, text in looked_at.items() if place.startswith("data/dagster/"))
    assert any(b"[redacted:" in text for place, text in looked_at.items() if place.endswith(".parquet"))
    assert any(place.startswith("data/report/") for place in looked_at)
    (config,) = (project.root / run).glob("agent_config-*.yaml")
    assert "[redacted:agent_config.model.api_key]" in config.read_text()


def forms(canary: str) -> Iterator[bytes]:
    """A key as it is, as in an address, as in JSON, and what base64 makes of it at every offset."""
    yield from (canary.encode(), quote(canary, safe="").encode(), json.dumps(canary)[1:-1].encode())
    for before in ("", "a", "ab"):
        encoded = base64.b64encode(f"{before}{canary}".encode())
        # The first and the last characters depend on what is beside the key.
        yield encoded[4 if before else 0 : -4]


def files_of(project: Project) -> Iterator[Path]:
    """What lies below a project, but for its code, and the file in which a person wrote a key."""
    for folder, folders, names in os.walk(project.root):
        folders[:] = [name for name in folders if Path(folder, name) != project.root / "cooperbench_assets"]
        yield from (Path(folder, name) for name in names)


def texts_of(file: Path, project: Project) -> Iterator[tuple[str, bytes]]:
    """Place → what is there, as it lies on disk and decoded."""
    place = str(file.relative_to(project.root))
    yield from decoded(place, file.read_bytes())
    if file.suffix == ".duckdb":
        with closing(duckdb.connect(str(file), read_only=True)) as connection:
            for (table,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall():
                rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
                yield f"{place}: {table}", repr(rows).encode()
    elif file.suffix == ".db":
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                values = [value for row in connection.execute(f'SELECT * FROM "{table}"') for value in row]
                yield f"{place}: {table}", b"\n".join(plain(value) for value in values)


def decoded(place: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if place.endswith(".parquet"):
        data += repr([column.to_list() for column in pl.read_parquet(io.BytesIO(data)).iter_columns()]).encode()
    elif place.endswith(".tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                inner = archive.extractfile(member)
                if inner is not None:
                    yield from decoded(f"{place}: {member.name}", inner.read())
    yield place, data


def plain(value: object) -> bytes:
    """A value of Dagster's storage, unpacked where it is packed."""
    if not isinstance(value, bytes):
        return str(value).encode()
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value
