"""The benchmark judged by itself: every task's own solution, evaluated twice, by no agent and no model.

What belongs here: seeding runs with the dataset's own patches, having them evaluated as any other run, and reading
what came of it. What does not: how evaluations are run (``api``), and tables and checks of it.

Solo is the task's ``combined.patch``; coop is the two features' ``feature.patch``, which the evaluation merges. Some of
those conflict on purpose: that is what the benchmark asks of two agents, and no fault of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets.execution.attempts.records import now
from cooperbench_assets.execution.job import GOLD
from cooperbench_assets.execution.provenance import read_provenance, write_provenance
from cooperbench_assets.execution.runner.further_verdicts import read_verdicts
from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.runner.further_verdicts import Verdict

Mode = Literal["solo", "coop"]
MODES: Final[tuple[Mode, ...]] = ("solo", "coop")


@dataclass(frozen=True, slots=True)
class GoldRow:
    """What became of one pair's own solution in one mode."""

    pair: Pair
    mode: Mode
    first: str
    """Outcome of the first evaluation: pass, fail, infra_error, unevaluated or missing."""

    first_reason: str | None
    second: str | None
    """Outcome of the second one: pass, fail or infra_error; None where there is none."""

    second_reason: str | None
    conflicts: bool
    """The two features' patches do not merge."""

    evidence: str | None

    @property
    def flaky(self) -> bool | None:
        """Two clean verdicts that differ; None without two."""
        clean = [one for one in (self.first, self.second) if one in ("pass", "fail")]
        return clean[0] != clean[1] if len(clean) == 2 else None

    @property
    def sound(self) -> bool | None:
        """It passes, or conflicts on purpose, every time; None where that is not known yet."""
        if self.flaky or (self.first == "fail" and not self.conflicts):
            return False
        return None if self.flaky is None else True


def setting(mode: Mode) -> str:
    """The label of the cell in which this stands in the store."""
    return f"{GOLD}-{mode}"


def gold_job(job: CellJob, mode: Mode) -> CellJob:
    """The cell of gold in one mode, from the job of any cell of the experiment."""
    return replace(
        job,
        setting=setting(mode),
        seed=0,
        mode=mode,
        messaging=False,
        git=False,
        run_name=f"{job.experiment}-{setting(mode)}",
        model_name=GOLD,
        agent=GOLD,
        agent_config=None,
        agent_config_text=None,
        accepted=frozenset(),
        secrets=(),
        external_agents=(),
        siblings=(),
    )


def seed(job: CellJob) -> dict[Pair, str]:
    """Write what agents that submit the dataset's own patches would have left; what is there already stays.

    Returns:
        Pairs that could not be seeded, with the reason.
    """
    if not (record := read_provenance(job.run_dir)).get("gold"):
        job.run_dir.mkdir(parents=True, exist_ok=True)
        write_provenance(job.run_dir, {"origin": "executed", **record, "gold": True})
    problems = {}
    for pair in job.subset.pairs:
        try:
            patches = dict(_patches(job, pair))
        except OSError as error:
            problems[pair] = f"the dataset has no {error.filename}: {error.strerror}"
            continue
        _seed_pair(job, pair, patches)
    return problems


def _patches(job: CellJob, pair: Pair) -> Iterator[tuple[str, bytes]]:
    """Name of an agent → its patch, in the order of features."""
    task = job.dataset / pair.task.folder
    if job.mode == "solo":
        yield "solo", (task / "combined.patch").read_bytes()
        return
    for feature in pair.features:
        yield f"agent{feature}", (task / f"feature{feature}" / "feature.patch").read_bytes()


def _seed_pair(job: CellJob, pair: Pair, patches: Mapping[str, bytes]) -> None:
    folder = job.pair_dir(pair)
    if (folder / "result.json").is_file() and all(_same(folder / f"{name}.patch", patches[name]) for name in patches):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in patches.items():
        write_atomically(folder / f"{name}.patch", content, durable=False)
    if job.mode == "coop":
        write_atomically(folder / "conversation.json", b"[]", durable=False)
    write_atomically(folder / "result.json", json.dumps(_result(job, pair, patches), indent=2).encode())


def _same(file: Path, content: bytes) -> bool:
    return file.is_file() and file.read_bytes() == content


def _result(job: CellJob, pair: Pair, patches: Mapping[str, bytes]) -> dict[str, Any]:
    """A result as upstream writes it, of agents that took no step and cost nothing."""
    # Upstream's times have no zone; those of its runs here are UTC.
    moment = now().partition("+")[0]
    one = {
        name: {
            "status": "Submitted",
            "cost": 0,
            "steps": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "cache_read_tokens": 0,
            "cache_write_tokens": 0,
            "patch_lines": len(patches[name].splitlines()),
            "error": None,
        }
        for name in patches
    }
    agents: dict[str, Any] = {"agent": one["solo"]} if job.mode == "solo" else {"agents": {}, "messages_sent": 0}
    if job.mode == "coop":
        for n, (feature, record) in enumerate(zip(pair.features, one.values(), strict=True), 1):
            agents["agents"][f"agent{n}"] = {"feature_id": feature, **record}
    return {
        "repo": pair.repo,
        "task_id": pair.task_id,
        "features": list(pair.features),
        "setting": job.mode,
        "run_id": GOLD,
        "run_name": job.run_name,
        "agent_framework": GOLD,
        "model": GOLD,
        "started_at": moment,
        "ended_at": moment,
        "duration_seconds": 0.0,
        **agents,
        "total_cost": 0,
        "total_steps": 0,
        "log_dir": f"logs/{job.run_name}/{job.mode}/{pair.name}",
    }


def read_gold(job: CellJob) -> list[GoldRow]:
    """What became of every planned pair in one mode; nothing was evaluated where the run is not there.

    Raises:
        LogTreeError: if the run folder cannot be read as one run.
    """
    reading = read_run(job.run_dir, job.mode)
    further = read_verdicts(job.run_dir, job.mode)
    rows = []
    for pair in job.subset.pairs:
        found = reading.pairs.get(pair)
        outcome = judge(found)
        merged = None if found is None or found.evaluation is None else found.evaluation.merge_status
        second = _second(further.get(pair, {}))
        rows.append(
            GoldRow(
                pair,
                "solo" if job.mode == "solo" else "coop",
                outcome.outcome,
                outcome.reason or outcome.family,
                None if second is None else second.verdict or "infra_error",
                None if second is None else second.reason or second.family,
                merged == "conflicts",
                outcome.evidence or (None if second is None else second.evidence),
            )
        )
    return rows


def _second(given: Mapping[int, Verdict]) -> Verdict | None:
    """The first clean one of a pair's further verdicts, else the latest: a round can use up its tries without one."""
    rounds = [given[number] for number in sorted(given)]
    return next((one for one in rounds if one.done), rounds[-1] if rounds else None)


def to_judge(job: CellJob) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Pairs whose solution has no clean first verdict, and those with one that have no second. Nothing is changed."""
    rows = read_gold(job) if job.run_dir.is_dir() else []
    given: Mapping[Pair, Mapping[int, Verdict]] = read_verdicts(job.run_dir, job.mode) if rows else {}
    first = {row.pair for row in rows if row.first in ("pass", "fail")}
    done = {pair for pair in first if (second := _second(given.get(pair, {}))) is not None and second.done}
    pairs = job.subset.pairs
    return tuple(pair for pair in pairs if pair not in first), tuple(pair for pair in pairs if pair in first - done)


def unsound(job: CellJob) -> dict[str, str] | None:
    """Names of the pairs whose own solution fails or flakes, with the mode; None if gold was never evaluated."""
    found: dict[str, str] = {}
    looked = False
    for mode in MODES:
        gold = gold_job(job, mode)
        if not gold.run_dir.is_dir():
            continue
        try:
            rows = read_gold(gold)
        except LogTreeError:
            continue
        looked = looked or any(row.first in ("pass", "fail") for row in rows)
        found |= {row.pair.name: mode for row in rows if row.sound is False}
    return found if looked else None
