"""An agent whose container died: upstream takes the engine's complaint for its patch, and has it graded."""

from __future__ import annotations

from pathlib import Path

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.outcomes import Outcome, judge
from cooperbench_assets_tests import trees

GONE = (
    "Error response from daemon: No such container: 8da9028c9fe17c664eafc8f914f0768aa456651e16f0b7b199735b226b1eab37\n"
)
STOPPED = "Error response from daemon: Container 8da9028c9fe17c664eafc8f914f0768aa456651e16f is not running\n"
NO_ENGINE = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
(PAIR,) = trees.pairs(1)


def judged(root: Path, mode: str, patch: str, **agent: object) -> Outcome:
    tree = trees.Tree(root, mode)
    lines = len(patch.splitlines())
    tree.pair(PAIR, passed=(False, False))
    agents = [trees.agent(patch_lines=lines, **agent)]
    if mode == "coop":
        agents.append(trees.agent(feature_id=PAIR.features[1]))
    tree.result(PAIR, agents)
    name = "solo.patch" if mode == "solo" else f"agent{PAIR.features[0]}.patch"
    (tree.folder(PAIR) / name).write_text(patch)
    return judge(read_run(root, mode).pairs[PAIR])


@pytest.mark.parametrize("status", ["Submitted", "LimitsExceeded"])
@pytest.mark.parametrize(
    ("patch", "family"), [(GONE, "container_died"), (STOPPED, "container_died"), (NO_ENGINE, "engine")]
)
def test_an_engines_complaint_is_no_patch(patch: str, family: str, status: str, tmp_path: Path) -> None:
    found = judged(tmp_path, "solo", patch, status=status)
    assert (found.outcome, found.stage, found.family) == ("infra_error", "agent", family)
    assert (found.evidence, found.evidence_source) == (patch.strip(), "solo.patch")


def test_one_agent_of_two_is_enough(tmp_path: Path) -> None:
    found = judged(tmp_path, "coop", GONE, feature_id=PAIR.features[0])
    assert (found.outcome, found.family) == ("infra_error", "container_died")
    assert found.evidence_source == f"agent{PAIR.features[0]}.patch"


def test_a_patch_that_quotes_such_a_complaint_is_graded(tmp_path: Path) -> None:
    patch = f"diff --git a/notes b/notes\n--- a/notes\n+++ b/notes\n@@ -0,0 +1 @@\n+{GONE}"
    assert judged(tmp_path, "solo", patch).outcome == "fail"
