from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from cooperbench_assets.spec import ExperimentSpec, load_experiments
from cooperbench_assets_tests.disks import small_disk

if TYPE_CHECKING:
    from cooperbench_assets_tests.commands.place import Place

SOLO = ("--run", "solo=s_{seed}")


def imported(place: Place, name: str = "mine") -> ExperimentSpec:
    return load_experiments(place.project.defs)[name]


def test_runs_become_an_experiment_with_the_seeds_and_modes_that_are_found(place: Place) -> None:
    for seed in (1, 2):
        place.add_run(f"s_{seed}")
    place.add_run("talk", "coop", messages=2)
    done = place.run(
        "import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO, "--run", "coop-comm=talk"
    )
    assert done.exit_code == 0, done.output
    spec = imported(place)
    assert (spec.execution, spec.model_name, spec.agent) == ("none", "a-model", "an_agent")
    assert spec.settings["solo"].seeds == [1, 2]
    assert (spec.settings["solo"].mode, spec.settings["coop-comm"].mode) == ("solo", "coop")
    assert spec.settings["coop-comm"].messaging
    assert [cell.run_name for cell in spec.cells("mine")] == ["s_1", "s_2", "talk"]
    assert "Wrote cooperbench_assets/defs/mine/defs.yaml: 3 cells of 3 pairs each." in done.stdout
    assert "Reload definitions" in done.stdout
    assert "cooperbench-assets materialize mine" in done.stdout


def test_what_was_found_is_said_run_by_run(place: Place) -> None:
    place.add_run("s_1", pairs=[(1, 2), (1, 3)], evaluated=False)
    place.add_run("c_1", "coop", messages=2)
    done = place.run(
        "import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO, "--run", "coop=c_{seed}"
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["setting", "seed", "run", "mode", "results", "of", "3", "evals", "messages"] in rows
    assert ["solo", "1", "s_1", "solo", "2", "0", "–"] in rows
    assert ["coop", "1", "c_1", "coop", "3", "3", "6"] in rows


def test_paths_below_the_project_are_relative_and_others_absolute(place: Place) -> None:
    from cooperbench_assets_tests.commands.place import PAIRS, write_run

    write_run(place.project.data / "logs" / "s_0", "solo", PAIRS)
    done = place.run(
        "import-logs", place.project.data / "logs", "--experiment", "mine", "--subset", place.subset, *SOLO
    )
    assert done.exit_code == 0, done.output
    assert imported(place).logs == "data/logs"
    assert imported(place).subset == str(place.subset)


def test_a_subset_can_be_named_that_lies_in_the_dataset(place: Place) -> None:
    place.add_run("s_1")
    subsets = place.project.data / "dataset" / "subsets"
    subsets.mkdir(parents=True)
    (subsets / "three.json").write_bytes(place.subset.read_bytes())
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three", *SOLO)
    assert done.exit_code == 0, done.output
    assert imported(place).subset == "three"
    unknown = place.run("import-logs", "logs", "--experiment", "other", "--subset", "four", *SOLO)
    assert unknown.exit_code == 3
    assert "there are: three" in unknown.stderr


def test_coop_without_any_message_is_taken_for_a_setting_without_messages_and_says_so(place: Place) -> None:
    place.add_run("c_1", "coop")
    arguments = ("import-logs", "logs", "--subset", "three.json", "--run", "coop-nocomm=c_{seed}")
    done = place.run(*arguments, "--experiment", "mine")
    assert not imported(place).settings["coop-nocomm"].messaging
    assert "coop-nocomm: messaging: false, because no run has a message" in done.stderr
    told = place.run(*arguments, "--experiment", "told", "--messaging", "coop-nocomm")
    assert imported(place, "told").settings["coop-nocomm"].messaging
    assert "messaging" not in told.stderr


def test_runs_of_different_models_and_agents_are_listed_and_no_model_is_claimed(place: Place) -> None:
    place.add_run("s_1", model="m1")
    place.add_run("s_2", model="m2", agent="other_agent")
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    assert done.exit_code == 0
    assert imported(place).model_name is None
    assert "different models (m1, m2)" in done.stderr
    assert "different agents (an_agent, other_agent)" in done.stderr
    text = (place.project.defs / "mine" / "defs.yaml").read_text()
    assert "#   s_2: m2" in text


def test_results_that_the_subset_does_not_plan_are_named(place: Place) -> None:
    place.add_run("s_1", pairs=[(1, 2), (4, 5)])
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    assert done.exit_code == 0
    assert "s_1: 1 result not in the subset: click_task/7/f4_f5" in done.stderr


def test_files_that_cannot_be_read_are_named(place: Place) -> None:
    run = place.add_run("s_1")
    (run / "solo" / "click_task" / "7" / "f1_f2" / "result.json").write_text('{"repo": "cli')
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    assert done.exit_code == 0
    assert "excluded: solo/click_task/7/f1_f2/result.json (cut)" in done.stderr


def test_an_older_tree_is_imported_and_said_to_be_one(place: Place) -> None:
    place.add_run("s_1", legacy=True)
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    assert done.exit_code == 0, done.output
    assert imported(place).settings["solo"].mode == "solo"
    assert "solo (older layout)" in done.stdout


def test_a_run_of_two_modes_needs_a_word_which_is_meant(place: Place) -> None:
    from cooperbench_assets_tests.commands.place import REPO

    run = place.add_run("s_1")
    pair = run / "coop" / REPO / "7" / "f1_f2"
    pair.mkdir(parents=True)
    (pair / "result.json").write_bytes((run / "solo" / REPO / "7" / "f1_f2" / "result.json").read_bytes())
    arguments = ("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    asked = place.run(*arguments)
    assert asked.exit_code == 3
    assert "--mode SETTING=MODE says it" in asked.stderr
    assert not (place.project.defs / "mine").exists()
    told = place.run(*arguments, "--mode", "solo=solo")
    assert told.exit_code == 0, told.output
    assert imported(place).settings["solo"].mode == "solo"


def test_runs_of_one_setting_must_be_of_one_mode(place: Place) -> None:
    place.add_run("s_1")
    place.add_run("s_2", "coop", messages=1)
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    assert done.exit_code == 3
    assert "different modes (s_1 is solo, s_2 is coop)" in done.stderr


def test_a_run_without_results_needs_a_word_of_its_mode(place: Place) -> None:
    (place.logs / "s_1").mkdir()
    arguments = ("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    asked = place.run(*arguments)
    assert asked.exit_code == 3
    assert "--mode solo=solo" in asked.stderr
    assert place.run(*arguments, "--mode", "solo=solo").exit_code == 0


def test_an_experiment_that_exists_is_kept_unless_it_is_to_be_replaced(place: Place) -> None:
    place.add_run("s_1")
    arguments = ("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO)
    assert place.run(*arguments).exit_code == 0
    file = place.project.defs / "mine" / "defs.yaml"
    file.write_text(file.read_text() + "# mine\n")
    refused = place.run(*arguments)
    assert refused.exit_code == 2
    assert "cooperbench_assets/defs/mine exists; pick another name, or write it anew with --replace" in refused.stderr
    assert file.read_text().endswith("# mine\n")
    place.add_run("s_2")
    assert place.run(*arguments, "--replace").exit_code == 0
    assert imported(place).settings["solo"].seeds == [1, 2]
    assert [path.name for path in file.parent.iterdir()] == ["defs.yaml"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("type: dagster.FunctionComponent\nattributes: {}\n", "is something else"),
        ("- not: ours\n", "is something else"),
        (": no yaml :\n  -", "is something else"),
    ],
)
def test_a_folder_that_is_no_imported_experiment_is_never_replaced(place: Place, content: str, what: str) -> None:
    place.add_run("s_1")
    file = place.project.defs / "mine" / "defs.yaml"
    file.parent.mkdir()
    file.write_text(content)
    arguments = ("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO, "--replace")
    refused = place.run(*arguments)
    assert refused.exit_code == 2
    assert what in refused.stderr
    assert file.read_text() == content


def test_an_experiment_that_runs_pairs_is_never_replaced(place: Place) -> None:
    place.add_run("s_1")
    file = place.project.defs / "mine" / "defs.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(EXECUTES, sort_keys=False))
    refused = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO, "--replace")
    assert refused.exit_code == 2
    assert "is an experiment with execution: docker, which is not replaced" in refused.stderr


def test_a_wrong_template_or_folder_is_one_sentence_that_says_what_there_is(place: Place) -> None:
    place.add_run("solo_1")
    base = ("import-logs", "logs", "--experiment", "mine", "--subset", "three.json")
    nothing = place.run(*base, *SOLO)
    assert nothing.exit_code == 3
    assert nothing.stderr.startswith("Error: no run in ")
    assert "(there are: solo_1)" in nothing.stderr
    assert len(nothing.stderr.splitlines()) == 1
    assert place.run(*base, "--run", "solo_{seed}").exit_code == 2
    assert place.run("import-logs", "nowhere", *base[2:], *SOLO).exit_code == 2
    assert not any(place.project.defs.iterdir())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "Missing option '--subset'"),
        (("--subset", "three.json", "--copy"), "--copy belongs to --adopt"),
        (("--subset", "three.json", "--adopt"), "--subset cannot be used with --adopt"),
        (("--subset", "three.json", "--no-messaging", "coop"), "no --run is of the setting 'coop'"),
        (("--subset", "three.json", "--mode", "solo=duo"), "write SETTING=solo"),
    ],
)
def test_options_that_do_not_go_together_are_a_mistake_of_usage(place: Place, more: tuple[str, ...], said: str) -> None:
    place.add_run("s_1")
    done = place.run("import-logs", "logs", "--experiment", "mine", *SOLO, *more)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(place: Place, name: str) -> None:
    place.add_run("s_1")
    done = place.run("import-logs", "logs", "--experiment", name, "--subset", "three.json", *SOLO)
    assert done.exit_code == 2
    assert "is no name for an experiment" in done.stderr


def test_a_name_that_dagster_would_take_for_another_experiments_is_refused(place: Place) -> None:
    place.add_run("s_1")
    arguments = ("--subset", "three.json", *SOLO)
    assert place.run("import-logs", "logs", "--experiment", "a_b", *arguments).exit_code == 0
    done = place.run("import-logs", "logs", "--experiment", "a-b", *arguments)
    assert done.exit_code == 2
    assert "a_b exists, and Dagster would call both a_b; pick another name" in done.stderr
    assert not (place.project.defs / "a-b").exists()


def test_names_that_yaml_would_read_as_something_else_come_back_as_they_were(place: Place) -> None:
    place.add_run("s_1", model="1e3", agent="yes")
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "1=s_{seed}")
    assert done.exit_code == 0, done.output
    assert (imported(place).model_name, imported(place).agent) == ("1e3", "yes")
    assert list(imported(place).settings) == ["1"]


EXECUTES = {
    "type": "cooperbench_assets.experiment.Experiment",
    "attributes": {
        "execution": "docker",
        "model_name": "a-model",
        "agent": "mini_swe_agent_v2",
        "subset": "../theirs/three.json",
        "run_name": "{experiment}-{setting}{seed_suffix}",
        "settings": {
            "solo": {"mode": "solo", "seeds": [0, 1]},
            "coop-comm": {"mode": "coop", "seeds": [0]},
            "coop-nocomm": {"mode": "coop", "seeds": [0], "messaging": False},
        },
    },
}


@pytest.fixture
def docker(place: Place) -> Place:
    """The place with an experiment that runs pairs itself."""
    file = place.project.defs / "big" / "defs.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(EXECUTES, sort_keys=False))
    return place


def test_adopted_runs_lie_under_the_experiments_own_names(docker: Place) -> None:
    docker.add_run("old-solo", agent="mini_swe_agent_v2")
    docker.add_run("old-solo-seed1", agent="mini_swe_agent_v2", legacy=True)
    done = docker.run("import-logs", "logs", "--experiment", "big", "--adopt", "--run", "solo=old-solo{seed_suffix}")
    assert done.exit_code == 0, done.output
    logs = docker.project.data / "logs"
    for run in ("big-solo", "big-solo-seed1"):
        result = logs / run / "solo" / "click_task" / "7" / "f1_f2" / "result.json"
        assert result.stat().st_nlink == 2
    assert "data/logs/big-solo: adopted from" in done.stdout
    assert done.stderr == ""
    again = docker.run("import-logs", "logs", "--experiment", "big", "--adopt", "--run", "solo=old-solo{seed_suffix}")
    assert again.exit_code == 0
    assert again.stdout.count("adopted before") == 2


def test_the_harness_of_an_adopted_run_is_kept_as_a_guess(docker: Place) -> None:
    import json

    docker.add_run("talk", "coop", messages=1)
    pair = docker.logs / "talk" / "coop" / "click_task" / "7" / "f1_f2"
    verdict = json.loads((pair / "eval.json").read_text())
    verdict["merge"] = {"status": "conflicts", "strategy": "union", "diff": "a diff"}
    (pair / "eval.json").write_text(json.dumps(verdict))
    done = docker.run("import-logs", "logs", "--experiment", "big", "--adopt", "--run", "coop-comm=talk")
    assert done.exit_code == 0, done.output
    record = json.loads((docker.project.data / "logs" / "big-coop-comm" / "provenance.json").read_text())
    assert record["origin"] == "adopted"
    assert record["merge_policy"] == "union"
    assert "harness_version" not in record
    assert record["adopted"]["harness_version_source"] == "fingerprinted"
    assert record["adopted"]["harness_version"] == "≤0.0.14"
    assert record["started_at"] == "2026-05-01T10:00:00+00:00"


def test_a_model_or_agent_other_than_the_experiments_is_said(docker: Place) -> None:
    docker.add_run("old-solo")
    docker.add_run("old-solo-seed1", model="m2")
    done = docker.run("import-logs", "logs", "--experiment", "big", "--adopt", "--run", "solo=old-solo{seed_suffix}")
    assert done.exit_code == 0
    assert "old-solo, old-solo-seed1: made by an_agent, and agent: in defs.yaml is mini_swe_agent_v2" in done.stderr
    assert "old-solo-seed1: made by m2, and model_name: in defs.yaml is a-model" in done.stderr


def test_a_dataset_that_is_not_there_yet_does_not_stop_an_adoption(docker: Place) -> None:
    docker.add_run("old-solo", agent="mini_swe_agent_v2")
    docker.subset.unlink()
    done = docker.run("import-logs", "logs", "--experiment", "big", "--adopt", "--run", "solo=old-solo")
    assert done.exit_code == 0
    assert "three.json" in done.stderr
    assert (docker.project.data / "logs" / "big-solo" / "solo").is_dir()


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("nowhere=old-solo", "big has no setting 'nowhere' (it has solo, coop-comm, coop-nocomm)"),
        ("solo=old-solo-seed{seed}", "big plans no seed 7 of solo; add it to seeds:"),
        ("coop-comm=old-solo", "old-solo holds no readable coop result, and coop-comm is coop"),
        ("coop-nocomm=talk", "talk holds 3 messages, and coop-nocomm has messaging: false"),
    ],
)
def test_a_run_that_does_not_fit_its_cell_is_refused_and_nothing_is_adopted(docker: Place, run: str, said: str) -> None:
    docker.add_run("old-solo")
    docker.add_run("old-solo-seed7")
    docker.add_run("talk", "coop", messages=1)
    done = docker.run("import-logs", "logs", "--experiment", "big", "--adopt", "--run", run)
    assert done.exit_code == 3
    assert said in done.stderr
    assert not (docker.project.data / "logs").exists()


def test_one_place_that_is_taken_stops_the_adoption_of_all(docker: Place) -> None:
    docker.add_run("old-solo")
    docker.add_run("old-solo-seed1")
    taken = docker.project.data / "logs" / "big-solo-seed1"
    taken.mkdir(parents=True)
    (taken / "config.json").write_text("{}")
    done = docker.run("import-logs", "logs", "--experiment", "big", "--adopt", "--run", "solo=old-solo{seed_suffix}")
    assert done.exit_code == 3
    assert "big-solo-seed1 exists" in done.stderr
    assert not (docker.project.data / "logs" / "big-solo").exists()


def test_runs_are_not_adopted_into_an_experiment_that_only_reads(place: Place) -> None:
    place.add_run("s_1")
    assert place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", *SOLO).exit_code == 0
    done = place.run("import-logs", "logs", "--experiment", "mine", "--adopt", *SOLO)
    assert done.exit_code == 3
    assert "mine has execution: none and runs nothing itself" in done.stderr
    unknown = place.run("import-logs", "logs", "--experiment", "yours", "--adopt", *SOLO)
    assert unknown.exit_code == 2
    assert "no experiment 'yours' (there are: mine)" in unknown.stderr


def test_an_experiment_stays_as_it_was_where_the_disk_has_no_room_for_another_text(place: Place) -> None:
    place.add_run("s_1")
    arguments = ("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--replace", *SOLO)
    assert place.run(*arguments).exit_code == 0
    text = (place.project.defs / "mine" / "defs.yaml").read_bytes()
    place.add_run("s_2")
    with small_disk(place.project.defs / "mine", "4k") as folder:
        (folder / "defs.yaml").write_bytes(text)
        full = place.run(*arguments)
        assert full.exit_code == 3
        assert f"{folder / 'defs.yaml'}: No space left on device" in full.stderr
        assert [path.name for path in folder.iterdir()] == ["defs.yaml"]
        assert (folder / "defs.yaml").read_bytes() == text
