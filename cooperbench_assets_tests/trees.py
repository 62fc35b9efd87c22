"""Log trees of any shape, for tests: solo, coop and team, older layouts, attempts, and anything broken.

What belongs here: writing the files as upstream writes them, each with what a test wants changed. What does not:
running anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cooperbench_assets.benchmark.pairs import Pair, Subset, load_subset

Json = dict[str, Any]

START = "2026-07-16T10:00:00.000001"
END = "2026-07-16T10:05:00.000001"
EVALUATED = "2026-07-16T11:00:00.000001"


def pairs(count: int) -> tuple[Pair, ...]:
    """Distinct pairs over two tasks of one made-up repository."""
    return tuple(Pair("sprout_task", 7 + n % 2, (1 + n // 2, 40)) for n in range(count))


def write_subset(path: Path, planned: Sequence[Pair]) -> Subset:
    """A subset file of these pairs, loaded."""
    tasks: dict[tuple[str, int], list[list[int]]] = {}
    for pair in planned:
        tasks.setdefault((pair.repo, pair.task_id), []).append(list(pair.features))
    content = [{"repo": repo, "task_id": task, "pairs": listed} for (repo, task), listed in tasks.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": path.stem, "tasks": content}))
    return load_subset(path)


def agent(**changes: Any) -> Json:
    """One agent's part of a result.json."""
    base: Json = {
        "status": "Submitted",
        "cost": 0.25,
        "steps": 12,
        "input_tokens": 1000,
        "output_tokens": 200,
        "cache_read_tokens": 5000,
        "cache_write_tokens": 300,
        "patch_lines": 40,
        "error": None,
    }
    return base | changes


def result(pair: Pair, mode: str = "solo", agents: Sequence[Json] = (), **changes: Any) -> Json:
    """A result.json: of one agent in solo, else of one for each feature, the second one listed first."""
    base: Json = {
        "repo": pair.repo,
        "task_id": pair.task_id,
        "features": list(pair.features),
        "setting": mode,
        "run_id": "0f0f0f0f",
        "run_name": "a-run",
        "agent_framework": "mini_swe_agent_v2",
        "model": "some-model",
        "started_at": START,
        "ended_at": END,
        "duration_seconds": 300.0,
        "total_cost": 0.25 if mode == "solo" else 0.5,
        "total_steps": 12 if mode == "solo" else 24,
        "log_dir": f"logs/a-run/{mode}/{pair.name}",
    }
    if mode == "solo":
        base["agent"] = agents[0] if agents else agent()
    else:
        both = list(agents) or [agent(), agent()]
        numbered = list(zip(("agent1", "agent2"), pair.features, both, strict=True))
        base["agents"] = {name: {"feature_id": feature, **one} for name, feature, one in reversed(numbered)}
        base["messages_sent"] = 0
    return base | changes


def feature(passed: bool, output: str | None = None, **changes: Any) -> Json:
    """The tests of one feature as eval.json has them."""
    said = "3 passed in 0.1s" if passed else "1 failed, 2 passed in 0.1s"
    return {"passed": passed, "test_output": said if output is None else output, **changes}


def evaluation(
    pair: Pair,
    mode: str = "solo",
    passed: tuple[bool, bool] = (True, True),
    outputs: tuple[str | None, str | None] = (None, None),
    merge: tuple[str, str | None] = ("clean", "naive"),
    applied: tuple[str, str] | None = ("applied", "applied"),
    **changes: Any,
) -> Json:
    """An eval.json. In coop the features carry exit codes and counts, and the merge and the patches are told of."""
    base: Json = {
        "repo": pair.repo,
        "task_id": pair.task_id,
        "features": list(pair.features),
        "setting": "solo" if mode == "solo" else "coop",
        "merge": None,
        "feature1": feature(passed[0], outputs[0]),
        "feature2": feature(passed[1], outputs[1]),
        "both_passed": all(passed),
        "error": None,
        "evaluated_at": EVALUATED,
    }
    if mode != "solo":
        base["merge"] = {"status": merge[0], "strategy": merge[1], "diff": "" if merge[0] == "conflicts" else "diff"}
        if applied is not None:
            base["apply_status"] = {"agent1": applied[0], "agent2": applied[1]}
        for key, number, ok in (("feature1", pair.features[0], passed[0]), ("feature2", pair.features[1], passed[1])):
            counts = {"tests_passed": 3 if ok else 2, "tests_failed": 0 if ok else 1, "exit_code": 0 if ok else 1}
            base[key] |= {"feature_id": number, **counts}
    return base | changes


def message(sender: str = "agent1", to: str = "agent2", text: str = "I take parser.py", **changes: Any) -> Json:
    """One message of a conversation.json."""
    return {"from": sender, "to": to, "message": text, "timestamp": 1784198013.5, "feature_id": 1, **changes}


@dataclass(frozen=True)
class Tree:
    """One run folder that is being built."""

    run_dir: Path
    mode: str = "solo"
    legacy: bool = False
    """Without the mode level, as older versions wrote it."""

    @property
    def logs(self) -> Path:
        """The log root."""
        return self.run_dir.parent

    def folder(self, pair: Pair) -> Path:
        """The pair's folder."""
        base = self.run_dir if self.legacy else self.run_dir / self.mode
        return base / pair.name

    def write(self, pair: Pair, file: str, content: bytes | str | Json | list[Any]) -> Path:
        """Write one file of a pair: bytes and text as they are, anything else as JSON."""
        return put(self.folder(pair) / file, content)

    def result(self, pair: Pair, agents: Sequence[Json] = (), **changes: Any) -> Path:
        """Write result.json."""
        return self.write(pair, "result.json", result(pair, self.mode, agents, **changes))

    def evaluation(self, pair: Pair, **changes: Any) -> Path:
        """Write eval.json; see the function of this name."""
        return self.write(pair, "eval.json", evaluation(pair, self.mode, **changes))

    def conversation(self, pair: Pair, *messages: Json) -> Path:
        """Write conversation.json."""
        return self.write(pair, "conversation.json", list(messages))

    def patches(self, pair: Pair, *contents: str) -> None:
        """Write the patch, or the patch of each feature."""
        names = ["solo.patch"] if self.mode == "solo" else [f"agent{number}.patch" for number in pair.features]
        for name, content in zip(names, contents, strict=True):
            self.write(pair, name, content)

    def pair(self, pair: Pair, passed: tuple[bool, bool] = (True, True)) -> None:
        """Write everything that a finished pair has."""
        self.result(pair)
        self.evaluation(pair, passed=passed)
        if self.mode == "solo":
            self.patches(pair, "diff --git a/x b/x\n")
        else:
            self.patches(pair, "diff --git a/x b/x\n", "diff --git a/y b/y\n")
            self.conversation(pair)

    def attempt(self, pair: Pair, stage: str, n: int, **record: Any) -> Path:
        """Write the record of a try."""
        base: Json = {
            "n": n,
            "campaign": 1,
            "stage": stage,
            "outcome": "completed",
            "family": None,
            "evidence": None,
            "retryable": None,
            "started_at": "2026-07-16T09:00:00+00:00",
            "ended_at": "2026-07-16T09:30:00+00:00",
            "cost_usd": 0.5,
            "cost_estimated": False,
            "patch_sha256": None,
            "isolation": "subprocess",
            "pid": None,
        }
        folder = self.run_dir / "attempts" / self.mode / pair.name / f"{stage}-{n}"
        return put(folder / "attempt.json", base | record)

    def config(self, **changes: Any) -> Path:
        """Write config.json of the run."""
        base = {"run_name": self.run_dir.name, "agent_framework": "mini_swe_agent_v2", "model": "some-model"}
        return put(self.run_dir / "config.json", base | {"setting": self.mode, "started_at": START} | changes)

    def eval_summary(self, errors: Mapping[Pair, str], at: str = EVALUATED) -> Path:
        """Write eval_summary.json of the run, with errors as upstream keys them."""
        listed = [
            {
                "run": f"{pair.repo}/{pair.task_id}/{pair.features[0]},{pair.features[1]}",
                "status": "error",
                "error": text,
            }
            for pair, text in errors.items()
        ]
        return put(self.run_dir / "eval_summary.json", {"evaluated_at": at, "results": listed})

    def provenance(self, **content: Any) -> Path:
        """Write provenance.json of the run."""
        return put(self.run_dir / "provenance.json", content)


def put(path: Path, content: bytes | str | Json | list[Any]) -> Path:
    """Write a file and the folders above it: bytes and text as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
    return path
