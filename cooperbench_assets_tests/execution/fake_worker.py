"""A harness server without a process, for fast tests of what a launch does with its children.

What belongs here: answering as the real one does (`test_worker` holds both to the same), and leaving the files that
upstream's functions leave. What does not: asserting. Real children are in ``toy_agents`` and ``core_agents``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.runner.harness_client import (
    READY_SECONDS,
    Child,
    ChildRefused,
    HarnessError,
    HarnessServer,
)
from cooperbench_assets.execution.worker.protocol import ChildEnd, ChildRequest, HarnessInfo
from cooperbench_assets_tests import trees

INFO = HarnessInfo("0.0.29", "python", "3.12.0", None, None, {}, ("scripted",), ("process",), "subprocess", "asked for")
FIRST_PID = 2**30
"""No process has such a number."""

PATCH = "diff --git a/x b/x\n"


class Worker(HarnessServer):
    """Children do what `tries` says of their pair, one word for each try, and the right thing after the last one.

    - ``good``: a result with a patch, or a verdict of pass
    - ``fails``: a verdict of fail
    - ``error:TEXT``: a result whose agent ended with an error before its model answered once
    - ``raise:TEXT``: nothing but the text of what escaped upstream's function
    - ``half``: a result that is cut, and exit code 1
    - ``stranger``: a result of another pair
    - ``old``: a verdict from before the try
    - ``other``: a verdict of another patch than the one that is there
    - ``hang``: no end until it is killed
    - ``die``: the whole server dies
    """

    def __init__(self, tries: Mapping[str, Sequence[str]] | None = None, *, refusals: int = 0) -> None:
        super().__init__(environment={}, log=Path(os.devnull))
        self.tries = tries or {}
        self.refusals = refusals
        """Launches that the system refuses first."""

        self.launched: list[str] = []
        """Keys of the children, in order."""

        self.most = 0
        """Children that ran at once, at most."""

        self.starts = 0
        self._up = False
        self._slots: dict[str, int] = {}
        self._gone: str | None = None

    @property
    def alive(self) -> bool:
        return self._up and self._gone is None

    def start(self) -> None:
        if not self.alive:
            self.starts += 1
            self._up, self._gone = True, None

    def ready(self, timeout: float = READY_SECONDS) -> HarnessInfo:
        if not self._up:
            self.start()
        self._check()
        return INFO

    def launch(self, request: ChildRequest, slot_fd: int | None = None) -> Child:
        if request.key in self._children:
            raise ValueError(f"a child with the key {request.key!r} runs already")
        self.ready()
        if self.refusals:
            self.refusals -= 1
            raise ChildRefused("the system starts no further process: Resource temporarily unavailable")
        child = Child(self, request)
        child.pid, child.identity = FIRST_PID + len(self.launched), "none"
        self.launched.append(request.key)
        self._children[request.key] = child
        if slot_fd is not None:
            self._slots[request.key] = os.dup(slot_fd)  # A child holds its slot as long as it runs.
        self.most = max(self.most, len(self._children))
        return child

    def wait(self, timeout: float | None = None) -> list[Child]:
        """The oldest child that does not hang ends now, unless others have ended already."""
        busy = (child for child in self.children if _deed(self.tries, child.request) != "hang")
        child = next(busy, None)
        if not self._fresh and self.alive:
            if child is not None:
                self._work(child)
            elif timeout and self._children:
                time.sleep(min(timeout, 0.001))
        fresh, self._fresh = self._fresh, []
        return fresh

    def kill(self, children: Iterable[Child], grace_seconds: float = 2.0) -> None:
        for child in [child for child in children if child.ended is None]:
            self._end(child, signal=signal.SIGTERM)

    def close(self) -> None:
        self.kill(self.children)
        self._fresh.clear()
        self._up, self._gone = False, None

    def die(self) -> None:
        """End as a server that was killed, and its children with it."""
        self._gone = "the harness server is gone: signal 9 ended it; see its log, and start again"
        for child in self.children:
            self._end(child, signal=signal.SIGKILL, error=self._gone)

    def _check(self) -> None:
        if self._gone is not None:
            raise HarnessError(self._gone)

    def _work(self, child: Child) -> None:
        deed, _, text = _deed(self.tries, child.request).partition(":")
        if deed == "die":
            self.die()
        elif deed == "raise":
            self._end(child, exit_code=1, error=text)
        else:
            write_files(child.request, deed, text)
            self._end(child, exit_code=1 if deed == "half" else 0)

    def _end(
        self, child: Child, *, exit_code: int | None = None, signal: int | None = None, error: str | None = None
    ) -> None:
        self._children.pop(child.key)
        if (slot := self._slots.pop(child.key, None)) is not None:
            os.close(slot)
        isolation = "subprocess" if child.request.stage == "eval" and error is None else None
        child.hear(ChildEnd(child.key, child.pid, exit_code, signal, error, isolation))
        self._fresh.append(child)


def _deed(tries: Mapping[str, Sequence[str]], request: ChildRequest) -> str:
    listed = tries.get(request.environment["COOPERBENCH_ASSETS_PAIR"], ())
    number = int(request.environment["COOPERBENCH_ASSETS_ATTEMPT"])
    return listed[number - 1] if number <= len(listed) else "good"


def write_files(request: ChildRequest, deed: str, text: str = "") -> None:
    """Leave in the staging folder what upstream's function leaves, as `Worker` describes it."""
    pair = Pair(request.repo, request.task_id, request.features)
    tree = trees.Tree(Path(request.staging, "logs", request.run_name), request.mode)
    if request.stage == "eval":
        _write_verdict(tree, pair, deed)
        return
    if deed == "half":
        tree.write(pair, "result.json", json.dumps(trees.result(pair, request.mode))[:90])
        return
    _write_patches(tree, pair, PATCH)
    nothing = {"cost": 0.0, "steps": 0, "input_tokens": 0, "output_tokens": 0}
    agents = [trees.agent(status="Error", error=text, **nothing)] if deed == "error" else []
    cost = {"total_cost": 0.0, "total_steps": 0} if deed == "error" else {}
    of = Pair(pair.repo, pair.task_id, (97, 98)) if deed == "stranger" else pair
    tree.write(pair, "result.json", trees.result(of, request.mode, agents * (1 if tree.mode == "solo" else 2), **cost))


def _write_patches(tree: trees.Tree, pair: Pair, patch: str) -> None:
    if tree.mode == "solo":
        tree.patches(pair, patch)
    else:
        tree.patches(pair, patch, patch)
        tree.conversation(pair)


def _write_verdict(tree: trees.Tree, pair: Pair, deed: str) -> None:
    if deed == "other":
        _write_patches(tree, pair, "diff --git a/other b/other\n")
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    at = "2020-01-01T00:00:00" if deed == "old" else now
    tree.evaluation(pair, passed=(deed != "fails", True), evaluated_at=at)
