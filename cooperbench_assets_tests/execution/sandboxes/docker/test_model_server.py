"""Upstream's own agent on Docker, asking a scripted model on loopback, through the assets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.execution.runner.harness_servers import OF_THIS_PROCESS, close_servers
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.ownership import PREFIX
from cooperbench_assets.report.build import build_reports
from cooperbench_assets_tests.demo.bench import write_pairs
from cooperbench_assets_tests.execution.sandboxes.docker.model_server import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    ModelServer,
    Trouble,
    serving,
)
from cooperbench_assets_tests.execution.sandboxes.docker.places import (
    COOP,
    LIMITS,
    PRICES,
    Place,
    in_background,
    model_experiment,
)

pytestmark = [pytest.mark.engine, pytest.mark.slow]

Features = tuple[str, int, tuple[int, int]]
"""Repository, task and features of a pair."""

CANARY = "sk-canary-5d1f7c0e93ab4826"
PER_CALL = PROMPT_TOKENS * PRICES["input_cost_per_token"] + COMPLETION_TOKENS * PRICES["output_cost_per_token"]
TWO = (("inkline_task", 3, (1, 2)), ("inkline_task", 3, (1, 4)))
"""As many pairs as work at once; the own patches of the first one do not merge."""

FOUR = (*TWO, ("plainconf_task", 5, (1, 4)), ("slotbook_task", 8, (1, 4)))


@pytest.fixture(scope="module")
def server(demo_dataset: Path, demo_images: list[str]) -> Iterator[ModelServer]:
    with serving(demo_dataset) as server:
        yield server


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Slots and the command that makes containers: the same for all tests, which so share one harness."""
    yield tmp_path_factory.mktemp("state")
    close_servers()


@pytest.fixture(autouse=True)
def surroundings(server: ModelServer, monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    """A key, slots of these tests' own, and a server that works."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(state))
    OF_THIS_PROCESS.answered.clear()
    server.reset()


def place(tmp_path: Path, server: ModelServer, dataset: Path, pairs: Sequence[Features] = TWO, **changes: Any) -> Place:
    subset = str(write_pairs(pairs, tmp_path / "subset.json"))
    return Place(tmp_path / "project", model_experiment(dataset, server.url, subset=subset, **changes))


def everything(root: Path) -> Iterator[tuple[str, str]]:
    """Every file below a folder as text, compressed tables unpacked."""
    for file in sorted(root.rglob("*")):
        if file.suffix == ".parquet":
            yield str(file), json.dumps(pl.read_parquet(file).rows(), default=str)
        elif file.is_file():
            yield str(file), file.read_bytes().decode("latin-1")


def test_a_solo_cell_goes_from_the_model_to_the_store_and_the_key_goes_nowhere(
    server: ModelServer, demo_dataset: Path, tmp_path: Path, state: Path, engine: Engine
) -> None:
    tried = place(tmp_path, server, demo_dataset)
    ran = tried.run()
    assert ran.error is None
    assert set(tried.outcomes().values()) == {"pass"}
    assert tried.publish().error is None

    # Three calls of 1,000 and 100 tokens a pair, at the prices of the agent config.
    costs = tried.rows("SELECT cost_usd, steps, outcome FROM pairs")
    assert [row[1:] for row in costs] == [(3, "pass")] * 2
    assert [row[0] for row in costs] == pytest.approx([3 * PER_CALL] * 2)
    record = read_provenance(tried.experiment.logs / f"{tried.name}-solo")
    assert (record["endpoint_host"], record["model_answered"]) == ("127.0.0.1", "scripted-model-1")

    # The endpoint that the experiment names was asked, with the key, first of all by the preflight.
    assert {(asked.path, asked.key, asked.model) for asked in server.asked} == {
        ("/v1/chat/completions", CANARY, "scripted")
    }
    assert len(server.asked) == 1 + 2 * 3
    assert len(server.asked[0].messages) == 1

    build_reports(tried.project.database, tried.project.report, [tried.name], {tried.name: tried.experiment.logs})
    dumped = tried.rows("SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'")
    seen = [(name, str(tried.rows(f'SELECT * FROM "{name}"'))) for (name,) in dumped]
    seen += [*everything(tmp_path), *everything(state)]
    assert any(name.endswith("report.html") for name, _ in seen)
    assert any(name.endswith("harness.log") for name, _ in seen)
    assert any("dagster" in name and name.endswith(".db") for name, _ in seen)
    assert [name for name, text in seen if CANARY in text] == []
    assert tried.left(engine) == []


def test_two_agents_talk_and_their_patches_are_merged_and_tested(
    server: ModelServer, demo_dataset: Path, tmp_path: Path, engine: Engine
) -> None:
    tried = place(tmp_path, server, demo_dataset, settings=COOP)
    assert tried.run("coop-comm").error is None
    pairs = tried.table("coop-comm")
    counts = dict(pairs["outcome_strict"].value_counts().iter_rows())
    assert counts == {"pass": 1, "fail": 1}
    assert set(pairs.filter(pl.col("outcome_strict") == "fail")["reason_strict"]) == {"conflict"}
    messages = tried.table("coop-comm", "messages")
    assert messages.height == 2 * 2
    assert pairs["cost_usd"].sum() == pytest.approx(2 * 2 * 4 * PER_CALL)
    assert tried.left(engine) == []


FAILING: dict[Trouble, str] = {
    "429": "rate_limit",
    "503": "provider",
    "cut": "provider",
    "hang": "provider_timeout",
}


def test_a_failing_endpoint_is_infrastructure_of_its_family_and_nothing_is_left(
    server: ModelServer, demo_dataset: Path, tmp_path: Path, engine: Engine
) -> None:
    # An agent that was waited for until its deadline would take longer than a test may.
    limits = {**LIMITS, "concurrency": 1, "breaker": 10, "pair_timeout_minutes": 60}
    changes = {"preflight": {"ask_model": False}, "limits": limits}
    kwargs = {"timeout": 2, "max_retries": 0}
    tried = place(tmp_path, server, demo_dataset, FOUR, kwargs=kwargs, **changes)
    server.troubles = list(FAILING)
    assert tried.run().error is None
    assert sorted(tried.outcomes().values()) == sorted(f"infra_error agent {family}" for family in FAILING.values())
    assert len(server.asked) == len(FAILING)
    assert tried.left(engine) == []

    # After a refused key no further pair is launched.
    server.trouble = "401"
    assert tried.run().error is None
    assert list(tried.outcomes().values()).count("infra_error agent auth") == 1
    assert len(server.asked) == len(FAILING) + 1
    assert tried.left(engine) == []

    server.trouble = None
    assert tried.run().error is None
    assert set(tried.outcomes().values()) == {"pass"}


def test_a_refused_key_is_found_before_any_pair_is_launched(
    server: ModelServer, demo_dataset: Path, tmp_path: Path, engine: Engine
) -> None:
    tried = place(tmp_path, server, demo_dataset)
    server.trouble = "401"
    ran = tried.run()
    assert ran.error is not None
    assert "openai/scripted does not answer (auth)" in ran.error
    assert CANARY not in ran.error
    assert len(server.asked) == 1
    assert not (tried.experiment.logs / f"{tried.name}-solo" / "solo").exists()


def test_an_agent_s_container_carries_labels_and_limits_and_one_that_is_killed_is_never_graded(
    server: ModelServer, demo_dataset: Path, tmp_path: Path, engine: Engine
) -> None:
    tried = place(tmp_path, server, demo_dataset, preflight={"ask_model": False})
    server.pause = 1.0
    seen: list[Any] = []

    def look_and_kill() -> None:
        assert server.slow.wait(120)
        for one in tried.left(engine):
            seen.append(engine.api.inspect_container(one.id))
            engine.api.kill(one.id)

    with in_background(look_and_kill):
        assert tried.run(at_most=1).error is None
    (container,) = seen
    labels = container["Config"]["Labels"]
    assert {name: labels[f"{PREFIX}.{name}"] for name in ("setting", "seed", "attempt", "purpose")} == {
        "setting": "solo",
        "seed": "0",
        "attempt": "agent-1",
        "purpose": "agent",
    }
    limits = container["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (2**30, 2 * 10**9, 500)
    (found,) = [outcome for outcome in tried.outcomes().values() if outcome != "missing"]
    assert found == "infra_error agent container_died"
    assert tried.left(engine) == []

    server.pause = 0.0
    assert tried.run(at_most=1).error is None
    assert sorted(tried.outcomes().values()) == ["missing", "pass"]
    assert tried.left(engine) == []
