"""Which execution of an asset check Dagster's pages show, in whichever database the event log is.

What belongs here: choosing among recorded executions. What does not: evaluating checks, and where they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dagster import DagsterRunStatus, RunsFilter

# A storage is a plug-in of Dagster, and what it is made of has no public names; a test compares the list of them.
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster import AssetCheckKey
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

ENDED: Final = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]

PLANNED: Final = AssetCheckExecutionRecordStatus.PLANNED
FAILED: Final = AssetCheckExecutionRecordStatus.FAILED

SIDE_BY_SIDE: Final = 4
"""Runs that may wait for each other to materialise the same asset."""


class ShownChecks(SqlEventLogStorage):
    """An event log whose pages show the check that fails, and the one of the run that materialised last."""

    def get_latest_asset_check_execution_by_key(
        self, check_keys: Sequence[AssetCheckKey], partition_filter: PartitionKeyFilter | None = None
    ) -> Mapping[AssetCheckKey, AssetCheckExecutionRecord]:
        """The execution that pages show of each check; of a check of many partitions, one that failed if there is one.

        Dagster shows that of the partition that was planned last, of a set without order: the pages of an asset and of
        its check would say that all is well beside a list that says that the check fails. Of two runs side by side, it
        shows that which was planned last: if the other one materialised last, no page would know of an evaluation.
        """
        latest = dict(super().get_latest_asset_check_execution_by_key(check_keys, partition_filter))
        partitioned = [key for key, record in latest.items() if record.partition is not None]
        latest |= {key: self._newest(key) for key in latest.keys() - partitioned}
        if partition_filter is None and partitioned:
            for key, partition in self._failing(partitioned).items():
                latest |= super().get_latest_asset_check_execution_by_key([key], PartitionKeyFilter(key=partition))
        return latest

    def _newest(self, key: AssetCheckKey) -> AssetCheckExecutionRecord:
        """Of the executions of a check without a partition that were planned last, the one heard of last."""
        of_no_partition = PartitionKeyFilter(key=None)
        planned_last = self.get_asset_check_execution_history(key, SIDE_BY_SIDE, partition_filter=of_no_partition)
        return max(planned_last, key=lambda record: (_heard_at(record), record.id))

    def _failing(self, keys: Sequence[AssetCheckKey]) -> dict[AssetCheckKey, str]:
        """Of each of these checks that fails in a partition, the partition in which it was evaluated last.

        What is older than an evaluation of all partitions does not count: that evaluated each that is still there.
        """
        infos = sorted(self.get_asset_check_partition_info(keys), key=lambda info: info.latest_check_event_storage_id)
        ended = self._ended({info.latest_planned_run_id for info in infos if info.latest_execution_status == PLANNED})
        found: dict[AssetCheckKey, str] = {}
        for info in infos:
            run = ended.get(info.latest_planned_run_id)
            not_evaluated = info.latest_execution_status == PLANNED and run == DagsterRunStatus.FAILURE
            failed = info.latest_execution_status == FAILED and info.is_current
            if info.partition_key is None:
                if run == DagsterRunStatus.SUCCESS:
                    found.pop(info.check_key, None)
            elif failed or not_evaluated:
                found[info.check_key] = info.partition_key
        return found

    def _ended(self, run_ids: set[str]) -> dict[str, DagsterRunStatus]:
        """How these runs ended, as far as they have."""
        if not run_ids:
            return {}
        wanted = RunsFilter(run_ids=list(run_ids), statuses=ENDED)
        return {run.run_id: run.status for run in self._instance.get_runs(wanted)}


def _heard_at(record: AssetCheckExecutionRecord) -> float:
    """When an execution was planned, or the check evaluated."""
    return record.create_timestamp if record.event is None else record.event.timestamp
