from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.importing.run_templates import ImportLogsError, Template, find_runs

if TYPE_CHECKING:
    from pathlib import Path

LITERAL = st.text("ab0_.-", max_size=6)


@given(
    parts=st.lists(st.one_of(LITERAL, st.sampled_from(["{seed}", "{setting}", "{experiment}"])), max_size=4),
    seed=st.integers(0, 10_000),
)
def test_a_template_finds_the_seed_of_every_name_it_makes(parts: list[str], seed: int) -> None:
    template = Template("solo", "x" + "".join(parts) + "-{seed_suffix}")
    name = template.run_name("flash", seed)
    found = template.seed_of(name, "flash")
    assert found is not None
    assert template.run_name("flash", found) == name


@given(folder=st.text("ab01_-seed", max_size=12))
def test_a_template_takes_no_folder_that_it_would_not_make(folder: str) -> None:
    template = Template("solo", "a_{seed}{seed_suffix}")
    seed = template.seed_of(folder, "flash")
    assert seed is None or template.run_name("flash", seed) == folder


def test_the_suffix_is_empty_for_seed_0_and_a_leading_zero_is_another_name() -> None:
    suffix = Template.parse("solo=command-a-solo{seed_suffix}")
    assert suffix.seed_of("command-a-solo", "x") == 0
    assert suffix.seed_of("command-a-solo-seed2", "x") == 2
    assert suffix.seed_of("command-a-solo-seed0", "x") is None
    plain = Template.parse("solo=run_{seed}")
    assert plain.seed_of("run_10", "x") == 10
    assert plain.seed_of("run_01", "x") is None
    assert Template.parse("solo=run_{seed:02d}").seed_of("run_01", "x") == 1
    assert Template.parse("solo=the-run").seed_of("the-run", "x") == 0


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("run_{seed}", "SETTING=RUN_NAME"),
        ("solo=", "SETTING=RUN_NAME"),
        ("so/lo=run_{seed}", "a setting has letters"),
        ("solo=run_{trial}", "a template knows {seed}"),
        ("solo=run_{seed", "expected '}'"),
        ("solo=run_{seed.real}", "a template knows {seed}"),
        ("solo=run_{}", "a template knows {seed}"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_its_reason(argument: str, said: str) -> None:
    with pytest.raises(ImportLogsError, match=said):
        Template.parse(argument)


def test_runs_are_found_by_template_and_sorted_by_seed(tmp_path: Path) -> None:
    for name in ("s_10", "s_2", "s_x", "other", ".s_3"):
        (tmp_path / name).mkdir()
    (tmp_path / "s_4").write_text("a file is no run")
    runs = find_runs(tmp_path, [Template.parse("solo=s_{seed}")], "flash")
    assert [(run.setting, run.seed, run.folder.name) for run in runs] == [("solo", 2, "s_2"), ("solo", 10, "s_10")]


def test_a_template_without_a_run_lists_the_folders_there_are(tmp_path: Path) -> None:
    (tmp_path / "flash_solo_1").mkdir()
    with pytest.raises(ImportLogsError, match=r"called 'solo_\{seed\}' \(there are: flash_solo_1\)"):
        find_runs(tmp_path, [Template.parse("solo=solo_{seed}")], "flash")
    with pytest.raises(ImportLogsError, match="No such file"):
        find_runs(tmp_path / "nowhere", [Template.parse("solo=solo_{seed}")], "flash")


def test_one_folder_cannot_be_two_settings_nor_one_setting_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "run_1").mkdir()
    with pytest.raises(ImportLogsError, match="run_1 would be both solo and coop"):
        find_runs(tmp_path, [Template.parse("solo=run_{seed}"), Template.parse("coop=run_{seed}")], "flash")
    with pytest.raises(ImportLogsError, match="solo is listed twice"):
        find_runs(tmp_path, [Template.parse("solo=run_{seed}"), Template.parse("solo=x_{seed}")], "flash")
