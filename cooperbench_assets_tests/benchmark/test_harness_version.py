"""Which harness made a run, and how it merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.harness_version import HarnessVersion, harness_of, merge_policy
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets_tests.trees import Tree, pairs

ONE, TWO = pairs(2)


def found(tree: Tree) -> HarnessVersion:
    return harness_of(read_run(tree.run_dir, tree.mode))


@pytest.fixture
def coop(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "run", "coop")


@pytest.mark.parametrize(
    ("shown", "version", "policy"),
    [
        ({"merge": ("conflicts", "union"), "applied": None}, "≤0.0.14", "union"),
        ({"merge": ("conflicts", "solo-agent1")}, "0.0.19+", "agent1_alone"),
        ({"merge": ("identical", "skip-merge-identical")}, "0.0.19+", "agent1_alone"),
        ({"merge": ("missing_input", "naive"), "applied": ("applied", "failed")}, "0.0.19+", "agent1_alone"),
        ({"merge": ("conflicts", "naive")}, "0.0.19+", "agent1_alone"),
        ({"merge": ("conflicts", "naive"), "applied": None}, None, "unknown"),
        ({"merge": ("clean", "naive")}, None, "unknown"),
        ({"merge": ("error", None)}, None, "unknown"),
    ],
)
def test_merges_show_the_policy(coop: Tree, shown: dict[str, Any], version: str | None, policy: str) -> None:
    coop.result(ONE)
    coop.evaluation(ONE, **shown)
    coop.evaluation(TWO)
    source = "unknown" if version is None else "fingerprinted"
    assert found(coop) == HarnessVersion(version, source, policy)  # type: ignore[arg-type]


def test_two_policies_in_one_run_are_not_known(coop: Tree) -> None:
    coop.evaluation(ONE, merge=("conflicts", "union"), applied=None)
    coop.evaluation(TWO, merge=("conflicts", "solo-agent1"))
    assert found(coop) == HarnessVersion(None, "unknown", "unknown")


def test_solo_merges_nothing(tmp_path: Path) -> None:
    solo = Tree(tmp_path / "logs" / "run")
    solo.pair(ONE)
    assert found(solo) == HarnessVersion(None, "unknown", "none")
    solo.provenance(harness_version="0.0.29", merge_policy="agent1_alone")
    assert found(solo) == HarnessVersion("0.0.29", "recorded", "none")


def test_what_was_recorded_wins(coop: Tree) -> None:
    coop.evaluation(ONE, merge=("conflicts", "union"), applied=None)
    coop.provenance(harness_version="0.0.29", merge_policy="agent1_alone")
    assert found(coop) == HarnessVersion("0.0.29", "recorded", "agent1_alone")


def test_a_recorded_version_tells_its_policy(coop: Tree) -> None:
    coop.evaluation(ONE)
    coop.provenance(harness_version="0.0.29")
    assert found(coop) == HarnessVersion("0.0.29", "recorded", "agent1_alone")
    coop.provenance(harness_version="0.0.16")
    assert found(coop) == HarnessVersion("0.0.16", "recorded", "unknown")
    coop.provenance(origin="adopted")
    assert found(coop).source == "unknown"


@pytest.mark.parametrize(
    ("version", "policy"),
    [
        ("0.0.14", "union"),
        ("0.0.2", "union"),
        ("0.0.15", "unknown"),
        ("0.0.19", "agent1_alone"),
        ("0.1", "agent1_alone"),
        ("1.0.0", "agent1_alone"),
        ("v0.0.14", "union"),
        ("v0.0.20", "agent1_alone"),
        ("0.0.29.dev3+g1a2b3c", "agent1_alone"),
        ("1", "agent1_alone"),
        ("0", "unknown"),
        ("0.0.0", "unknown"),
        ("0+unknown", "unknown"),
        ("1a2b3c", "unknown"),
        ("dev", "unknown"),
        (None, "unknown"),
    ],
)
def test_versions_are_of_a_policy(version: str | None, policy: str) -> None:
    assert merge_policy(version, "coop") == merge_policy(version, "team") == policy
    assert merge_policy(version, "solo") == "none"


@given(
    st.tuples(*[st.integers(0, 40)] * 3), st.sampled_from(["", "v"]), st.sampled_from(["", ".post1", "+local", "rc1"])
)
def test_a_later_version_never_merges_in_an_older_way(release: tuple[int, int, int], before: str, after: str) -> None:
    order = ["unknown", "union", "unknown", "agent1_alone"]
    at = (release > (0, 0, 0)) + (release > (0, 0, 14)) + (release >= (0, 0, 19))
    version = before + ".".join(map(str, release)) + after
    assert merge_policy(version, "coop") == order[at]


@given(st.text(max_size=12))
def test_what_is_no_version_is_of_no_known_policy(text: str) -> None:
    known = merge_policy(text, "coop") != "unknown"
    assert not known or text.removeprefix("v")[0].isdecimal()
