"""What a child is told: the request of one try.

What belongs here: from a job and a try to a ``ChildRequest``. What does not: when it is sent (``scheduler``), and what
the child does with it (``worker.child``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cooperbench_assets.execution.sandboxes.docker.agent_cli import LABELS, label_lines
from cooperbench_assets.execution.sandboxes.docker.ownership import cell_of
from cooperbench_assets.execution.secret_values import config_text, variables_for
from cooperbench_assets.execution.worker.protocol import ChildRequest

if TYPE_CHECKING:
    from cooperbench_assets.execution.attempts.lifecycle import Try
    from cooperbench_assets.execution.job import CellJob


def child_request(made: Try, redis_url: str | None) -> ChildRequest:
    """The request of a try; `redis_url` is of the Redis over which its agents talk."""
    job, pair = made.job, made.pair
    return ChildRequest(
        key=made.key,
        stage=made.stage,
        mode=job.mode,
        repo=pair.repo,
        task_id=pair.task_id,
        features=pair.features,
        run_name=job.run_name,
        staging=str(made.place.root.absolute()),
        dataset=str(job.dataset.absolute()),
        backend=job.execution,
        agent=job.agent,
        model_name=job.model_name,
        agent_config=None if job.agent_config is None else str(job.agent_config.absolute()),
        agent_config_text=_config_text(job) if made.stage == "agent" else None,
        messaging=job.messaging,
        git=job.git,
        redis_url=redis_url,
        environment=_environment(made),
        secrets=variables_for(job, made.stage),
        sandbox=_sandbox(made),
    )


def _config_text(job: CellJob) -> str | None:
    """The agent config where the child has no file of it: other machines do not have ours."""
    return job.agent_config_text if job.fleet is None else config_text(job)


def _names(made: Try) -> dict[str, str]:
    """Variables that tell agents and test programs which try they are part of.

    Where the dataset lies is for agents' harness alone: test programs run code that agents wrote, and the dataset
    holds the solutions.
    """
    return {
        "COOPERBENCH_ASSETS_PAIR": made.pair.name,
        "COOPERBENCH_ASSETS_SEED": str(made.job.seed),
        "COOPERBENCH_ASSETS_ATTEMPT": str(made.attempt.n),
    }


def _environment(made: Try) -> dict[str, str]:
    environment = {**_names(made), "COOPERBENCH_ASSETS_DATASET": str(made.job.dataset)}
    if made.job.execution == "docker" and made.stage == "agent":
        environment[LABELS] = label_lines(_labels(made))
    return environment


def _sandbox(made: Try) -> dict[str, Any]:
    job = made.job
    return {
        **job.sandbox,
        "test_timeout_seconds": job.limits.test_timeout_seconds,
        "environment": {**job.sandbox.get("environment", {}), **_names(made)},
        "labels": _labels(made),
    }


def _labels(made: Try) -> dict[str, str]:
    """What a container is for."""
    return {
        "cell": cell_of(made.job.run_dir),
        "experiment": made.job.experiment,
        "setting": made.job.setting,
        "seed": str(made.job.seed),
        "pair": made.pair.name,
        "attempt": f"{made.stage}-{made.attempt.n}",
    }
