"""The retry sensor of an experiment: the one layer that tries again what infrastructure broke.

What belongs here: one tick. What does not: what is still to run (``cell_state``), when (``policy``), and how (the
assets). Off until somebody starts it: it buys model calls.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a sensor as they are.
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from cooperbench_assets.assets.keys import asset_key, model_tag, op_name, partition_key
from cooperbench_assets.automation.alert_rules import alerts_of, input_alerts
from cooperbench_assets.automation.alerts import Notifier
from cooperbench_assets.automation.backfills import still_to_launch
from cooperbench_assets.automation.dagster_runs import (
    CELL_ASSETS,
    FINGERPRINT_TAG,
    WHY_TAG,
    active_runs,
    job_name,
)
from cooperbench_assets.automation.dead_runs import report_dead_runs
from cooperbench_assets.automation.policy import CellState, Launch, decide
from cooperbench_assets.automation.tick_budget import by_reason, look_on, read_place, time_box, write_place
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.image_lock import looked_into_on
from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError


def build_retry_sensor(experiment: ExperimentContext) -> dg.SensorDefinition:
    """The sensor that asks for a run of each cell with something to retry."""
    images = ("task_images",) if experiment.spec.execution == "docker" else ()

    @dg.sensor(
        name=job_name(experiment.name, "retry"),
        target=dg.AssetSelection.assets(*(asset_key(experiment.name, name) for name in (*images, *CELL_ASSETS))),
        minimum_interval_seconds=experiment.spec.retry.every_seconds,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Tries again what infrastructure broke in cells that somebody has launched, within the limits of "
        "tries, with pauses that grow. It buys model calls: start it when you want that.",
    )
    def retry(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return tick(experiment, context, datetime.now(UTC).replace(tzinfo=None))

    return retry


def sensor_is_on(instance: dg.DagsterInstance, experiment: ExperimentContext) -> bool:
    """Whether somebody has started an experiment's retry sensor."""
    name = job_name(experiment.name, "retry")
    return any(state.name == name and state.is_running for state in instance.all_instigator_state())


def tick(
    experiment: ExperimentContext,
    context: dg.SensorEvaluationContext,
    now: datetime,
    is_over: Callable[[], bool] | None = None,
) -> dg.SensorResult:
    """One look at the experiment's cells: what to run, and why not the rest.

    Args:
        experiment: The experiment.
        context: Dagster's; its cursor only says where a long look goes on, and may be lost.
        now: The present time, UTC without a zone.
        is_over: Whether the tick's time is over; a box of `TICK_SECONDS` where not given.
    """
    is_over = is_over or time_box()
    for run_id in report_dead_runs(context.instance, experiment, now):
        context.log.warning(f"run {run_id} was reported as failed: its process is gone")
    try:
        portion = look_on(
            experiment,
            context.instance,
            now,
            read_place(context.cursor),
            is_over,
            backfilled=backfilled(experiment, context.instance),
        )
    except MissingInputError as error:
        Notifier(experiment, context.log).send_all(input_alerts(experiment, error))
        return dg.SensorResult(skip_reason=str(error))
    cursor = write_place(portion.place)
    Notifier(experiment, context.log).send_all(alerts_of(experiment, portion.looks, all_complete=portion.all_complete))
    requests, reasons = [], []
    decisions = [(seen, decide(seen.state)) for seen in portion.looks]
    # What was launched since the tick began: the looks may have taken most of a minute.
    launched = active_runs(context.instance, experiment) if any(isinstance(one, Launch) for _, one in decisions) else {}
    for seen, decision in decisions:
        if isinstance(decision, Launch) and (run := launched.get(partition_key(seen.state.cell))) is not None:
            reasons.append((seen.state.cell, f"run {run[:8]} of it is not over"))
        elif isinstance(decision, Launch):
            requests.append(request(experiment, seen.state, decision))
            context.log.info(f"{seen.state.cell}: {decision.why}")
        else:
            reasons.append((seen.state.cell, decision.reason))
    lines = by_reason(reasons)
    for line in lines:
        context.log.info(line)
    if requests and (images := images_request(experiment, now)) is not None:
        context.log.info(f"task images come first: {images.tags[WHY_TAG]}")
        return dg.SensorResult(run_requests=[images], cursor=cursor)
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    return dg.SensorResult(skip_reason="\n".join(lines) or "the experiment plans no cell", cursor=cursor)


def backfilled(experiment: ExperimentContext, instance: dg.DagsterInstance) -> dict[str, str]:
    """Partitions of pair_results that a running backfill will still launch, with its id."""
    return still_to_launch(instance, asset_key(experiment.name, "pair_results"))


def request(experiment: ExperimentContext, state: CellState, launch: Launch) -> dg.RunRequest:
    """The run that a decision asks Dagster for."""
    return dg.RunRequest(
        run_key=launch.run_key,
        partition_key=partition_key(state.cell),
        asset_selection=[asset_key(experiment.name, name) for name in launch.assets],
        run_config=run_config(
            experiment.name, launch.assets, {"run_logs": launch.agents, "eval_outputs": launch.evaluations}
        ),
        tags={
            FINGERPRINT_TAG: state.fingerprint,
            WHY_TAG: launch.why,
            **model_tag(experiment.spec),
        },
    )


def images_request(experiment: ExperimentContext, now: datetime) -> dg.RunRequest | None:
    """The run that makes the task images ready, where that was never done here; once an hour while it fails."""
    if experiment.spec.execution != "docker":
        return None
    engine, why = "any", "no lock file names the task images yet"
    if experiment.image_lock.is_file():
        found = _new_engine(experiment)
        if found is None:
            return None
        engine, why = found, f"no run has looked into the task images on this Docker engine ({found})"
    return dg.RunRequest(
        run_key=f"{experiment.name}:task_images:{engine}:{now:%Y-%m-%dT%H}",
        asset_selection=[asset_key(experiment.name, "task_images")],
        tags={WHY_TAG: why},
    )


def _new_engine(experiment: ExperimentContext) -> str | None:
    """The engine that runs would use, where no image of the lock file was ever looked into on it.

    None where the engine or the lock file cannot be asked: the run says so. Nodes of a cluster have their own engines.
    """
    if experiment.spec.fleet is not None:
        return None
    # Imported here: it brings the Docker SDK, which loading the code location needs for nothing else.
    from cooperbench_assets.execution.sandboxes.docker.engine import Engine

    try:
        with Engine.connect() as engine:
            identity = engine.identity()
        return None if looked_into_on(experiment.image_lock, identity) else identity
    except (InfrastructureError, LaunchError):
        return None


def run_config(
    experiment: str, assets: Iterable[str], only: Mapping[str, tuple[str, ...] | None] | None = None
) -> dict[str, Any]:
    """Run config of a run that nobody asked for: what only a person can fix is left alone.

    Args:
        experiment: The experiment's name.
        assets: The assets of the run.
        only: The only pairs of an asset, where it may not run whatever is still to run.
    """
    configs: dict[str, Any] = {}
    for name in assets:
        pairs = (only or {}).get(name)
        config: dict[str, Any] = {"automatic": True}
        if pairs is not None:
            config["pairs"] = list(pairs)
        configs[op_name(experiment, name)] = {"config": config}
    return {"ops": configs}
