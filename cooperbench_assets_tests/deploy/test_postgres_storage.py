"""The event log of a deployment's Dagster instance, in a real Postgres: what its pages show of checks."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from cooperbench_assets.postgres_storage import PostgresEventLog
from cooperbench_assets_tests.automation.ui_actions import until
from cooperbench_assets_tests.deploy.images import postgres_image
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.projects import CHECKOUT
from cooperbench_assets_tests.test_dagster_storage import two_at_once
from cooperbench_assets_tests.ui import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.slow]

__all__ = ["engine"]

PARTITIONS = dg.StaticPartitionsDefinition(["red", "green"])


@pytest.fixture(scope="module")
def storage(engine: Engine) -> Iterator[dict[str, Any]]:
    """What deploy/dagster.yaml says of the storage, with the address of a Postgres of this test's own."""
    storage: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())["storage"]
    database = storage["custom"]["config"]["postgres_db"]
    password, port = secrets.token_hex(8), free_port()
    database |= {"hostname": "127.0.0.1", "port": port, "password": password}
    named = {"USER": database["username"], "PASSWORD": password, "DB": database["db_name"]}
    container = engine.api.create_container(
        postgres_image(engine),
        environment={f"POSTGRES_{name}": value for name, value in named.items()},
        host_config=engine.api.create_host_config(port_bindings={5432: ("127.0.0.1", port)}),
        ports=[5432],
    )["Id"]
    try:
        engine.api.start(container)
        until(lambda: answers(storage["custom"]["config"]), lambda: engine.api.logs(container)[-2000:])
        yield storage
    finally:
        engine.api.remove_container(container, force=True, v=True)


def answers(config: dict[str, Any]) -> bool:
    try:
        create_engine(pg_url_from_config(config)).connect().close()
    except OperationalError:
        return False
    return True


@pytest.fixture
def instance(storage: dict[str, Any]) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(overrides={"storage": storage}) as made:
        made.wipe()
        yield made


@pytest.mark.parametrize("ends", ["well", "failed"])
def test_of_runs_side_by_side_pages_show_the_checks_of_the_one_that_materialised_last(
    instance: dg.DagsterInstance, ends: str
) -> None:
    run, shown = two_at_once(instance, ends)
    assert run().run_id == shown()
    assert run().run_id == shown()


def test_a_check_that_fails_in_one_partition_is_what_pages_show_though_another_one_is_newer(
    instance: dg.DagsterInstance,
) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("cells"), "sound")
    sound = {"green"}

    @dg.asset(
        partitions_def=PARTITIONS, check_specs=[dg.AssetCheckSpec("sound", asset="cells", partitions_def=PARTITIONS)]
    )
    def cells(context):  # type: ignore[no-untyped-def]
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=context.partition_key in sound)])

    def materialize(partition: str) -> None:
        assert dg.materialize([cells], partition_key=partition, instance=instance).success

    def shown() -> tuple[str, str | None]:
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        return record.status.value, record.partition

    materialize("red")
    materialize("green")
    assert shown() == ("FAILED", "red")
    sound.add("red")
    materialize("red")
    assert shown() == ("SUCCEEDED", "red")


def test_the_log_of_a_deployment_is_the_one_of_these_tests(instance: dg.DagsterInstance) -> None:
    log: Any = instance.event_log_storage
    assert isinstance(getattr(getattr(log, "_storage", None), "event_log_storage", log), PostgresEventLog)
