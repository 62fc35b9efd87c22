"""One broken experiment among others: one sentence for it, and everything works for the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cooperbench_assets.definitions import defs as code_location
from cooperbench_assets.definitions import project_definitions
from cooperbench_assets.experiments import Experiments, read_experiments
from cooperbench_assets.project import ROOT_VARIABLE, Project, ProjectError
from cooperbench_assets.spec import COMPONENT
from cooperbench_assets_tests.projects import add_experiment, environment, make_project

GOOD: dict[str, Any] = {"subset": "lite", "settings": {"solo": {"mode": "solo", "seeds": [0]}}}
RUNS: dict[str, Any] = {**GOOD, "execution": "process", "agent": "a", "model_name": "m"}

BROKEN: dict[str, tuple[str | dict[str, Any], str]] = {
    "cut": ("type: [", "invalid YAML, line 1: while parsing a flow node expected the node content"),
    "tab": (f"type: {COMPONENT}\nattributes:\n\tsubset: lite\n", "invalid YAML, line 3: while scanning for the next"),
    "date": (
        f"type: {COMPONENT}\nattributes:\n  subset: 2026-31-12\n",
        "invalid YAML, line 3: 2026-31-12: month must be in 1..12; if it is text, put it in quotes",
    ),
    "twice": (
        f"type: {COMPONENT}\nattributes:\n  limits: {{concurrency: 2}}\n  subset: lite\n  limits: {{}}\n",
        "invalid YAML, line 5: the key limits stands in line 3 already; keep one",
    ),
    "deep": ("[" * 500, "invalid YAML: maximum recursion depth exceeded"),
    "nothing": ("", f"type: missing; an experiment begins with: type: {COMPONENT}"),
    "typeless": ("attributes: {subset: lite}\n", f"type: missing; an experiment begins with: type: {COMPONENT}"),
    "typo": ("type: cooperbench_assets.Experiment\n", "type: 'cooperbench_assets.Experiment' is not known"),
    "list": ("- type: x\n", "type: missing"),
    "bare": (f"type: {COMPONENT}\n", "attributes: missing"),
    "key": (f"type: {COMPONENT}\nattribute: {{}}\n", "attribute: unknown key beside type and attributes"),
    "two": (f"type: {COMPONENT}\n---\ntype: {COMPONENT}\n", "holds 2 components; give each a folder of its own"),
    "cron": ({**GOOD, "nightly": "99 2 * * *"}, "nightly: '99 2 * * *': minute: '99' is not 0 to 59"),
    "dots": ({**GOOD, "settings": {"a...b": {"seeds": [0]}}}, "settings.a...b: '...' says"),
    "keys": ({**GOOD, "limits": {"concurency": 1}}, "limits.concurency: unknown key"),
    "na me": (GOOD, "'na me' is no name for an experiment"),
}
"""What is written, or the attributes; and what is said of it."""


def put(project: Project, name: str, content: str | dict[str, Any]) -> Path:
    if isinstance(content, dict):
        return add_experiment(project, name, content)
    file = add_experiment(project, name, {})
    file.write_text(content)
    return file


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "cooperbench_assets" / "defs").mkdir(parents=True)
    return Project(tmp_path)


def loaded(project: Project) -> dg.Definitions:
    """The definitions, as Dagster loads them."""
    found = project_definitions(project)
    dg.Definitions.validate_loadable(found)
    return found


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_experiment_is_one_sentence_and_the_others_load(project: Project, name: str) -> None:
    content, sentence = BROKEN[name]
    add_experiment(project, "a-good-one", GOOD)
    put(project, name, content)
    add_experiment(project, "one-more", RUNS)
    found = read_experiments(project)
    assert list(found.usable) == ["a-good-one", "one-more"]
    assert list(found.broken) == [name]
    said = found.broken[name]
    assert said.startswith(f"cooperbench_assets/defs/{name}/defs.yaml: ")
    assert sentence in said
    assert "\n" not in said
    definitions = loaded(project)
    keys = {key.path[0]: key for key in definitions.resolve_all_asset_keys()}
    assert set(keys) == {"a-good-one", "one-more", name.replace(" ", "_")}
    [spec] = [one for one in definitions.resolve_all_asset_specs() if one.key.path[-1] == "experiment"]
    assert spec.key.path[0] == name.replace(" ", "_")
    assert said in (spec.description or "")


def test_an_experiment_has_another_name_than_the_group_of_those_that_cannot_be_used(project: Project) -> None:
    add_experiment(project, "not-loaded", RUNS)
    put(project, "cut", "type: [")
    assert read_experiments(project).broken["not-loaded"] == (
        "cooperbench_assets/defs/not-loaded: not_loaded is the group of experiments that cannot be used; "
        "rename the folder"
    )
    loaded(project)


def test_two_experiments_of_one_name_in_dagster_break_only_the_newer(project: Project) -> None:
    add_experiment(project, "a_b", GOOD)
    (project.tables / "a_b").mkdir(parents=True)
    file = add_experiment(project, "a-b", GOOD)
    found = read_experiments(project)
    assert list(found.usable) == ["a_b"], "the one that has results is kept, though it is the second by name"
    assert found.broken == {
        "a-b": "cooperbench_assets/defs/a-b: the experiments a_b and a-b are both called a_b in Dagster; "
        "rename the folder a-b"
    }
    assert {key.path[0] for key in loaded(project).resolve_all_asset_keys()} == {"a_b", "a-b"}
    file.parent.rename(project.defs / "another")
    assert read_experiments(project).broken == {}


def test_two_experiments_of_one_run_folder_break_only_the_newer(project: Project) -> None:
    for name in ("one", "two"):
        add_experiment(project, name, {**RUNS, "run_name": "run"})
    assert list(read_experiments(project).usable) == ["one"]
    (project.tables / "two").mkdir(parents=True)
    found = read_experiments(project)
    assert list(found.usable) == ["two"]
    assert "two solo seed 0 and one solo seed 0 would both write there" in found.broken["one"]
    loaded(project)


@pytest.mark.slow
def test_dagsters_own_tools_load_a_project_with_broken_experiments_and_what_is_none_of_ours(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", {"good": GOOD, "cron": {**GOOD, "nightly": "99 2 * * *"}})
    for name, code in (
        ("mine", "import dagster as dg\n\n\n@dg.asset\ndef my_own():\n    pass\n"),
        ("python", "raise ValueError('a mistake in Python')\n"),
    ):
        (project.defs / name).mkdir()
        (project.defs / name / "definitions.py").write_text(code)
    put(project, "foreign", "type: nowhere.at.All\nattributes: {}\n")
    put(project, "cut", "type: [")

    listing, checking = ["list", "defs", "--json"], ["check", "defs", "--no-check-yaml"]
    # One after the other in one process, which imports Dagster once; the exit code is that of the last.
    both = f"cli({listing}, standalone_mode=False); print(flush=True); cli({checking})"
    done = subprocess.run(
        [sys.executable, "-c", f"from dagster_dg_cli.cli import cli; {both}"],
        cwd=project.root,
        env=environment(project),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed, _ = done.stdout.strip().split("\n\n", 1)
    assets = {asset["asset_key"]: asset.get("description", "") for asset in json.loads(listed)["assets"]}
    assert {"my_own", "good/pair_results"} <= assets.keys()
    assert "not loaded: cooperbench_assets/defs/cut/defs.yaml: invalid YAML, line 1" in done.stderr
    broken = {key: text for key, text in assets.items() if key.endswith("/experiment")}
    assert {key: text.split(": ")[1] for key, text in broken.items()} == {
        "cron/experiment": "cooperbench_assets/defs/cron/defs.yaml",
        "cut/experiment": "cooperbench_assets/defs/cut/defs.yaml",
        "foreign/experiment": "cooperbench_assets/defs/foreign",
        "python/experiment": "cooperbench_assets/defs/python",
    }
    assert "nowhere" in broken["foreign/experiment"]
    assert "a mistake in Python" in broken["python/experiment"]


def test_a_project_without_experiments_loads(project: Project) -> None:
    assert read_experiments(project) == Experiments()
    assert loaded(project).resolve_all_asset_keys() == []


NAMES = st.sets(st.text("aB1-_. é", min_size=1, max_size=4).filter(lambda name: name.strip(". ") != ""), max_size=4)
LABELS = st.text("aB1-_.|,[*", min_size=1, max_size=5)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=NAMES, label=LABELS)
@example(names={"a", "a_"}, label="solo")
@example(names={"not_loaded", "-"}, label="|")
def test_whatever_folders_and_settings_are_called_the_rest_loads(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], label: str
) -> None:
    project = Project(tmp_path_factory.mktemp("project"))
    project.defs.mkdir(parents=True)
    for name in names:
        put(project, name, {**RUNS, "nightly": "@daily", "settings": {label: {"mode": "solo", "seeds": [0]}}})
    add_experiment(project, "sound", GOOD)
    found = read_experiments(project)
    assert "sound" in found.usable
    shown = {key.path[0] for key in loaded(project).resolve_all_asset_keys()}
    assert len(shown) == len(found.usable) + len(found.broken)
    assert "sound" in shown


def test_the_check_of_a_broken_experiment_fails_with_the_sentence(project: Project) -> None:
    put(project, "cut", "type: [")
    [sentence] = read_experiments(project).broken.values()
    definitions = loaded(project)
    key = dg.AssetKey(["cut", "experiment"])
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[])
        [found] = result.get_asset_check_evaluations()
        assert (found.passed, found.description) == (False, sentence)
        sensor = definitions.get_repository_def().get_sensor_def("not_loaded_watch")
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        first = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(first, dg.SensorResult)
        [event] = first.asset_events
        assert isinstance(event, dg.AssetCheckEvaluation)
        assert (event.passed, event.description, event.asset_key) == (False, sentence, key)
        again = sensor(dg.build_sensor_context(instance=instance, cursor=first.cursor))
        assert isinstance(again, dg.SensorResult)
        assert again.asset_events == [], "said once"


def test_the_code_location_loads_the_project_that_the_variable_names(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_experiment(project, "there", GOOD)
    monkeypatch.setenv(ROOT_VARIABLE, str(project.root))
    with pytest.raises(ProjectError, match=f"no project at {project.root}"):
        code_location()
    (project.root / "dagster.yaml").touch()
    assert {key.path[0] for key in code_location().resolve_all_asset_keys()} == {"there"}
