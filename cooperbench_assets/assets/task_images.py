"""The asset task_images: the container images of an experiment's tasks, there, looked into, and pinned.

What belongs here: what a materialisation does and reports. What does not: images (``execution.sandboxes.docker``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from cooperbench_assets.assets.check_events import check_results, check_specs
from cooperbench_assets.assets.describe import table_value
from cooperbench_assets.assets.experiment_assets import asset_spec, look, write_table
from cooperbench_assets.assets.keys import asset_key, op_name
from cooperbench_assets.assets.redacted_steps import keeping_secrets
from cooperbench_assets.checks.task_images import TASK_IMAGES_CHECKS, ImagesView
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.image_lock import image_rows, read_lock, update_lock
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.store.images import TASK_IMAGES
from cooperbench_assets.store.redacted_frames import without_secrets

if TYPE_CHECKING:
    from cooperbench_assets.execution.sandboxes.docker.images import ImageRecord, Progress

NAME = TASK_IMAGES.name


class ImagesConfig(dg.Config):
    """What a person may want differently for one materialisation."""

    accept: bool = Field(default=False, description="Pin the images that are there now, in place of the locked ones.")


def build_task_images(experiment: ExperimentContext) -> dg.AssetsDefinition:
    """task_images of one experiment."""
    key = asset_key(experiment.name, NAME)
    spec = asset_spec(
        experiment,
        TASK_IMAGES,
        after=["subset_pairs"],
        description="The container image of every task: pulled where it was not there, looked into, and "
        "pinned by its digest.",
        kind="docker",
    )

    @dg.multi_asset(name=op_name(experiment.name, NAME), specs=[spec], check_specs=check_specs(key, TASK_IMAGES_CHECKS))
    def task_images(
        context: dg.AssetExecutionContext, config: ImagesConfig
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        with keeping_secrets(experiment, context.log):
            records, view = make_ready(experiment, context, accept=config.accept)
            findings = look(experiment, TASK_IMAGES, TASK_IMAGES_CHECKS, view)
            if problem := trouble(records):
                yield from check_results(key, findings)
                raise LaunchError(f"{experiment.name}: {problem}")
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                "dagster/row_count": view.images.height,
                "pulled": sum(record.pulled for record in records),
                "lock": dg.MetadataValue.path(str(experiment.image_lock)),
                "images": table_value(view.images.select("image", "state", "digest", "size_bytes", "head", "changed")),
            },
            check_results=check_results(key, findings),
        )

    return task_images


def make_ready(
    experiment: ExperimentContext, context: dg.AssetExecutionContext, *, accept: bool = False
) -> tuple["list[ImageRecord]", ImagesView]:
    """Make the images of the experiment's tasks ready; record them in the table and, where ready, in the lock.

    Raises:
        LaunchError: if no engine answers, or the lock file cannot be read; nothing is recorded then.
    """
    # Imported here: it brings the Docker SDK, which loading the code location needs for nothing else.
    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.execution.sandboxes.docker.images import Preparation, prepare_images

    lock = read_lock(experiment.image_lock)
    tasks = experiment.subset().tasks
    chosen = Preparation(
        verified=experiment.image_lock.with_name("verified.json"), progress=_progress_log(context, len(tasks))
    )
    try:
        with Engine.connect() as engine:
            on = engine.identity()
        records = prepare_images(tasks, chosen)
    except InfrastructureError as error:
        raise LaunchError(f"{experiment.name}: {error.text}") from error
    update_lock(experiment.image_lock, records, on, accept=accept)
    compared = read_lock(experiment.image_lock) if accept else lock
    rows = image_rows(experiment.name, records, compared, datetime.now(UTC).replace(tzinfo=None))
    frame = without_secrets(TASK_IMAGES.frame(rows), experiment.redactor)
    write_table(experiment, TASK_IMAGES, frame)
    return records, ImagesView(experiment.name, frame)


def trouble(records: "Sequence[ImageRecord]") -> str:
    """What keeps images from being ready, in one sentence; empty if all are."""
    bad = [record for record in records if record.state != "ready"]
    if not bad:
        return ""
    causes = Counter(record.problem or record.state for record in bad)
    first, times = causes.most_common(1)[0]
    others = f", and {len(bad) - times} others that task_images lists" if len(bad) > times else ""
    return f"{len(bad)} of {len(records)} task images are not ready: {first}{others}"


def _progress_log(context: dg.AssetExecutionContext, total: int) -> Any:
    """Says to the log what becomes of each image; called from several threads."""
    lock = threading.Lock()
    ended = 0
    quarters: dict[str, int] = {}

    def tell(progress: "Progress") -> None:
        nonlocal ended
        with lock:
            if progress.step in ("ready", "missing", "unsuitable"):
                ended += 1
                context.log.info(f"{ended} of {total}: {progress.image}: {progress.step} {progress.text}".rstrip())
            elif progress.step == "retrying":
                context.log.warning(f"{progress.image}: pulled again: {progress.text}")
            elif progress.step == "pulling" and progress.total_bytes:
                quarter = 4 * progress.done_bytes // progress.total_bytes
                if quarter > quarters.get(progress.image, -1):
                    quarters[progress.image] = quarter
                    gigabytes = f"{progress.done_bytes / 1e9:.1f} of {progress.total_bytes / 1e9:.1f} GB"
                    context.log.info(f"{progress.image}: {gigabytes} pulled")

    return tell
