"""Running the demo's tests without any of our execution: copies of the checkout, and plain subprocesses."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cooperbench_assets.demo.difficulty import Traits
from cooperbench_assets.demo.tasks import LIBRARIES, DemoTask, tasks

T = TypeVar("T")
R = TypeVar("R")

TASKS = {f"{task.repo}/{task.task_id}": task for task in tasks()}
PAIRS = [f"{name}/f{a}_f{b}" for name, task in TASKS.items() for a, b in task.pairs]
TRAITS = {name: Traits(**one) for name, one in json.loads((LIBRARIES / "pairs.json").read_text()).items()}
FEATURES = [(name, number) for name, task in TASKS.items() for number in task.features]

_PATHS = re.compile(r"(?<![\w/.])(/usr/local/bin/runner\.sh|/workspace|/patches)(?![\w.-])")
_numbers = itertools.count()


@dataclass(frozen=True)
class Run:
    """What a run of runner.sh, or any command in a sandbox, came to."""

    returncode: int
    output: str

    def stdout_read(self) -> str:
        return self.output

    def stderr_read(self) -> str:
        return ""

    @property
    def failed(self) -> list[str]:
        """Names of the tests that failed."""
        return re.findall(r"^____ (\S+) ____$", self.output, re.MULTILINE)


class Sandbox:
    """A private copy of a task's checkout: what upstream calls a sandbox."""

    def __init__(self, task_dir: Path, folder: Path) -> None:
        self.folder = folder
        self.task_dir = task_dir
        (folder / "patches").mkdir(parents=True)
        self.renew()
        runner = folder / "runner.sh"
        runner.write_text(self._here((task_dir / "runner.sh").read_text()))

    def renew(self) -> None:
        """The checkout as it was."""
        shutil.rmtree(self.folder / "workspace", ignore_errors=True)
        shutil.copytree(self.task_dir / "repo", self.folder / "workspace" / "repo")

    def exec(self, *args: str, environment: dict[str, str] | None = None) -> Run:
        """Run a command with the container's paths replaced by this folder's."""
        # The folder of a real interpreter first: a version manager's stand-in takes longer than a test run.
        path = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), os.environ["PATH"]])
        done = subprocess.run(
            [self._here(arg) for arg in args],
            cwd=self.folder / "workspace" / "repo",
            env={"PATH": path, "HOME": str(self.folder), "LC_ALL": "C.UTF-8", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return Run(done.returncode, done.stdout.decode())

    def test(self, tests: str, patch: str | None = None, environment: dict[str, str] | None = None) -> Run:
        """Run the task's tests on a fresh checkout."""
        self.renew()
        names = ["tests.patch"]
        (self.folder / "patches" / "tests.patch").write_text(tests)
        if patch is not None:
            names.append("feature.patch")
            (self.folder / "patches" / "feature.patch").write_text(patch)
        return self.exec("bash", "/usr/local/bin/runner.sh", *names, environment=environment)

    def terminate(self) -> None:
        shutil.rmtree(self.folder)

    def _here(self, text: str) -> str:
        return _PATHS.sub(
            lambda match: str(
                self.folder / {"/workspace": "workspace", "/patches": "patches"}.get(match[1], "runner.sh")
            ),
            text,
        )


@dataclass(frozen=True)
class Backend:
    """Upstream's EvalBackend over such copies."""

    dataset: Path
    folder: Path

    def create_sandbox(self, image: str, timeout: int = 600, workdir: str = "/workspace") -> Sandbox:
        match = re.fullmatch(r"akhatua/cooperbench-(.+):(task\d+)", image)
        assert match is not None
        return Sandbox(
            self.dataset / f"{match[1].replace('-', '_')}_task" / match[2], self.folder / f"s{next(_numbers)}"
        )


@dataclass(frozen=True)
class Bench:
    """The dataset, and places to run its tests in."""

    dataset: Path
    folder: Path

    def task_dir(self, name: str) -> Path:
        repo, _, task_id = name.partition("/")
        return self.dataset / repo / f"task{task_id}"

    def sandbox(self, task: str) -> Sandbox:
        return Sandbox(self.task_dir(task), self.folder / f"s{next(_numbers)}")

    def patch(self, task: str, feature: int, name: str = "feature") -> str:
        return (self.task_dir(task) / f"feature{feature}" / f"{name}.patch").read_text()

    def submissions(self, task: str) -> dict[str, Any]:
        repo, _, task_id = task.partition("/")
        content = json.loads((self.dataset / ".demo" / "patches" / f"{repo}-{task_id}.json").read_text())
        assert isinstance(content, dict)
        return content


def write_share(step: int, dataset: Path, file: Path) -> Path:
    """A subset of every so many-th pair of lite: some of every task."""
    lite = json.loads((dataset / "subsets" / "lite.json").read_text())["tasks"]
    pairs = [(task["repo"], task["task_id"], features) for task in lite for features in task["pairs"]]
    chosen = pairs[::step]
    assert {pair[:2] for pair in chosen} == {pair[:2] for pair in pairs}
    return write_pairs(chosen, file)


def write_pairs(pairs: Iterable[tuple[str, int, Sequence[int]]], file: Path) -> Path:
    """A subset of these pairs: repository, task and features of each."""
    tasks = [{"repo": repo, "task_id": task_id, "pairs": [features]} for repo, task_id, features in pairs]
    file.write_text(json.dumps({"name": file.stem, "tasks": tasks}))
    return file


def split(pair: str) -> tuple[str, int, int]:
    """The task's name and the features of a pair."""
    task, _, folder = pair.rpartition("/")
    a, b = re.findall(r"\d+", folder)
    return task, int(a), int(b)


def at_once(work: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """`work` on all `things`, as many at once as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, things))


def per_task(bench: Bench, work: Callable[[str, DemoTask, Sandbox], Sequence[R]]) -> list[R]:
    """`work` on every task, in one sandbox a task."""

    def one(name: str) -> Sequence[R]:
        sandbox = bench.sandbox(name)
        try:
            return work(name, TASKS[name], sandbox)
        finally:
            sandbox.terminate()

    return [result for results in at_once(one, TASKS) for result in results]
