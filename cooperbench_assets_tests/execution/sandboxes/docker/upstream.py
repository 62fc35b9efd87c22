"""Upstream's own evaluation of the toy task, over a backend that the caller names."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy


@dataclass(frozen=True)
class Evaluated:
    """A pair with the patches of its agents: one for solo, two for coop."""

    features: tuple[int, int]
    patches: tuple[str, ...]

    def by(self, backend: Any, dataset: Path) -> dict[str, Any]:
        """What upstream's function says, with its sandboxes made by `backend`."""
        upstream: Any = importlib.import_module("cooperbench.eval.sandbox")
        told = {"repo_name": REPO, "task_id": TASK, "backend": backend, "dataset_dir": dataset}
        features = dict(zip(("feature1_id", "feature2_id"), self.features, strict=True))
        if len(self.patches) == 1:
            result: dict[str, Any] = upstream.test_solo(**told, **features, patch=self.patches[0])
        else:
            result = upstream.test_merged(**told, **features, patch1=self.patches[0], patch2=self.patches[1])
        result.pop("evaluated_at", None)
        return result


def solo(*patches: str, features: tuple[int, int] = (1, 2)) -> Evaluated:
    """One agent's patch, put together from several."""
    return Evaluated(features, ("".join(patches),))


def coop(first: str, second: str, features: tuple[int, int] = (1, 2)) -> Evaluated:
    """Two agents' patches."""
    return Evaluated(features, (first, second))


def cases(toy: Toy) -> Mapping[str, Evaluated]:
    """One pair for every way in which an evaluation goes."""
    both = toy.solo_gold(1, 2)
    return {
        "solo passes": solo(both),
        "solo fails one": solo(toy.gold(1)),
        "solo has no patch": solo(""),
        "coop passes": coop(toy.gold(1), toy.gold(2)),
        "coop fails one": coop(toy.gold(1), toy.patch(2, "return 5")),
        "coop is identical": coop(both, both),
        "coop conflicts": coop(toy.gold(3), toy.gold(4), (3, 4)),
        "agent 1 rescues a conflict": coop(toy.patch(3, 'return "three four"'), toy.gold(4), (3, 4)),
        "a patch does not apply": coop("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-no\n+yes\n", toy.gold(2)),
    }


@contextlib.contextmanager
def backends_as_they_are() -> Iterator[None]:
    """Let upstream take a backend where it expects the name of one, in all threads."""
    upstream: Any = importlib.import_module("cooperbench.eval.sandbox")
    by_name = upstream.get_backend
    upstream.get_backend = lambda backend: by_name(backend) if isinstance(backend, str) else backend
    try:
        yield
    finally:
        upstream.get_backend = by_name
