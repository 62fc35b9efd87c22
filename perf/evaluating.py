"""Evaluating demo pairs: our sandboxes against upstream's own command, from the start of the process to its end."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from cooperbench_assets.benchmark.pairs import load_subset
from cooperbench_assets.demo import DEMO_AGENT, DEMO_MODEL, DEMO_MODULE, build_dataset
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.job import CellJob, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.execution.sandboxes.docker.images import build_task_images
from perf.measure import ROOT, run_command
from perf.results import Record, Section, Target

RUN = "perf-coop"
AT_ONCE = 4
IMPORT = "waited for the harness's import, seconds:"
DOCKER_TIMES, PROCESS_TIMES = 3, 6


def job(logs: Path, dataset: Path, state: Path, execution: str) -> CellJob:
    """A coop cell of the demo, without the failures that its experiment scripts."""
    return CellJob(
        experiment="perf",
        setting="coop-nocomm",
        seed=0,
        mode="coop",
        run_name=RUN,
        logs=logs,
        dataset=dataset,
        subset=load_subset(dataset / "subsets" / "lite.json"),
        model_name=DEMO_MODEL,
        agent=DEMO_AGENT,
        execution="docker" if execution == "docker" else "process",
        external_agents=(DEMO_MODULE,),
        limits=Limits(concurrency=AT_ONCE, eval_concurrency=AT_ONCE, test_timeout_seconds=60, pair_timeout_minutes=2),
        state=state,
    )


def make_results(place: Path, pairs: int) -> tuple[Path, Path, Path]:
    """Dataset, state folder, and a log tree with agents' results of so many pairs and nothing else."""
    dataset, state, logs = build_dataset(place / "dataset"), place / "state", place / "results"
    state.mkdir()
    (state / "slots.toml").write_text(f"agents = {AT_ONCE}\nevaluations = {AT_ONCE}\n")
    run_agents(job(logs, dataset, state, "process"), LaunchOptions(at_most=min(100, 2 * pairs)))
    results = sorted((logs / RUN / "coop").rglob("result.json"))
    for number, file in enumerate(file for file in results if _submitted(file)):
        if number >= pairs:
            shutil.rmtree(file.parent)
    for file in results:
        if file.exists() and not _submitted(file):
            shutil.rmtree(file.parent)
    for name in ("attempts", ".staging"):
        shutil.rmtree(logs / RUN / name, ignore_errors=True)
    (logs / RUN / "provenance.json").unlink()
    return dataset, state, logs


def _submitted(result: Path) -> bool:
    agents = json.loads(result.read_bytes())["agents"].values()
    return all(agent["status"] == "Submitted" for agent in agents)


def verdicts(logs: Path) -> dict[str, bool]:
    """Upstream's verdict of each pair."""
    found = {}
    for file in sorted((logs / RUN / "coop").rglob("eval.json")):
        found[str(file.parent.relative_to(logs))] = bool(json.loads(file.read_bytes())["both_passed"])
    return found


def main() -> None:
    """In a process of its own: evaluate what a log tree holds."""
    logs, dataset, state, execution = sys.argv[1:]
    report = run_evaluations(job(Path(logs), Path(dataset), Path(state), execution), LaunchOptions())
    print(f"launched {report.launched}, failed {report.failed}")
    print(f"{IMPORT} {report.import_seconds}")


def ours(logs: Path, dataset: Path, state: Path, execution: str) -> list[str]:
    """The command that evaluates with our own execution."""
    code = "from perf.evaluating import main; main()"
    return [sys.executable, "-c", code, str(logs), str(dataset), str(state), execution]


def upstream(logs: Path, dataset: Path) -> list[str]:
    """Upstream's command, as people type it."""
    command = str(Path(sys.executable).with_name("cooperbench"))
    options = ["-n", RUN, "--backend", "docker", "-c", str(AT_ONCE)]
    return [command, "eval", *options, "--dataset-dir", str(dataset), "--log-dir", str(logs)]


def engine_or_reason(dataset: Path) -> str | None:
    """Make the demo's images; why that cannot be, where no engine answers."""
    try:
        with Engine.connect() as engine:
            build_task_images(engine, dataset)
    except InfrastructureError as error:
        return error.text
    return None


def measure(place: Path, quick: bool) -> Section:
    """The table's sixth row."""
    pairs = 6 if quick else 30
    dataset, state, results = make_results(place, pairs)
    missing = engine_or_reason(dataset)
    ways: dict[str, Callable[[Path], list[str]]] = {"ours, process": lambda logs: ours(logs, dataset, state, "process")}
    if missing is None:
        ways["ours, docker"] = lambda logs: ours(logs, dataset, state, "docker")
        ways["cooperbench eval, docker"] = lambda logs: upstream(logs, dataset)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, dict[str, bool]] = {}
    imports: dict[str, list[float]] = {name: [] for name in ways}
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": str(ROOT)}
    for number in range(1 if quick else 3):
        for name, command in ways.items():
            logs = place / f"{name.replace(', ', '-').replace(' ', '-')}-{number}"
            shutil.copytree(results, logs)
            ran = run_command(command(logs), env=environment, cwd=place)
            seconds[name].append(ran.seconds)
            cpu[name].append(ran.cpu_seconds)
            found[name] = verdicts(logs)
            imports[name] += [float(one) for one in re.findall(rf"{IMPORT} (\S+)", ran.output)]
            if len(found[name]) != pairs:
                raise RuntimeError(f"{name}: {len(found[name])} verdicts of {pairs}\n{ran.output[-2000:]}")
    records = [
        Record(
            name=name,
            role="ours" if name.startswith("ours") else "peer",
            seconds=median(seconds[name]),
            cpu_seconds=median(cpu[name]),
            rounds=len(seconds[name]),
            n=pairs,
            note=f"{median(imports[name]):.1f} s of it the harness's import" if imports[name] else "",
        )
        for name in ways
    ]
    return Section(
        name="evaluating",
        title="Evaluate demo pairs",
        records=records,
        targets=_targets({record.name: record.seconds or 0.0 for record in records}, missing),
        text=_what(pairs, found, missing),
        facts={"evaluation_seconds_per_pair": (records[0].seconds or 0.0) / pairs},
    )


def _targets(seconds: dict[str, float], missing: str | None) -> list[Target]:
    texts = {
        "ours, docker": (DOCKER_TIMES, f"docker ≥ {DOCKER_TIMES} × as fast as upstream"),
        "ours, process": (PROCESS_TIMES, f"process ≥ {PROCESS_TIMES} × as fast as upstream docker"),
    }
    if missing is not None:
        return [Target(text=text, value="no engine", met=None) for _, text in texts.values()]
    theirs = seconds["cooperbench eval, docker"]
    return [
        Target(text=text, value=f"{theirs / seconds[name]:.1f} ×", met=theirs / seconds[name] >= times, why=WHY)
        for name, (times, text) in texts.items()
    ]


WHY = "With few pairs, the start of Python and the harness's import, which both sides pay, weigh most."


def _what(pairs: int, found: dict[str, dict[str, bool]], missing: str | None) -> str:
    same = len({tuple(sorted(one.items())) for one in found.values()}) == 1
    said = "All ways give the same verdicts." if same else "**The ways differ in their verdicts.**"
    left_out = "" if missing is None else f" No Docker engine answers ({missing}): the rows that need one are missing."
    return (
        f"{pairs} pairs in coop with scripted agents' patches, {AT_ONCE} at once, from the start of the command to its "
        f"end, the import of the harness with it. {said}{left_out} CPU seconds do not count what the engine does."
    )
