"""Many cells read in one run: each keeps its own results, and a bad one stops no other."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from cooperbench_assets.assets import reading
from cooperbench_assets.assets.keys import asset_key, cell_of, partitions_of
from cooperbench_assets.assets.reading import CELL_CHECKS, CellReader
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, RANGE_TAGS, error_of
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.local_runs import QUIET
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.automation.driving import Driver
from cooperbench_assets_tests.experiments import bind, fill, tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cooperbench_assets.experiment_context import ExperimentContext

KEYS = ["coop-comm/0", "coop-nocomm/0", "solo/0", "solo/1"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentContext:
    made = bind(tmp_path)
    for cell in made.cells:
        fill(made, cell.cell.setting, cell.cell.seed)
    return made


def read(
    experiment: ExperimentContext,
    instance: dg.DagsterInstance,
    ends: tuple[str, str] = (KEYS[0], KEYS[-1]),
    assets: Sequence[str] = CELL_ASSETS,
) -> dg.ExecuteInProcessResult:
    """A run of a range, as a backfill launches it."""
    job = experiment_definitions(experiment).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=[asset_key("made", asset) for asset in assets],
        run_config={"loggers": QUIET},
        tags=dict(zip(RANGE_TAGS, ends, strict=True)),
        raise_on_error=False,
    )


def judge(
    experiment: ExperimentContext, instance: dg.DagsterInstance, asset: str | None = None
) -> dg.ExecuteInProcessResult:
    """What "Execute all" launches on the page of an asset's checks: checks alone, and no partition."""
    job = experiment_definitions(experiment).resolve_implicit_global_asset_job_def()
    chosen = {
        dg.AssetCheckKey(asset_key("made", name), check.name)
        for name, checks in CELL_CHECKS.items()
        for check in checks
        if asset in (None, name)
    }
    return job.get_subset(asset_selection=set(), asset_check_selection=chosen).execute_in_process(
        instance=instance, run_config={"loggers": QUIET}, raise_on_error=False
    )


def materialised(instance: dg.DagsterInstance, run_id: str) -> dict[str, set[str]]:
    """The partitions of each asset that a run materialised."""
    found = each(set())
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.asset_materialization
        assert event is not None
        assert event.partition is not None
        found[event.asset_key.path[-1]].add(event.partition)
    return found


def each(partitions: set[str]) -> dict[str, set[str]]:
    """The same partitions for every asset of a cell."""
    return {name: set(partitions) for name in CELL_ASSETS}


def evaluations(instance: dg.DagsterInstance, run_id: str) -> dict[tuple[str | None, str], bool]:
    """Whether each check passed in each partition, in a run."""
    logged = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [one.asset_check_evaluation for one in logged]
    return {(one.partition, one.check_name): one.passed for one in found if one is not None}


def states(experiment: ExperimentContext, instance: dg.DagsterInstance, asset: str, check: str) -> dict[str, set[str]]:
    """Partitions by what the page of a check shows of them now: a result of an earlier materialisation is none."""
    key = dg.AssetCheckKey(asset_key("made", asset), check)
    [state] = instance.event_log_storage.get_asset_check_state([(key, partitions_of(experiment.spec))]).values()
    subsets = {status.value: subset.subset_value for status, subset in state.subsets.items()}
    return {name: set(keys) for name, subset in subsets.items() if (keys := subset.get_partition_keys())}


def figures(instance: dg.DagsterInstance, asset: str, partition: str) -> dict[str, Any]:
    """What the newest materialisation of a partition says."""
    wanted = dg.AssetRecordsFilter(asset_key=asset_key("made", asset), asset_partitions=[partition])
    [record] = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def add_extra_pair(experiment: ExperimentContext, setting: str, seed: int = 0) -> None:
    tree(experiment, setting, seed).pair(Pair("other_task", 1, (1, 2)))


def test_one_run_gives_each_cell_its_own_materialisations_figures_and_check_results(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    first = experiment.subset().pairs[0]
    tree(experiment, "solo", 1).evaluation(first, passed=(True, True))
    (tree(experiment, "coop-comm").folder(first) / "result.json").unlink()
    result = read(experiment, instance)
    assert result.success
    assert len(instance.get_runs()) == 1
    assert materialised(instance, result.run_id) == each(set(KEYS))
    assert [figures(instance, "pair_results", key)["pass"] for key in KEYS] == [3, 3, 3, 4]
    found = evaluations(instance, result.run_id)
    checks = [check.name for asserted in CELL_CHECKS.values() for check in asserted]
    assert set(found) == {(key, name) for key in KEYS for name in checks}
    assert {cell for cell, passed in found.items() if not passed} == {
        ("coop-comm/0", name) for name in ("expected_results", "expected_verdicts", "expected_rows")
    }


@pytest.mark.slow
def test_the_pages_of_checks_show_every_cell_after_reading_reading_again_and_judging_again(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    last = ("pair_results", "expected_rows")
    assert read(experiment, instance).success
    assert states(experiment, instance, *last) == {"SUCCEEDED": set(KEYS)}
    first = experiment.subset().pairs[0]
    (tree(experiment, "solo").folder(first) / "result.json").unlink()
    assert judge(experiment, instance).success
    assert states(experiment, instance, *last) == {"SUCCEEDED": set(KEYS) - {"solo/0"}, "FAILED": {"solo/0"}}
    add_extra_pair(experiment, "coop-comm")
    assert not read(experiment, instance).success
    assert states(experiment, instance, "run_logs", "only_planned_pairs") == {
        "SUCCEEDED": set(KEYS) - {"coop-comm/0"},
        "FAILED": {"coop-comm/0"},
    }
    assert states(experiment, instance, *last) == {
        "SUCCEEDED": {"coop-nocomm/0", "solo/1"},
        "FAILED": {"coop-comm/0", "solo/0"},
    }


def test_the_pages_of_checks_show_a_cell_that_has_a_run_of_its_own(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    driver = Driver(experiment, instance)
    assert driver.materialize(CELL_ASSETS, "solo/0").success
    assert states(experiment, instance, "pair_results", "expected_rows") == {"SUCCEEDED": {"solo/0"}}
    add_extra_pair(experiment, "solo")
    assert not driver.materialize(CELL_ASSETS, "solo/0").success
    assert states(experiment, instance, "run_logs", "only_planned_pairs") == {"FAILED": {"solo/0"}}


def test_a_range_reads_the_cells_between_its_ends_and_no_other(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    result = read(experiment, instance, ("coop-nocomm/0", "solo/0"))
    assert materialised(instance, result.run_id) == each({"coop-nocomm/0", "solo/0"})


def test_a_blocked_and_an_unreadable_cell_stop_no_other_and_the_run_names_both_with_reason_and_fix(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    add_extra_pair(experiment, "coop-nocomm")
    shutil.rmtree(experiment.run_dir(experiment.cells[1]))
    result = read(experiment, instance)
    assert not result.success
    assert materialised(instance, result.run_id) == {
        "run_logs": {"coop-comm/0", "coop-nocomm/0", "solo/0"},
        "eval_outputs": {"coop-comm/0", "solo/0"},
        "pair_results": {"coop-comm/0", "solo/0"},
    }
    found = evaluations(instance, result.run_id)
    assert found["coop-nocomm/0", "only_planned_pairs"] is False
    assert found["coop-nocomm/0", "expected_rows"] is False, "it was not evaluated, and says so"
    said = error_of(instance, result.run_id).splitlines()
    assert said[0] == "2 of 4 cells are done; 2 are blocked or could not be read:"
    assert said[1].startswith("made coop-nocomm seed 0: blocked by only_planned_pairs: 1 pair extra")
    assert said[1].endswith("how to fix: move them out of the run folder, or correct subset: or run_name: in defs.yaml")
    assert said[2].startswith("made solo seed 1: no run folder data/logs/solo-seed1; correct logs:")
    [failed] = [
        entry.dagster_event.step_failure_data
        for entry in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        if entry.dagster_event is not None
    ]
    assert failed.user_failure_data is not None
    table = failed.user_failure_data.metadata["cells"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["cell"] for record in table.records] == ["made coop-nocomm seed 0", "made solo seed 1"]


@pytest.mark.slow
def test_a_blocked_cell_stays_in_the_store_as_it_was_before(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    assert read(experiment, instance).success
    driver = Driver(experiment, instance)
    assert driver.materialize(["results_store"]).success
    for pair in experiment.subset().pairs:
        for setting in ("solo", "coop-comm"):
            tree(experiment, setting).evaluation(pair, passed=(False, False))
    add_extra_pair(experiment, "solo")
    assert not read(experiment, instance).success
    assert driver.materialize(["results_store"]).success
    rows = query(
        experiment.project.database, 'SELECT setting, "pass" FROM cells WHERE seed = 0 ORDER BY setting'
    ).rows()
    assert rows == [("coop-comm", 0), ("coop-nocomm", 3), ("solo", 3)]
    failed = query(experiment.project.database, "SELECT setting, check_name FROM check_results WHERE NOT passed")
    assert ("solo", "only_planned_pairs") in failed.rows()


@pytest.mark.parametrize("assets", [["pair_results"], ["eval_outputs", "pair_results"]])
def test_tables_of_a_blocked_cell_are_not_written_though_its_logs_are_not_asked_for(
    experiment: ExperimentContext, instance: dg.DagsterInstance, assets: list[str]
) -> None:
    add_extra_pair(experiment, "solo")
    result = read(experiment, instance, ("solo/0", "solo/1"), assets)
    assert not result.success
    assert materialised(instance, result.run_id)["pair_results"] == {"solo/1"}
    assert error_of(instance, result.run_id).splitlines()[1].startswith("made solo seed 0: blocked by")


def test_an_error_that_nobody_foresaw_stops_one_cell_and_keeps_its_traceback(
    experiment: ExperimentContext, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = type(experiment).view

    def broken(self: ExperimentContext, cell: Any, subset: Any = None) -> Any:
        if cell.cell == cell_of("made", "solo/0"):
            raise ZeroDivisionError("a defect")
        return view(self, cell, subset)

    monkeypatch.setattr(type(experiment), "view", broken)
    result = read(experiment, instance)
    assert materialised(instance, result.run_id)["pair_results"] == set(KEYS) - {"solo/0"}
    assert "made solo seed 0: ZeroDivisionError: a defect" in error_of(instance, result.run_id)
    logs = "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))
    assert "in broken" in logs


def test_what_lies_downstream_follows_a_run_of_many_cells(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    definitions = experiment_definitions(experiment)
    first = dg.evaluate_automation_conditions(defs=definitions, instance=instance)
    read(experiment, instance)
    then = dg.evaluate_automation_conditions(defs=definitions, instance=instance, cursor=first.cursor)
    assert then.get_num_requested(asset_key("made", "results_store")) == 1


@pytest.mark.slow
def test_a_run_of_one_cell_and_what_lies_downstream_does_both(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    result = Driver(experiment, instance).materialize([*CELL_ASSETS, "results_store"], "solo/0")
    assert result.success
    done = {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}
    assert done == {*CELL_ASSETS, "results_store"}


def test_executing_all_checks_judges_every_materialised_cell_again(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    read(experiment, instance, ("coop-nocomm/0", "solo/1"))
    first = experiment.subset().pairs[0]
    (tree(experiment, "solo", 1).folder(first) / "result.json").unlink()
    add_extra_pair(experiment, "solo")
    result = judge(experiment, instance)
    assert result.success
    assert materialised(instance, result.run_id) == each(set())
    found = evaluations(instance, result.run_id)
    assert {key for key, _ in found} == {"coop-nocomm/0", "solo/0", "solo/1"}
    assert {cell for cell, passed in found.items() if not passed} == {
        *(("solo/1", name) for name in ("expected_results", "expected_verdicts", "expected_rows")),
        ("solo/0", "only_planned_pairs"),
    }


def test_executing_the_checks_of_one_asset_judges_that_asset_alone(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    read(experiment, instance, ("solo/0", "solo/1"), ["run_logs"])
    assert {name for _, name in evaluations(instance, judge(experiment, instance, "run_logs").run_id)} == {
        check.name for check in CELL_CHECKS["run_logs"]
    }
    nothing = judge(experiment, instance, "pair_results")
    assert nothing.success
    assert evaluations(instance, nothing.run_id) == {}, "no cell of it was materialised"


@pytest.mark.slow
def test_a_cell_that_cannot_be_judged_again_is_named(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    read(experiment, instance)
    shutil.rmtree(experiment.run_dir(experiment.cells[0]))
    result = judge(experiment, instance)
    assert not result.success
    assert "3 of 4 cells are done" in error_of(instance, result.run_id)
    found = evaluations(instance, result.run_id)
    assert {key for key, passed in found.items() if not passed} == {key for key in found if key[0] == "solo/0"}


def test_a_run_that_names_no_partition_says_so(experiment: ExperimentContext, instance: dg.DagsterInstance) -> None:
    result = Driver(experiment, instance).materialize(CELL_ASSETS)
    assert not result.success
    assert "this run names no partition" in error_of(instance, result.run_id)


@pytest.mark.parametrize("lost", ["without a trace", "in an error of a library's own"])
def test_a_cancelled_run_ends_though_its_interrupt_was_lost_and_no_cell_is_blamed(
    lost: str, experiment: ExperimentContext, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CellReader.read

    def cancel_in_the_second_cell(self: CellReader, *given: Any) -> None:
        [run] = instance.get_runs()
        if given[0].cell == cell_of("made", KEYS[1]):
            instance.report_run_canceling(run)
            if lost != "without a trace":
                monkeypatch.setattr(reading, "cell_unit", lambda _cell: 1 / 0)
        whole(self, *given)

    monkeypatch.setattr(CellReader, "read", cancel_in_the_second_cell)
    monkeypatch.setattr(reading, "AT_ONCE", 1)
    result = read(experiment, instance)
    [run] = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.CANCELED
    done = materialised(instance, result.run_id)["pair_results"]
    assert 0 < len(done) < len(KEYS)
    found = evaluations(instance, result.run_id)
    assert all(found.values())
    assert {partition for partition, name in found if name == "expected_rows"} == done
