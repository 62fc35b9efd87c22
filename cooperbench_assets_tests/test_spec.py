"""defs.yaml: what is accepted, and the one clear error for what is not."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.job import Fleet, Limits, PreflightSettings
from cooperbench_assets.experiments import check_run_names
from cooperbench_assets.project import Project
from cooperbench_assets.spec import (
    OWNER,
    ExperimentError,
    ExperimentSpec,
    load_experiments,
    parse_experiment,
)
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.projects import CHECKOUT, add_experiment

FILE = Path("defs/flash/defs.yaml")
READ_ONLY: dict[str, Any] = {
    "subset": "lite",
    "settings": {"solo": {"seeds": [1, 2], "run_name": "flash_solo_{seed}"}, "coop-comm": {"seeds": [1]}},
}


def parse(**changes: Any) -> ExperimentSpec:
    return parse_experiment("flash", {**READ_ONLY, **changes}, FILE)


def error_of(**changes: Any) -> str:
    with pytest.raises(ExperimentError) as caught:
        parse(**changes)
    return str(caught.value)


def test_cells_are_planned_in_the_order_of_the_file() -> None:
    assert [(cell.cell, cell.run_name) for cell in parse().cells("flash")] == [
        (Cell("flash", "solo", 1), "flash_solo_1"),
        (Cell("flash", "solo", 2), "flash_solo_2"),
        (Cell("flash", "coop-comm", 1), "flash-coop-comm-seed1"),
    ]


def test_seed_zero_has_no_suffix() -> None:
    spec = parse(settings={"solo": {"seeds": [0, 1]}}, run_name="command-a-{setting}{seed_suffix}")
    assert [cell.run_name for cell in spec.cells("x")] == ["command-a-solo", "command-a-solo-seed1"]


def test_a_fleet_is_named_by_its_kind_or_by_its_keys() -> None:
    running = {"execution": "process", "agent": "mine", "model_name": "m"}
    solo = {"settings": {"solo": {"mode": "solo", "seeds": [1]}}}
    assert parse(**running, **solo).fleet is None
    assert parse(**running, **solo, fleet="ray").fleet == Fleet()
    fleet = {"kind": "ray", "address": "10.0.0.5:6379", "lost_after_seconds": 30}
    assert parse(**running, **solo, fleet=fleet).fleet == Fleet("ray", "10.0.0.5:6379", 30)


@pytest.mark.parametrize(
    ("fleet", "says"),
    [
        ("slurm", "fleet.kind: "),
        ({"kind": "ray", "adress": "x"}, "fleet.adress: unknown key"),
        ({"lost_after_seconds": 1}, "fleet.lost_after_seconds: "),
    ],
)
def test_a_fleet_that_is_none_is_named(fleet: Any, says: str) -> None:
    assert says in error_of(fleet=fleet)


def test_logs_that_are_only_read_need_no_fleet() -> None:
    assert "fleet: execution: none runs no pair; leave it out" in error_of(fleet="ray")


def test_an_unknown_key_is_named_with_its_place() -> None:
    assert error_of(settings={"solo": {"sede": [1], "seeds": [1]}}) == f"{FILE}: settings.solo.sede: unknown key"


def test_a_declared_analysis_names_settings_pairs_and_a_margin() -> None:
    spec = parse(
        analysis={
            "control": "solo",
            "contrasts": [["solo", "coop-comm"]],
            "equivalence_margin": 0.1,
            "excluded": [{"pair": "repo/1/f1_f2", "reason": "its own tests fail"}],
        }
    )
    assert spec.analysis is not None
    assert spec.analysis.endpoint == "success"
    assert spec.analysis.text() == type(spec.analysis).model_validate_json(spec.analysis.text()).text()
    assert parse().analysis is None


@pytest.mark.parametrize(
    ("analysis", "text"),
    [
        ({"control": "sole"}, "analysis: 'sole' is no setting; settings are: solo, coop-comm"),
        ({"contrasts": [["solo", "solo"]]}, "analysis.contrasts: solo is held against itself; name two settings"),
        ({"excluded": [{"pair": "repo", "reason": "x"}]}, "analysis.excluded: "),
        ({"endpoint": "speed"}, "analysis.endpoint: "),
        ({"equivalence_margin": 10}, "analysis.equivalence_margin: "),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_named(analysis: dict[str, Any], text: str) -> None:
    assert text in error_of(analysis=analysis)


def test_a_seed_that_stands_twice_is_refused() -> None:
    assert "settings.solo.seeds: seed 1 is listed 2 times" in error_of(settings={"solo": {"seeds": [1, 1]}})


def test_run_names_that_collide_are_refused() -> None:
    assert "2 cells would be called 'same'" in error_of(settings={"solo": {"seeds": [0, 1]}}, run_name="same")


@pytest.mark.parametrize("template", ["{model}", "{0}", "{seed", "{setting.x}"])
def test_a_template_that_cannot_be_filled_is_one_error(template: str) -> None:
    assert "run_name" in error_of(run_name=template, settings={"solo": {"seeds": [0]}})


@pytest.mark.parametrize("run_name", ["a/b", "", ".hidden", "a\0b", "{seed:256}"])
def test_a_run_name_is_a_folder_name(run_name: str) -> None:
    assert "is no folder name" in error_of(run_name=run_name, settings={"solo": {"seeds": [0], "run_name": None}})


@pytest.mark.parametrize("agent", ["mini_swe_agent_v2", "claude_code"])
def test_an_agent_that_works_in_containers_is_refused_without_an_engine(agent: str) -> None:
    settings = {"solo": {"mode": "solo", "seeds": [0]}}
    found = error_of(execution="process", agent=agent, model_name="m", settings=settings)
    assert f"agent: {agent} works in containers" in found
    assert "execution: docker" in found


def test_a_redis_for_containers_needs_containers() -> None:
    settings = {"coop": {"mode": "coop", "seeds": [0]}}
    said = {"agent": "mine", "model_name": "m", "settings": settings, "redis_url": "docker-bridge"}
    assert "redis_url: docker-bridge is for agents in containers" in error_of(execution="process", **said)
    assert parse(execution="docker", **said).redis_url == "docker-bridge"


def test_all_mistakes_are_named_at_once() -> None:
    found = error_of(settings={"a b": {"seeds": [], "mode": "solo"}}, accepted=[{"pair": "x", "reason": "r"}])
    assert "settings.a b: a label has letters" in found
    assert "settings.a b.seeds: list at least one seed" in found
    assert "'x' is no pair" in found


def test_an_execution_needs_a_mode_an_agent_and_a_model() -> None:
    found = error_of(execution="docker")
    assert "settings.solo.mode: say solo, coop or team" in found
    assert "agent and model_name: both are needed" in found


@given(st.from_regex(OWNER, fullmatch=True) | st.text() | st.sampled_from(["team:", "a@b.c", "x@b.org", "@b.org"]))
def test_an_owner_is_what_dagster_takes_for_one(owner: str) -> None:
    try:
        dg.AssetSpec("asset", owners=[owner])
    except dg.DagsterInvalidDefinitionError:
        assert f"owners: {owner!r} is neither an e-mail address nor team:NAME" in error_of(owners=[owner])
    else:
        assert parse(owners=[owner]).owners == [owner]


def test_acceptance_holds_in_the_cells_it_names() -> None:
    spec = parse(accepted=[{"pair": "r/1/f1_f2", "reason": "image gone", "setting": "solo", "seed": 2}])
    assert spec.accepted_in(Cell("flash", "solo", 2)) == {"r/1/f1_f2"}
    assert spec.accepted_in(Cell("flash", "solo", 1)) == frozenset()


def test_the_experiment_that_ships_is_the_demo_alone_and_is_valid() -> None:
    experiments = load_experiments(CHECKOUT / "cooperbench_assets" / "defs")
    assert list(experiments) == ["demo"], "what needs a key or a dataset is a template in docs"
    assert len(experiments["demo"].cells("demo")) == 5


def test_the_template_in_docs_is_valid() -> None:
    file = CHECKOUT / "docs" / "command_a.yaml"
    spec = parse_experiment("command_a", yaml.safe_load(file.read_text())["attributes"], file)
    assert [cell.run_name for cell in spec.cells("command_a")] == [
        "command-a-solo",
        "command-a-solo-seed1",
        "command-a-solo-seed2",
        "command-a-coop-comm",
        "command-a-coop-nocomm",
    ]


def test_two_experiments_must_not_write_into_one_run_folder(tmp_path: Path) -> None:
    project = Project(tmp_path)
    runs = {"execution": "process", "agent": "a", "model_name": "m", "run_name": "run", "subset": "lite"}
    for name in ("one", "two"):
        add_experiment(project, name, {**runs, "settings": {"solo": {"mode": "solo", "seeds": [0]}}})
    with pytest.raises(ExperimentError, match="one solo seed 0 and two solo seed 0 would both write there"):
        check_run_names(load_experiments(project.defs), project)


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        ("one-gold", {}),
        ("two", {"run_name": "one-gold-{setting}"}),
        ("two", {"run_name": "one-gold-solo", "logs": "data/../data/logs"}),
        ("one", {"run_name": "one-gold-solo"}),
    ],
)
def test_no_cell_writes_where_the_gold_baseline_of_an_experiment_does(
    other: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    project = Project(tmp_path)
    runs = {"execution": "process", "agent": "a", "model_name": "m", "subset": "lite"}
    for name, more in {"one": {}, other: changes}.items():
        add_experiment(project, name, {**runs, **more, "settings": {"solo": {"mode": "solo", "seeds": [0]}}})
    with pytest.raises(ExperimentError, match=r"one-gold-solo: .*one gold-solo.* would both write there") as error:
        check_run_names(load_experiments(project.defs), project)
    assert f"{other} solo seed 0" in str(error.value)


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    file = add_experiment(Project(tmp_path), "flash", READ_ONLY)
    file.write_text("type: [")
    with pytest.raises(ExperimentError, match=r"flash.defs\.yaml: invalid YAML, line 1: "):
        load_experiments(Project(tmp_path).defs)


def test_other_components_are_left_alone(tmp_path: Path) -> None:
    file = add_experiment(Project(tmp_path), "other", {})
    file.write_text("type: somebody.elses.Component\nattributes: {anything: 1}\n")
    assert load_experiments(Project(tmp_path).defs) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*ExperimentSpec.model_fields, "typo"]), json_values))
def test_any_attributes_give_an_experiment_or_one_error_that_names_the_file(attributes: dict[str, Any]) -> None:
    outcome: ExperimentSpec | ExperimentError
    try:
        outcome = parse_experiment("flash", attributes, FILE)
    except ExperimentError as error:
        outcome = error
    assert str(outcome).startswith(str(FILE)) if isinstance(outcome, ExperimentError) else outcome.cells("flash")


def test_a_cell_made_by_hand_has_the_limits_and_looks_before_a_launch_as_one_of_a_defs_yaml() -> None:
    spec = parse(limits={}, preflight={})
    assert (spec.limits, spec.preflight) == (Limits(), PreflightSettings())


@pytest.mark.parametrize("section", [Limits, PreflightSettings])
def test_every_limit_is_checked_where_a_defs_yaml_is_read(section: type[Limits] | type[PreflightSettings]) -> None:
    key = {Limits: "limits", PreflightSettings: "preflight"}[section]
    for field in fields(section):
        assert f"{key}.{field.name}: " in error_of(**{key: {field.name: -1}})
    assert error_of(**{key: {"concurency": 1}}) == f"{FILE}: {key}.concurency: unknown key"
