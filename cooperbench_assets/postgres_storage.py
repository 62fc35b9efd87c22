"""Storage of a deployment's Dagster instance, as deploy/dagster.yaml names it.

What belongs here: Dagster's own Postgres storage, with the pages of checks that every instance of ours has. What does
not: what is stored in it. Needs the extra `deploy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

from cooperbench_assets.shown_checks import ShownChecks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster._serdes import ConfigurableClassData
    from dagster_postgres.auth import PgTokenProvider


class PostgresEventLog(ShownChecks, PostgresEventLogStorage):
    """Dagster's event log in Postgres."""


class PostgresStorage(DagsterPostgresStorage):
    """Postgres, with the configuration of Dagster's own `storage: postgres`."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
        token_provider: PgTokenProvider | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data, token_provider)
        self._event_log_storage = PostgresEventLog(postgres_url, should_autocreate_tables, None, token_provider)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PostgresStorage:
        """The storage that a configuration describes."""
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data,
            get_token_provider_from_config(config_value),
        )
