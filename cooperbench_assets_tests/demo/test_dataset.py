"""The dataset as it is built: layout, sameness, and being built by several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cooperbench_assets.benchmark.pairs import load_subset
from cooperbench_assets.demo import DatasetError, build_dataset
from cooperbench_assets.demo.dataset import built_from, sources_sha256
from cooperbench_assets.demo.gitwork import GitError
from cooperbench_assets.demo.tasks import tasks
from cooperbench_assets_tests.demo.bench import PAIRS, TASKS, Bench, per_task


def content(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of every file, by path."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): (path.stat().st_mode, path.read_bytes()) for path in files}


def test_two_builds_are_the_same_byte_for_byte(dataset: Path, tmp_path: Path) -> None:
    one, other = content(dataset), content(build_dataset(tmp_path / "elsewhere" / "other"))
    assert sorted(one) == sorted(other)
    assert [path for path in one if one[path] != other[path]] == []


def test_the_settings_of_a_persons_git_change_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[user]\nname = Somebody\n[diff]\nnoprefix = true\ncontext = 9\nalgorithm = patience\n"
        "[init]\ndefaultBranch = trunk\n[core]\nautocrlf = true\nabbrev = 5\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00")
    assert content(build_dataset(tmp_path / "dataset")) == content(dataset)


def test_a_dataset_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "dataset")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    build_dataset(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.slow
def test_a_dataset_of_other_sources_is_replaced(dataset: Path, tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "dataset")
    (root / ".demo" / "built.json").write_text('{"sources_sha256": "older"}')
    (root / "leftover").write_text("of an older build")
    assert content(build_dataset(root)) == content(dataset)


def test_a_build_that_was_killed_is_no_hindrance(dataset: Path, tmp_path: Path) -> None:
    for word in ("building", "old"):
        (tmp_path / f".dataset.{word}" / "half").mkdir(parents=True)
    assert content(build_dataset(tmp_path / "dataset")) == content(dataset)
    assert {path.name for path in tmp_path.iterdir()} == {"dataset", ".dataset.lock"}


def test_somebody_elses_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "dataset" / "subsets").mkdir(parents=True)
    with pytest.raises(DatasetError, match="is not a dataset of the demo"):
        build_dataset(tmp_path / "dataset")
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["subsets"]


def test_an_empty_folder_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    assert built_from(build_dataset(tmp_path / "dataset")) == sources_sha256()


@pytest.mark.slow
def test_two_processes_at_once_build_one_dataset(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    code = "import pathlib, sys, cooperbench_assets.demo as demo; demo.build_dataset(pathlib.Path(sys.argv[1]))"
    started = [subprocess.Popen([sys.executable, "-c", code, str(root)]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert content(root) == content(dataset)


def test_without_git_the_error_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="git is not installed"):
        build_dataset(tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_the_subsets_plan_what_they_promise(dataset: Path) -> None:
    lite = load_subset(dataset / "subsets" / "lite.json")
    tiny = load_subset(dataset / "subsets" / "tiny.json")
    assert [pair.name for pair in lite.pairs] == PAIRS
    assert len(tiny.pairs) == 6
    assert len({pair.repo for pair in tiny.pairs}) == 4
    assert set(tiny.pairs) <= set(lite.pairs)


def test_some_pairs_conflict_and_most_do_not(dataset: Path) -> None:
    entries = json.loads((dataset / "subsets" / "lite.json").read_text())["tasks"]
    assert sum(len(entry["conflicts"]) for entry in entries) == 40
    assert all(entry["conflicts"] and len(entry["conflicts"]) < len(entry["pairs"]) for entry in entries)


def test_every_task_has_the_files_that_the_harness_and_a_sandbox_read(dataset: Path) -> None:
    for task in tasks():
        folder = dataset / task.repo / f"task{task.task_id}"
        names = {path.name for path in folder.iterdir()}
        assert names == {"combined.patch", "repo", "runner.sh", *(f"feature{one}" for one in task.features)}
        assert os.access(folder / "runner.sh", os.X_OK)
        for number in task.features:
            files = {path.name for path in (folder / f"feature{number}").iterdir()}
            assert files == {"feature.md", "feature.patch", "tests.patch"}


def test_every_checkout_is_clean_and_has_its_history(bench: Bench) -> None:
    def look(name: str, task: object, sandbox: object) -> list[tuple[str, str]]:
        repo = bench.task_dir(name) / "repo"
        run = [subprocess.run(["git", *words.split()], cwd=repo, capture_output=True, text=True, check=True).stdout
               for words in ("status --porcelain", "fsck --strict", "log --format=%s%x09%ae%x09%aI")]  # fmt: skip
        return [(run[0], run[2].splitlines()[-1])]

    for status, first in per_task(bench, look):
        assert status == ""
        assert first == "First version\tdemo@cooperbench-assets.invalid\t2030-01-01T01:00:00+00:00"


def test_upstream_finds_the_pairs(harness: object, dataset: Path) -> None:
    from cooperbench.runner.tasks import discover_tasks

    found = discover_tasks(subset="lite", dataset_dir=dataset)
    assert sorted(f"{one['repo']}/{one['task_id']}/f{one['features'][0]}_f{one['features'][1]}" for one in found) == (
        sorted(PAIRS)
    )
    assert len(discover_tasks(dataset_dir=dataset)) == 100
    assert {f"{one['repo']}/{one['task_id']}" for one in found} == set(TASKS)
