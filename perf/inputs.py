"""What is measured on: the real flash logs where they are at hand, and generated trees.

Generated trees have the sizes of the real ones: test outputs of 300 bytes to some 100 KB (most short, few long),
one pair in five failing, now and then an agent that died.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cooperbench_assets.benchmark.pairs import Pair, Subset
from cooperbench_assets_tests import trees
from perf.measure import ROOT

REAL = ROOT.parent / "shared" / "real-logs"
RUN_FILES = ("config.json", "eval_summary.json")
PAIR_FILES = ("result.json", "eval.json", "conversation.json")
"""What reading needs of a tree without patches; agents' streams are looked at only at their ends."""

SETTINGS = (("solo", "solo"), ("coop-comm", "coop"))
DRAWS = 5
"""Different cells of each setting; more than that are linked, as the content is not what is measured."""


def flash(place: Path, quick: bool) -> tuple[Path, bool]:
    """A log tree of the six flash runs, and whether it is the real one."""
    folder = place / "flash"
    archive = REAL / "flash.tar.xz"
    if archive.is_file():
        if not folder.exists():
            with tarfile.open(archive) as content:
                content.extractall(folder, filter="data")
        return folder / "logs", True
    generate(folder / "logs", cells=6, pairs=50)
    return folder / "logs", False


def planned(count: int) -> tuple[Pair, ...]:
    """Distinct pairs, 10 to a task."""
    return tuple(Pair("sprout_task", 100 + n // 10, (1 + n % 10, 40)) for n in range(count))


def subset(place: Path, count: int) -> Subset:
    """A subset of that many pairs."""
    return trees.write_subset(place / f"made-{count}.json", planned(count))


def generate(
    logs: Path, cells: int, pairs: int, messages: int = 5, settings: Sequence[tuple[str, str]] = SETTINGS
) -> list[tuple[str, int, Path]]:
    """Run folders of made-up cells: setting, seed and folder of each, the settings in turn."""
    made: list[tuple[str, int, Path]] = []
    for number in range(cells):
        setting, mode = settings[number % len(settings)]
        seed = number // len(settings)
        run = logs / f"{setting}-seed{seed}"
        made.append((setting, seed, run))
        if run.exists():
            continue
        if seed < DRAWS:
            _write_run(run, mode, pairs, messages, seed)
        else:
            shutil.copytree(logs / f"{setting}-seed{seed % DRAWS}", run, copy_function=os.link)
    return made


def _write_run(run: Path, mode: str, pairs: int, messages: int, draw: int) -> None:
    made = trees.Tree(run, mode)
    chance = random.Random(f"{mode} {draw}")
    for pair in planned(pairs):
        passed = (chance.random() < 0.8, chance.random() < 0.8)
        made.result(pair, agents=_agents(chance, mode), duration_seconds=chance.lognormvariate(5.5, 0.7))
        made.patches(pair, *(_patch(chance) for _ in range(1 if mode == "solo" else 2)))
        made.evaluation(
            pair,
            passed=passed,
            outputs=tuple(_output(chance, one) for one in passed),
            merge=("clean", "naive") if chance.random() < 0.6 else ("conflicts", "naive"),
        )
        if mode == "coop":
            made.conversation(pair, *(_message(chance, number) for number in range(messages)))
    made.config()
    made.eval_summary({})


def _agents(chance: random.Random, mode: str) -> list[dict[str, Any]]:
    def one() -> dict[str, Any]:
        if chance.random() < 0.01:
            return trees.agent(status="Error", error="litellm.RateLimitError: 429 Too Many Requests", patch_lines=0)
        return trees.agent(cost=chance.uniform(0.1, 1.0), steps=chance.randrange(5, 60))

    return [one() for _ in range(1 if mode == "solo" else 2)]


def _patch(chance: random.Random) -> str:
    lines = "".join(f"+    value_{chance.randrange(10**6)} = {chance.random()}\n" for _ in range(40))
    return f"diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1,0 +1,40 @@\n{lines}"


def _output(chance: random.Random, passed: bool) -> str:
    length = min(int(chance.lognormvariate(8.5, 1.8)) + 300, 250_000)
    line = f"tests/test_{chance.randrange(1000)}.py::test_something_{chance.randrange(1000)} PASSED  [ 42%]\n"
    last = "3 passed in 0.12s\n" if passed else "1 failed, 2 passed in 0.12s\n"
    return line * (length // len(line)) + last


def _message(chance: random.Random, number: int) -> dict[str, Any]:
    sender, to = ("agent1", "agent2") if number % 2 else ("agent2", "agent1")
    text = chance.choice(["I take {}", "Which names do you use in {}?", "Done with {}, tests pass", "ok, {}"])
    return trees.message(sender, to, text.format(f"module_{chance.randrange(50)}.py"), timestamp=1784198013.5 + number)


def durations(logs: Path) -> dict[str, dict[Pair, float]]:
    """Recorded seconds of each pair of each run."""
    found: dict[str, dict[Pair, float]] = {}
    for file in sorted(logs.glob("*/*/*/*/*/result.json")):
        content = json.loads(file.read_bytes())
        features = content["features"]
        pair = Pair(content["repo"], content["task_id"], (min(features), max(features)))
        found.setdefault(file.relative_to(logs).parts[0], {})[pair] = content["duration_seconds"]
    return found


def tree_size(folder: Path) -> tuple[int, int]:
    """Files and bytes below a folder."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)
