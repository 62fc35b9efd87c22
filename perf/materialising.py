"""One materialisation of pair_results, Dagster included, against an asset that does nothing."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.

import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from cooperbench_assets.assets.check_events import check_specs
from cooperbench_assets.assets.keys import asset_key, op_name, partition_key, partitions_of
from cooperbench_assets.checks.pair_results import PAIR_RESULTS_CHECKS
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.local_runs import QUIET
from cooperbench_assets.project import Project
from cooperbench_assets.spec import parse_experiment
from cooperbench_assets_tests import trees
from perf import inputs
from perf.measure import Contender, race
from perf.results import Section, Target, find

SETTINGS = {"coop-comm": {"mode": "coop", "seeds": [0, 1]}}
ASSET = "pair_results"
ALLOWED_MS = 40


def experiment(place: Path, pairs: int = 100) -> ExperimentContext:
    """An experiment that reads generated logs of one coop cell."""
    trees.write_subset(place / "data" / "dataset" / "subsets" / "made.json", inputs.planned(pairs))
    inputs.generate(place / "data" / "logs", cells=2, pairs=pairs)
    attributes = {"subset": "made", "settings": SETTINGS, "run_name": "{setting}-seed{seed}"}
    return ExperimentContext("made", parse_experiment("made", attributes, place / "defs.yaml"), Project(place))


def empty_asset(one: ExperimentContext, *, checks: bool) -> dg.Definitions:
    """An asset of the same name, partitions and checks, with a function that does nothing."""
    key, partitions = asset_key(one.name, ASSET), partitions_of(one.spec)
    specs = check_specs(key, PAIR_RESULTS_CHECKS, partitions) if checks else []

    @dg.multi_asset(
        name=op_name(one.name, ASSET),
        specs=[dg.AssetSpec(key, skippable=True)],
        partitions_def=partitions,
        check_specs=specs,
        can_subset=True,
    )
    def empty() -> Iterator[dg.MaterializeResult[Any]]:
        passed = [dg.AssetCheckResult(asset_key=key, check_name=spec.name, passed=True) for spec in specs]
        yield dg.MaterializeResult(asset_key=key, check_results=passed)

    return dg.Definitions(assets=[empty])


def materialiser(
    definitions: dg.Definitions, one: ExperimentContext, instance: dg.DagsterInstance
) -> Callable[[], None]:
    """A function that materialises pair_results of the one cell."""
    job = definitions.resolve_implicit_global_asset_job_def()
    key = partition_key(one.cells[0].cell)

    def materialise() -> None:
        done = job.execute_in_process(
            instance=instance,
            partition_key=key,
            asset_selection=[asset_key(one.name, ASSET)],
            run_config={"loggers": QUIET},
        )
        assert done.success

    return materialise


def changer(one: ExperimentContext) -> Callable[[], None]:
    """A function that changes a verdict of the cell, as an evaluation would."""
    file = next(one.run_dir(one.cells[0]).rglob("eval.json"))
    content, ticks = json.loads(file.read_bytes()), itertools.count()

    def change() -> None:
        content["evaluated_at"] = f"2026-07-16T11:00:00.{next(ticks):06}"
        file.write_text(json.dumps(content))

    return change


def measure(place: Path, quick: bool) -> Section:
    """The table's second row."""
    warnings.simplefilter("ignore")
    one = experiment(place)
    (place / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(place / "instance")) as instance:
        ours = materialiser(experiment_definitions(one), one, instance)
        empty = materialiser(empty_asset(one, checks=False), one, instance)
        checked = materialiser(empty_asset(one, checks=True), one, instance)
        cell = one.cells[0]
        records = race(
            [
                Contender("empty function", "floor", empty),
                Contender("empty function, its checks reported", "floor", checked),
                Contender("ours: one verdict changed", "ours", ours, n=100, before=changer(one)),
                Contender("ours: nothing changed", "part", ours, n=100),
                Contender("without Dagster: read, judge, tables", "part", lambda: one.view(cell), n=100),
            ],
            rounds=5 if quick else 25,
            warm=2,
        )

    def over(base: str) -> float:
        seconds = find(records, "ours: one verdict changed").seconds, find(records, base).seconds
        return 1000 * ((seconds[0] or 0) - (seconds[1] or 0))

    bare, same = over("empty function"), over("empty function, its checks reported")
    view = 1000 * (find(records, "without Dagster: read, judge, tables").seconds or 0.0)
    return Section(
        name="materialising",
        title="Materialise pair_results of one cell",
        records=records,
        targets=[
            Target(
                text=f"≤ {ALLOWED_MS} ms over the empty one with the same checks",
                value=f"{same:.0f} ms",
                met=same <= ALLOWED_MS,
                why=f"{view:.0f} ms of it are reading, judging, making the tables and comparing the patches; most of "
                "the rest is writing the tables and the findings so that they survive a power cut.",
            ),
        ],
        text=(
            f"100 coop pairs, in process, with a SQLite instance. The empty function has the same name, partitions and "
            f"{len(PAIR_RESULTS_CHECKS)} checks; without any check it is {bare:.0f} ms quicker than ours: each check "
            "result is an event that Dagster stores. One verdict of the cell is changed before each round of ours, so "
            "that everything is written anew and synced to the disk."
        ),
        facts={"materialise_seconds": find(records, "ours: one verdict changed").seconds or 0.0},
    )
