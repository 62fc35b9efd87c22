"""What materialize says of a cell that is blocked or has infrastructure errors, and how long it goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from cooperbench_assets.commands.materialize import progress_bars
from cooperbench_assets.demo import build_dataset
from cooperbench_assets.execution.runner.progress import Progress, SlotWait
from cooperbench_assets.execution.runner.slots import SlotUser
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, demo_attributes
from cooperbench_assets_tests.demo.bench import write_pairs
from cooperbench_assets_tests.projects import add_experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cooperbench_assets_tests.commands.place import Place


@pytest.fixture(autouse=True)
def own_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))


@pytest.mark.slow
def test_a_blocked_cell_is_told_with_the_check_the_pair_and_the_fix(place: Place) -> None:
    place.add_run("s_1", pairs=((1, 2), (1, 3), (2, 3), (8, 9)))
    place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "solo=s_{seed}")
    done = place.run("materialize", "mine")
    assert done.exit_code == 3
    assert "check run_logs.only_planned_pairs: " in done.stdout
    assert "click_task/7/f8_f9" in done.stdout
    assert "how to fix: " in done.stdout


PAIRS = (("inkline_task", 3, (1, 2)), ("plainconf_task", 5, (1, 4)), ("slotbook_task", 8, (1, 4)))
"""The first is ALWAYS_FAILS; faults at a rate of 0.4 end the first try of two, solo."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in one, made once."""
    return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


def few(place: Place) -> str:
    """A subset of them, which is as good as more: nothing here is about their number."""
    return str(write_pairs(PAIRS, place.project.root / "few.json"))


def scripted(place: Place, dataset: Path, **changes: Any) -> dict[str, Any]:
    """An experiment of scripted agents on those pairs."""
    return demo_attributes(dataset=str(dataset), subset=few(place), **changes)


def toy(place: Place, dataset: Path, says: str, **changes: Any) -> None:
    """An experiment `mine` on the built-in tasks, whose agents end with this error."""
    agents = ["cooperbench_assets_tests.execution.toy_agents"]
    attributes = scripted(place, dataset, agent="toy", external_agents=agents, model_name=f"raise:{says}")
    del attributes["agent_config"], attributes["dataset_module"]
    limits = {**attributes["limits"], "breaker": 10}
    add_experiment(place.project, "mine", {**attributes, "limits": limits, **changes})


def tried(place: Place) -> list[str]:
    """The pair of each try of agents on record."""
    files = (place.project.data / "logs").rglob("agent-*/attempt.json")
    return ["/".join(file.parts[-5:-2]) for file in sorted(files)]


@pytest.mark.slow
def test_what_a_retry_can_help_is_run_again_until_it_has_its_verdict(place: Place, dataset: Path) -> None:
    add_experiment(place.project, "mine", scripted(place, dataset, faults={"rate": 0.4, "eval_rate": 0.0}))
    done = place.run("materialize", "mine")
    assert done.exit_code == 0, done.output
    assert "infrastructure errors in solo seed 0: what a retry can help is run again" in done.stdout
    assert "infra_error" not in done.stdout.splitlines()[-1]
    assert len(tried(place)) > len(set(tried(place))) == len(PAIRS)


@pytest.mark.slow
@pytest.mark.parametrize("option", [["--no-retry"], ["--only", ALWAYS_FAILS]])
def test_one_round_runs_nothing_again_and_names_what_goes_on(place: Place, dataset: Path, option: list[str]) -> None:
    faults = {"rate": 0.0, "always": [ALWAYS_FAILS]}
    add_experiment(place.project, "mine", scripted(place, dataset, faults=faults))
    done = place.run("materialize", "mine", *option)
    assert done.exit_code == 1, done.output
    assert len(tried(place)) == len(set(tried(place))) == (1 if "--only" in option else len(PAIRS))
    assert "1 pair without a verdict because of infrastructure errors:" in done.stdout
    assert f"solo seed 0 {ALWAYS_FAILS}: " in done.stdout
    assert "a retry can help: cooperbench-assets materialize mine; or switch on the sensor mine_retry" in done.stdout


@pytest.mark.slow
def test_used_up_retries_are_told_with_the_option_that_resets_the_counters(place: Place, dataset: Path) -> None:
    attributes = scripted(place, dataset, faults={"rate": 0.0, "always": [ALWAYS_FAILS]})
    attributes["limits"]["agent_attempts"] = 2
    add_experiment(place.project, "mine", attributes)
    done = place.run("materialize", "mine")
    assert done.exit_code == 1, done.output
    assert tried(place).count(ALWAYS_FAILS) == 2
    assert "retries are used up (1)" in done.stdout
    assert "reset the retry counters with cooperbench-assets materialize mine --reset-retries" in done.stdout
    again = place.run("materialize", "mine", "--reset-retries")
    assert again.exit_code == 1
    assert tried(place).count(ALWAYS_FAILS) == 4, "the counters are reset once, not in each round"


@pytest.mark.slow
def test_what_needs_a_fix_first_is_tried_once_and_told_with_its_text(place: Place, dataset: Path) -> None:
    toy(place, dataset, "AuthenticationError: Error code: 401 - invalid api key")
    done = place.run("materialize", "mine")
    assert done.exit_code == 1, done.output
    assert len(tried(place)) == len(set(tried(place)))
    assert "auth, " in done.stdout
    assert "needs a fix first" in done.stdout
    assert "Error code: 401 - invalid api key" in done.stdout
    assert "how to fix: Renew or set the key, then run again" in done.stdout


@pytest.mark.slow
def test_a_usage_limit_that_lasts_is_not_run_against(place: Place, dataset: Path) -> None:
    toy(place, dataset, "You have hit your usage limit. Try again in 3 hours")
    done = place.run("materialize", "mine")
    assert done.exit_code == 1, done.output
    assert len(tried(place)) == len(set(tried(place))) == len(PAIRS)
    assert "quota, 3 pairs: a retry can help (3)" in done.stdout
    assert "cooperbench-assets materialize mine, after 20" in done.stdout


def test_where_nobody_watches_a_wait_is_said_once_for_each_holder_however_often_a_pair_has_its_turn(
    tmp_path: Path,
) -> None:
    listeners: list[Callable[[Cell, Progress], None]] = []
    launcher: Any = SimpleNamespace(listen=listeners.append)
    first, other = (SlotUser("theirs", f"solo seed {n}", "run ab12cd34", 123 + n) for n in (0, 1))
    with (tmp_path / "out").open("w") as file, progress_bars(Console(file=file, width=200), launcher):
        for done, holder in enumerate((None, first, None, first, first, other)):
            waits = SlotWait("agents", 1, 0, ((holder, 1),) if holder else ())
            for waiting, running in ((waits, 0), (None, 1)):
                said = Progress("agent", 9, done, running, {}, 0.0, 1.0, None, waiting)
                listeners[0](Cell("mine", "solo", 0), said)
    assert (tmp_path / "out").read_text().splitlines() == [
        "solo seed 0 agents, waits for an agent slot: 1 of 1 held by theirs solo seed 0 (run ab12cd34, PID 123)",
        "solo seed 0 agents, waits for an agent slot: 1 of 1 held by theirs solo seed 1 (run ab12cd34, PID 124)",
    ]
