"""From a click in the Dagster UI to green: a cell, and all cells, against an asset that does nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from cooperbench_assets.automation.dagster_runs import PARTITION_TAG, RANGE_TAGS
from cooperbench_assets.project import Project
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.automation.ui_actions import LOCATION, REPOSITORY, graphql
from cooperbench_assets_tests.projects import add_experiment, environment, make_project
from perf import inputs
from perf.commands import CELLS, PAIRS
from perf.loading import Dev
from perf.measure import run_command
from perf.results import Record, Role, Section, Target

EMPTY_TIMES, BACKFILL_TIMES = 1.5, 2.0
PATIENCE = 600.0
LOOK_SECONDS = 0.1
EXPERIMENT = "many"
CELL_ASSETS = [[EXPERIMENT, name] for name in ("run_logs", "eval_outputs", "pair_results")]
NOTHING, CELL, COMMAND = "an empty asset", "pair_results of one cell", "all cells, command line"
SINGLE, FILLED = "all cells, single run", "all cells, backfill, until all partitions are green"
WAITED, COMPLETE = "of it, until its run is made", "until the backfill is marked as completed"

LAUNCH = (
    "mutation ($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) "
    "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"
)
RUN = "query ($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }"
LAUNCH_BACKFILL = (
    "mutation ($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) "
    "{ __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"
)
BACKFILL = "query ($b: String!) { partitionBackfillOrError(backfillId: $b) { ... on PartitionBackfill { status } } }"
RUNS_OF_BACKFILL = (
    'query ($b: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $b}]}) '
    "{ ... on Runs { results { creationTime endTime } } } }"
)
EMPTY = """import dagster as dg

@dg.asset(key=["empty", "nothing"], partitions_def=dg.StaticPartitionsDefinition(["solo/0", "solo/1"]))
def nothing() -> None:
    pass

defs = dg.Definitions(assets=[nothing], executor=dg.in_process_executor)
"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
BACKFILL_ENDED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}


def make(place: Path, cells: int) -> Project:
    """A project with an experiment of generated logs, and an asset whose function is empty."""
    project = make_project(place / "project", {})
    trees.write_subset(project.data / "dataset" / "subsets" / "made.json", inputs.planned(PAIRS))
    inputs.generate(project.data / "logs", cells=cells, pairs=PAIRS)
    settings = {name: {"mode": mode, "seeds": list(range(cells // 2))} for name, mode in inputs.SETTINGS}
    add_experiment(project, EXPERIMENT, {"subset": "made", "settings": settings, "run_name": "{setting}-seed{seed}"})
    (project.defs / "nothing").mkdir()
    (project.defs / "nothing" / "definitions.py").write_text(EMPTY)
    return project


class Clicks:
    """What the buttons of the UI ask the web server for, and what its pages ask to know how that went."""

    def __init__(self, address: str) -> None:
        self.address = address

    def run(self, assets: list[list[str]], tags: dict[str, str]) -> float:
        """Materialise a partition, or a range of them in a single run; returns the seconds until the run is green."""
        parameters = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": REPOSITORY,
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": path} for path in assets],
                "assetCheckSelection": None,
            },
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        began = time.perf_counter()
        answer = graphql(self.address, LAUNCH, p=parameters)["launchPipelineExecution"]
        run = answer["run"]["runId"]
        self._wait(lambda: graphql(self.address, RUN, r=run)["runOrError"]["status"], ENDED, "SUCCESS")
        return time.perf_counter() - began

    def backfill(self, partitions: list[str]) -> dict[str, float]:
        """Materialise all cells; returns the seconds until its run is made, green, and the backfill is complete."""
        parameters = {
            "assetSelection": [{"path": path} for path in CELL_ASSETS],
            "partitionNames": partitions,
        }
        began, at = time.perf_counter(), time.time()
        backfill = graphql(self.address, LAUNCH_BACKFILL, p=parameters)["launchPartitionBackfill"]["backfillId"]
        self._wait(
            lambda: graphql(self.address, BACKFILL, b=backfill)["partitionBackfillOrError"]["status"],
            BACKFILL_ENDED,
            "COMPLETED_SUCCESS",
        )
        seconds = time.perf_counter() - began
        runs = graphql(self.address, RUNS_OF_BACKFILL, b=backfill)["runsOrError"]["results"]
        return {
            WAITED: min(run["creationTime"] for run in runs) - at,
            FILLED: max(run["endTime"] for run in runs) - at,
            COMPLETE: seconds,
        }

    def _wait(self, look: Callable[[], Any], ended: set[str], wanted: str) -> None:
        end = time.monotonic() + PATIENCE
        while (status := look()) not in ended:
            if time.monotonic() > end:
                raise RuntimeError(f"still {status} after {PATIENCE:.0f} s")
            time.sleep(LOOK_SECONDS)
        if status != wanted:
            raise RuntimeError(f"ended as {status}")


def measure(place: Path, quick: bool) -> Section:
    """What a person waits for in the browser."""
    cells, rounds, fills = (10, 1, 1) if quick else (CELLS, 7, 5)
    project = make(place, cells)
    keys = sorted(f"{name}/{seed}" for name, _ in inputs.SETTINGS for seed in range(cells // 2))
    keys.sort(key=lambda key: (key.split("/")[0], int(key.split("/")[1])))
    variables = environment(project, COOPERBENCH_ASSETS_STATE=str(place / "state"), DAGSTER_HOME=str(project.root))
    (project.data / "dagster").mkdir(parents=True)
    code = "from cooperbench_assets.cli import main; main()"
    command = [sys.executable, "-c", code, "materialize", EXPERIMENT]
    took: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        took.setdefault(name, []).append(seconds)

    note(COMMAND, run_command(command, env=variables, cwd=project.root).seconds)
    server = Dev(project.root, variables)
    try:
        server.wait_until_loaded()
        clicks = Clicks(f"http://127.0.0.1:{server.port}")
        whole = {RANGE_TAGS[0]: keys[0], RANGE_TAGS[1]: keys[-1]}
        for number in range(rounds):
            one = {PARTITION_TAG: "solo/0"}
            for name, path in ((NOTHING, ["empty", "nothing"]), (CELL, CELL_ASSETS[-1])):
                note(name, clicks.run([path], one))
            if number < fills:
                note(SINGLE, clicks.run(CELL_ASSETS, whole))
                for name, seconds in clicks.backfill(keys).items():
                    note(name, seconds)
                note(COMMAND, run_command(command, env=variables, cwd=project.root).seconds)
    finally:
        server.stop()
    return section(took, cells)


def section(took: dict[str, list[float]], cells: int) -> Section:
    """What came out."""
    middle = {name: median(seconds) for name, seconds in took.items()}
    empty = middle[CELL] / middle[NOTHING]
    filled = middle[FILLED] / middle[COMMAND]
    roles: dict[str, Role] = {NOTHING: "floor", COMMAND: "peer", WAITED: "part", COMPLETE: "part"}
    records = [
        Record(name=name, role=roles.get(name, "ours"), seconds=middle[name], rounds=len(took[name]), n=count)
        for name, count in (
            (NOTHING, 1),
            (CELL, 1),
            (COMMAND, cells),
            (SINGLE, cells),
            (FILLED, cells),
            (WAITED, cells),
            (COMPLETE, cells),
        )
    ]
    return Section(
        name="clicks",
        title="Clicks in the UI, until green",
        records=records,
        targets=[
            Target(text=f"one cell ≤ {EMPTY_TIMES} × an empty asset", value=f"{empty:.2f} ×", met=empty <= EMPTY_TIMES),
            Target(
                text=f"{cells} cells as a backfill ≤ {BACKFILL_TIMES:.0f} × the command line",
                value=f"{filled:.2f} ×",
                met=filled <= BACKFILL_TIMES,
                why=f"{middle[WAITED]:.1f} s of {middle[FILLED]:.1f} pass before the backfill's run is made: "
                "Dagster's daemon looks for new backfills every 30 s and has no setting for it. The single run, which "
                f"the same dialog offers, waits for nothing: {middle[SINGLE] / middle[COMMAND]:.2f} ×.",
            ),
        ],
        text=(
            "What the buttons ask the web server for, in `dagster dev` with its daemon; green is what the page would "
            f"show, asked every {LOOK_SECONDS:g} s. The empty asset has two partitions and no check, and its run is "
            f"launched alike: a process of its own, which imports Dagster and the code location. {cells} cells are "
            f"of {PAIRS} pairs, read before, and read again. Dagster's daemon looks at backfills every 30 s: so long "
            "may one wait before its run is made, and before it is marked as completed."
        ),
        facts={"click_cell_seconds": middle[CELL], "click_all_seconds": middle[SINGLE]},
    )
