"""What must hold of an experiment's task images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.checks.finding import Check, Finding, found
from cooperbench_assets.wording import count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ImagesView:
    """What the checks of task images look at."""

    experiment: str
    images: pl.DataFrame
    """The experiment's rows of the table ``task_images``."""

    @property
    def again(self) -> str:
        """The command that makes images ready."""
        return f"cooperbench-assets materialize {self.experiment}"


def _described(frame: pl.DataFrame) -> Iterator[str]:
    for row in frame.iter_rows(named=True):
        yield f"{row['image']}: {row['problem']}" if row["problem"] else str(row["image"])


def all_ready(view: ImagesView) -> Finding:
    """Every image is there, and is a task's: a git checkout and an executable runner in it."""
    ready = view.images.filter(pl.col("state") == "ready")
    return found(
        _described(view.images.filter(pl.col("state") != "ready")),
        good=f"all {view.images.height} images are there and looked into",
        bad=lambda n: f"{n} of {view.images.height} images {plural(n, 'is', 'are')} not ready",
        remedy=f"fix what each one names, then: {view.again}",
        numbers={"images": view.images.height, "ready": ready.height, "size_gb": _gigabytes(ready)},
    )


def digests_unchanged(view: ImagesView) -> Finding:
    """Every image is still the one that the lock file names, which earlier results were made with."""
    changed = view.images.filter(pl.col("changed").fill_null(False))
    return found(
        (
            f"{row['image']}: {row['digest'] or row['image_id']}, locked {row['locked']}"
            for row in changed.iter_rows(named=True)
        ),
        good="every image is the one that results were made with",
        bad=lambda n: f"{count(n, 'image')} other than those that earlier results were made with",
        remedy="bring the locked images back (docker pull NAME@DIGEST, docker tag), or start the results anew under "
        "another experiment; to go on with the new ones, materialise task_images with the run config accept: true",
    )


def _gigabytes(images: pl.DataFrame) -> float:
    return round(float(images["size_bytes"].sum() or 0) / 1e9, 3)


TASK_IMAGES_CHECKS: tuple[Check[ImagesView], ...] = (
    Check("all_ready", "Every image is there, with a checkout and a runner in it", all_ready),
    Check("digests_unchanged", "Every image is the one that results were made with", digests_unchanged),
)
