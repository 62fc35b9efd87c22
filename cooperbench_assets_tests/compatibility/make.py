"""Makes release_0_1.tar.xz and release_0_1.json: what release 0.1 leaves on disk, and what it says of it.

Run with the code of that release, once; what a later one makes is another fixture beside this one:

    unshare --uts sh -c 'hostname maker && python -m cooperbench_assets_tests.compatibility.make'

Dagster's SQLite files, records of processes and tracebacks hold the folder that a project lies in and the name of the
machine, so it is made at /tmp/project on a host called maker, with that project's own link to an environment.

What is in it: an experiment `mine` of five pairs in a solo and a coop cell, really run by scripted agents. Some tries
were ended by infrastructure and a later one is clean; one pair has used up its tries in two campaigns and keeps its
infrastructure error, another waits for a person; tests that hang were tried twice; the patches of one pair conflict.
Its partition tables, store, bundle, gold baseline and Dagster instance, with runs of the command line, two sensors and
a schedule switched on; and an experiment that only stands in a defs.yaml with every key that the release knows.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from cooperbench_assets.assets.execution import STAGES, LaunchConfig, plan_of
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.spec import CellSpec, load_experiments
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.execution.toy import Toy, make_toy
from cooperbench_assets_tests.projects import CHECKOUT, make_project

HERE = Path(__file__).parent
ROOT = Path("/tmp/project")
STATE = Path("/tmp/project-state")
ARCHIVE, FIGURES = HERE / "release_0_1.tar.xz", HERE / "release_0_1.json"
KEPT = ("cooperbench_assets/defs", "data/logs", "data/tables", "data/dagster", "data/results.duckdb", "mine.tar.gz")
"""What of the project is in the archive, beside the subset and the folders of the dataset."""

PAIRS = {
    "recovers": "toy_task/1/f1_f2",
    "hangs": "toy_task/1/f1_f3",
    "exhausted": "toy_task/1/f1_f4",
    "waits": "toy_task/1/f2_f3",
    "conflicts": "toy_task/1/f3_f4",
}
SWITCHED_ON = {"sensor": ("mine_retry", "mine_downstream"), "schedule": ("mine_nightly",)}

MINE: dict[str, Any] = {
    "model_name": "scripted/core",
    "agent": "core",
    "external_agents": ["core_agents"],
    "environment": {"PYTHONPATH": str(ROOT), "TOY_TASK": str(ROOT / "data/dataset/toy_task/task1")},
    "subset": "five",
    "execution": "process",
    "run_name": "{experiment}-{setting}{seed_suffix}",
    "agent_config": {
        "tries": {
            PAIRS["recovers"]: ["late:litellm.RateLimitError: Error code: 429 - rate limit reached, try again in 1s"],
            PAIRS["hangs"]: [f"patch:{ROOT}/hangs.patch"],
            PAIRS["exhausted"]: ["late:litellm.ServiceUnavailableError: Error code: 503 - upstream connect error"] * 9,
            PAIRS["waits"]: ["error:litellm.AuthenticationError: Error code: 401 - invalid key"],
        }
    },
    "settings": {
        "solo": {"mode": "solo", "seeds": [0]},
        "coop-comm": {"mode": "coop", "seeds": [0]},
    },
    "limits": {"concurrency": 2, "eval_concurrency": 2, "agent_attempts": 2, "test_timeout_seconds": 3, "breaker": 9},
    "accepted": [{"pair": PAIRS["waits"], "setting": "coop-comm", "seed": 0, "reason": "the key was revoked"}],
    "retry": {"backoff_minutes": 0},
    "nightly": "0 2 * * *",
}

EVERY_KEY: dict[str, Any] = {
    "subset": "five",
    "settings": {
        "solo": {"mode": "solo", "seeds": [0, 1], "run_name": "every-{setting}-{seed}"},
        "coop-git": {"mode": "coop", "seeds": [0], "messaging": False, "git": True},
        "team": {"mode": "team", "seeds": [3]},
    },
    "execution": "docker",
    "model_name": "openai/my-model",
    "agent": "mini_swe_agent_v2",
    "agent_config": {"config": {"agent": {"step_limit": 100, "cost_limit": 0}}},
    "run_name": "every-{experiment}-{setting}{seed_suffix}",
    "logs": "data/logs",
    "dataset": "data/dataset",
    "harness": {"python": "other/.venv/bin/python"},
    "limits": {
        "concurrency": 3,
        "eval_concurrency": 5,
        "agent_attempts": 4,
        "eval_attempts": 3,
        "pair_timeout_minutes": 45,
        "test_timeout_seconds": 300,
        "max_cost_usd": 200,
        "cell_max_cost_usd": 50,
        "expected_cost_usd": 0.4,
        "breaker": 7,
    },
    "accepted": [{"pair": PAIRS["waits"], "reason": "seen"}],
    "external_agents": ["somewhere.agents"],
    "environment": {"MY_VARIABLE": "1"},
    "secrets": ["MY_MODEL_KEY"],
    "redis_url": "docker-bridge",
    "docker": {"memory_gb": 4, "cpus": 2, "pids": 500},
    "sandbox": {"network": False},
    "preflight": {"ask_model": False, "free_gb": 5},
    "gold_accepted": [PAIRS["conflicts"]],
    "nightly": "30 1 * * 1",
    "retry": {"backoff_minutes": 10, "every_seconds": 60},
    "alerts": {"webhook_variable": "MY_WEBHOOK", "base_url": "http://127.0.0.1:3000"},
}


def make() -> Project:
    """The project, as its users would have made it: by commands."""
    for folder in (ROOT, STATE):
        shutil.rmtree(folder, ignore_errors=True)
    project = make_project(ROOT, {"mine": MINE, "every_key": EVERY_KEY})
    (ROOT / ".venv").symlink_to(sys.prefix)
    shutil.copy(CHECKOUT / "cooperbench_assets_tests/execution/core_agents.py", ROOT)
    toy = make_toy(project.data)
    write_inputs(project, toy)
    work(project)
    for kind, names in SWITCHED_ON.items():
        for name in names:
            dagster(kind, "start", name)
    command("export", "mine", "--output", "mine.tar.gz")
    forget_interpreter(project)
    return project


def forget_interpreter(project: Project) -> None:
    """Tracebacks in Dagster's files name the folder of the interpreter: put another name of that length there."""
    there = sys.base_prefix.encode()
    for file in project.dagster.rglob("*.db"):
        file.write_bytes(file.read_bytes().replace(there, b"/python".ljust(len(there), b"-")))


def work(project: Project) -> None:
    """What was done with the experiment, some of it in vain."""
    solo = ("materialize", "mine", "--setting", "solo")
    subset = project.data / "dataset" / "subsets" / "five.json"
    hidden = subset.rename(subset.with_suffix(".away"))
    command(*solo, code=3)
    hidden.rename(subset)
    failing = [word for name in ("recovers", "hangs", "exhausted") for word in ("--only", PAIRS[name])]
    command(*solo, *failing, "--only", PAIRS["conflicts"], code=1)  # With --only, a command is one round of tries.
    command(*solo, *failing, code=1)
    command(*solo, "--only", PAIRS["exhausted"], "--new-campaign", code=1)
    # A refused key ends all launches of its cell, so that pair comes last.
    command(*solo, "--only", PAIRS["waits"], code=1)
    command("materialize", "mine", "--setting", "coop-comm", code=1)
    command("materialize", "mine", "--gold")


def write_inputs(project: Project, toy: Toy) -> None:
    """The subset, tests that hang, and solutions of whole tasks, which the toy has not."""
    pairs = [[int(part[1:]) for part in name.rpartition("/")[2].split("_")] for name in PAIRS.values()]
    content = {"name": "five", "tasks": [{"repo": "toy_task", "task_id": 1, "pairs": pairs}]}
    subset = project.data / "dataset" / "subsets" / "five.json"
    subset.parent.mkdir()
    subset.write_text(json.dumps(content))
    (ROOT / "hangs.patch").write_text(toy.at_import(1, "import time; time.sleep(60)") + toy.gold(3))
    (toy.task / "combined.patch").write_text(toy.solo_gold(1, 2))


def command(*arguments: str, code: int = 0) -> str:
    """A command of the release in the project; it must end with this exit code."""
    return _run(
        [str(ROOT / ".venv/bin/python"), "-c", "from cooperbench_assets.cli import main; main()", *arguments], code
    )


def dagster(*arguments: str) -> str:
    return _run([str(ROOT / ".venv/bin/python"), "-m", "dagster", *arguments, "-w", "workspace.yaml"], 0)


def _run(argv: list[str], code: int) -> str:
    passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    given = {"PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(ROOT), "COOPERBENCH_ASSETS_STATE": str(STATE)}
    done = subprocess.run(argv, cwd=ROOT, env=passed | given, capture_output=True, text=True, check=False)
    print(*argv[3:], "→", done.returncode)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def figures(project: Project) -> dict[str, Any]:
    """What the release says of all this: the table that later releases are compared with."""
    experiment = ExperimentContext("mine", load_experiments(project.defs)["mine"], project)
    with chdir(ROOT), dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(ROOT))) as instance:
        runs = [run.status.value for run in instance.get_runs()]
        partitions = {
            name: sorted(instance.get_materialized_partitions(dg.AssetKey(["mine", name])))
            for name in ("run_logs", "eval_outputs", "pair_results")
        }
        switched_on = sorted(one.name for one in instance.all_instigator_state() if one.status.value == "RUNNING")
    return {
        "outcomes": rows(project, "SELECT setting, seed, pair, outcome, reason, stage, family, accepted FROM pairs"),
        "attempts": rows(
            project, "SELECT setting, seed, pair, stage, n, campaign, outcome, counted, family FROM attempts"
        ),
        "gold": rows(project, 'SELECT mode, pair, "first", second, sound FROM gold_baseline'),
        "blocked": {
            f"{cell.cell.setting} {asset}": blocked(experiment, cell, asset)
            for cell in experiment.cells
            for asset in STAGES
        },
        "status": json.loads(command("status", "mine", "--json")),
        "runs": {status: runs.count(status) for status in sorted(set(runs))},
        "partitions": partitions,
        "switched_on": switched_on,
    }


def blocked(experiment: ExperimentContext, cell: CellSpec, asset: str) -> list[str]:
    """Pairs that a launch would leave alone because their tries are used up, or a person is needed."""
    plan = plan_of(experiment, cell, asset, LaunchConfig(automatic=True))
    return sorted(step.pair.name for step in plan.having("blocked"))


def rows(project: Project, sql: str) -> list[list[Any]]:
    return [list(row) for row in query(project.database, f"{sql} ORDER BY ALL").rows()]


def pack(project: Project) -> None:
    """The archive: the same bytes for the same files, with nobody's name."""
    dataset = [file for file in (project.data / "dataset").rglob("*.*") if {"repo", ".git"}.isdisjoint(file.parts)]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz", preset=9) as archive:
        for path in (*(ROOT / name for name in KEPT), *sorted(dataset)):
            archive.add(path, str(path.relative_to(ROOT)), filter=_anonymous)
    ARCHIVE.write_bytes(content.getvalue())


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    made = make()
    FIGURES.write_text(json.dumps(figures(made), indent=1) + "\n")
    pack(made)
    print(f"{ARCHIVE.stat().st_size / 1e6:.2f} MB")
