"""Further verdicts on a whole cell: beside the first, and replacing nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cooperbench_assets.automation.second_verdict_job import flake_rate, verdict_rows
from cooperbench_assets.execution.api import run_agents, run_evaluations, run_second_verdict
from cooperbench_assets.execution.errors import RefusedLaunch
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.execution.runner.further_verdicts import read_verdicts
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.execution.cells import PAIRS, cell, outcomes, run_both, tree

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets_tests.execution.toy import Toy

pytestmark = pytest.mark.slow
ALL = LaunchOptions()
FIRST, SECOND = PAIRS[:2]

_COIN = """\
import os
if os.environ["TOY_COIN"] == "tails": raise SystemExit("1 failed in 0.01s")
"""


def flaky_of_compared(job: CellJob) -> tuple[int, int]:
    """Pairs that got different verdicts on the same patch, of how many that have a further one."""
    found = flake_rate(verdict_rows(job, Cell("toy", "solo", 0)))
    return found["flaky"], found["compared"]


def test_a_second_verdict_shows_what_flakes_and_changes_no_outcome(core_toy: Toy, tmp_path: Path) -> None:
    heads = {"environment": {"TOY_COIN": "heads"}}
    job = cell(core_toy, tmp_path, sandbox=heads)
    with pytest.raises(RefusedLaunch, match="6 pairs have no verdict yet"):
        run_second_verdict(job, ALL)
    run_agents(job, ALL)
    (job.pair_dir(FIRST) / "solo.patch").write_text(core_toy.at_import(1, _COIN) + core_toy.gold(2))
    run_evaluations(job, ALL)
    before, first = tree(job), outcomes(job)
    assert first[FIRST.folder] == "pass"
    job = cell(core_toy, tmp_path, sandbox={"environment": {"TOY_COIN": "tails"}})
    report = run_second_verdict(job, ALL)
    assert (report.launched, report.done) == (6, 6)
    assert tree(job) == before
    assert outcomes(job) == first
    assert flaky_of_compared(job) == (1, 6)
    rounds = read_verdicts(job.run_dir, "solo")
    assert {pair: rounds[pair][2].verdict for pair in (FIRST, SECOND)} == {FIRST: "fail", SECOND: "pass"}
    assert (job.attempts_dir(FIRST) / "verdict-2" / "eval.json").exists()
    assert run_second_verdict(job, ALL).plan.retry_generation == 3, "a finished round is followed by a further one"
    with pytest.raises(RefusedLaunch, match="whole cells only"):
        run_second_verdict(job, LaunchOptions(pairs=(FIRST.name,)))


def test_a_round_with_an_infrastructure_error_is_gone_on_with(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, sandbox={"environment": {"TOY_COIN": "heads"}})
    run_both(job)
    (infra_failed,) = run_second_verdict(cell(core_toy, tmp_path, sandbox={"isolation": "none such"}), ALL).failed
    assert infra_failed == "configuration"
    report = run_second_verdict(job, ALL)
    assert (report.plan.retry_generation, report.done) == (2, 6)
    assert flaky_of_compared(job) == (0, 6)


def test_a_second_verdict_resets_no_limit_of_tries(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    run_both(job)
    before = read_provenance(job.run_dir)["campaigns"]
    assert run_second_verdict(job, ALL).plan.retry_generation == 2
    assert read_provenance(job.run_dir)["campaigns"] == before == {"agent": 1, "eval": 1}
