"""Projects whose experiments run on a Docker engine, with the demo's tasks as images."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from cooperbench_assets.benchmark.pairs import Subset, find_subset, load_subset
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import Belonging, belongings
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.local_runs import Launcher
from cooperbench_assets.project import Project
from cooperbench_assets.run_results import Ran
from cooperbench_assets.spec import parse_experiment
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.projects import CHECKOUT, make_project

SOLO = {"solo": {"mode": "solo", "seeds": [0]}}
COOP = {"coop-comm": {"mode": "coop", "seeds": [0]}}
LIMITS = {"concurrency": 2, "eval_concurrency": 4, "test_timeout_seconds": 60, "pair_timeout_minutes": 3}
MODEL = "openai/scripted"
PRICES = {"input_cost_per_token": 0.000002, "output_cost_per_token": 0.00001}
"""USD; litellm knows no price of a made-up model, and takes these from the agent config."""


def demo_experiment(dataset: Path, **changes: Any) -> dict[str, Any]:
    """The demo's scripted agents, whose patches are tested on Docker."""
    return {
        "model_name": "scripted/demo",
        "agent": "scripted",
        "external_agents": ["cooperbench_assets.demo.agents"],
        "environment": {"PYTHONPATH": str(CHECKOUT)},
        "subset": "tiny",
        "dataset": str(dataset),
        "dataset_module": "cooperbench_assets.demo",
        "execution": "docker",
        "settings": SOLO,
        "limits": LIMITS,
        **changes,
    }


def model_experiment(dataset: Path, url: str, *, kwargs: Mapping[str, Any] | None = None, **changes: Any) -> Any:
    """Upstream's own agent, asking the model at `url`."""
    model_kwargs = {"api_base": url, "timeout": 20, **PRICES, **(kwargs or {})}
    return {
        "model_name": MODEL,
        "agent": "mini_swe_agent_v2",
        "agent_config": {"config": {"agent": {"step_limit": 20}, "model": {"model_kwargs": model_kwargs}}},
        "environment": {"MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "1", "DEFAULT_MAX_RETRIES": "0"},
        "secrets": ["OPENAI_API_KEY"],
        "subset": "tiny",
        "dataset": str(dataset),
        "execution": "docker",
        "settings": SOLO,
        "limits": LIMITS,
        "docker": {"memory_gb": 1, "cpus": 2, "pids": 500},
        **changes,
    }


class Place:
    """One experiment in a project of its own, with a name that no other test's has."""

    def __init__(self, root: Path, attributes: Mapping[str, Any]) -> None:
        self.name = f"tried-{secrets.token_hex(4)}"
        self.project: Project = make_project(root, {self.name: attributes})
        self.spec = parse_experiment(self.name, dict(attributes), root / "defs.yaml")

    @contextmanager
    def launcher(self) -> Iterator[Launcher]:
        """Runs of it in this process."""
        with Launcher(self.project, self.name, self.spec) as launcher:
            yield launcher

    def run(self, setting: str = "solo", seed: int = 0, **config: Any) -> Ran:
        """The images, then one cell, through the assets."""
        with self.launcher() as launcher:
            first = launcher.run_subset()
            if first.error is not None:
                return first
            return launcher.run_cell(Cell(self.name, setting, seed), config)

    def publish(self) -> Ran:
        """The store and the analyses."""
        with self.launcher() as launcher:
            return launcher.run_store()

    def gold(self) -> Ran:
        """The images and the gold baseline."""
        with self.launcher() as launcher:
            first = launcher.run_subset()
            return first if first.error is not None else launcher.run_gold()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the published store says."""
        return query(self.project.database, sql).rows()

    def table(self, setting: str, name: str = "pairs", seed: int = 0) -> pl.DataFrame:
        """A cell's partition table."""
        folder = self.project.tables / self.name / "cells" / setting / str(seed)
        (file,) = folder.glob(f"@*/{name}.parquet")
        return pl.read_parquet(file)

    def outcomes(self, setting: str = "solo") -> dict[str, str]:
        """Every pair's outcome, with its stage and family of an infrastructure error."""
        rows = self.table(setting).select("pair", "outcome", "stage", "family").rows()
        return {pair: " ".join(filter(None, (outcome, stage, family))) for pair, outcome, stage, family in rows}

    def left(self, engine: Engine) -> list[Belonging]:
        """What the experiment has on the engine."""
        return [one for one in belongings(engine) if one.described.get("experiment") == self.name]

    @property
    def experiment(self) -> ExperimentContext:
        """The experiment as the assets see it."""
        return ExperimentContext(self.name, self.spec, self.project)

    @property
    def subset(self) -> Subset:
        """The pairs that are planned."""
        dataset = self.project.resolve(self.spec.dataset)
        return load_subset(find_subset(self.spec.subset, dataset), dataset)


@contextmanager
def in_background(work: Any, *args: Any) -> Iterator[threading.Thread]:
    """Run something beside the test, and wait for its end."""
    thread = threading.Thread(target=work, args=args)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
