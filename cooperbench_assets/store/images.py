"""The table of task images: which image each task of an experiment runs in.

What belongs here: its declaration. What does not: looking at images (``execution.sandboxes.docker.images``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.store.schema import TIME, Column, Table

TASK_IMAGES = Table(
    "task_images",
    "One row for every task of an experiment's subset: the container image that its agents and tests run in.",
    (
        Column("experiment", pl.String, "Name of the experiment: the folder of its defs.yaml"),
        Column("repo", pl.String, "Repository of the task, as the dataset names it"),
        Column("task_id", pl.Int32, "Number of the task in its repository"),
        Column("image", pl.String, "Name of the image, with its tag"),
        Column("state", pl.String, "ready, missing (not there, and could not be pulled) or unsuitable"),
        Column("problem", pl.String, "What is wrong with it; NULL where it is ready"),
        Column("family", pl.String, "Family of the failure, from benchmark.failures; NULL where it is ready"),
        Column("image_id", pl.String, "The engine's id of the image; NULL where it is missing"),
        Column("digest", pl.String, "The registry's digest; NULL for an image that was made on this machine"),
        Column("locked", pl.String, "Digest or id that the lock file names; NULL where it names none"),
        Column("changed", pl.Boolean, "It is not the image that the lock names; NULL where that cannot be said"),
        Column("size_bytes", pl.Int64, "Size on disk, shared layers counted; NULL where it is missing"),
        Column("head", pl.String, "Commit that the checkout in the image is at; NULL where it was not looked into"),
        Column("pulled", pl.Boolean, "It was pulled just then, because it was not there"),
        Column("looked_at", TIME, "When this was found"),
    ),
    key=("experiment",),
    volatile=("pulled", "looked_at"),
)
