from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import polars as pl
import pytest

from cooperbench_assets.assets.experiment_assets import look, write_table
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES, STORE_TABLES
from cooperbench_assets.checks.gold_baseline import GOLD_BASELINE_CHECKS, GoldView
from cooperbench_assets.checks.task_images import TASK_IMAGES_CHECKS, ImagesView
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.redaction import Redactor
from cooperbench_assets.report.build import build_reports
from cooperbench_assets.sharing.bundle import BundleError, LogRun, export_bundle
from cooperbench_assets.sharing.bundle_import import import_bundle
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.gold import GOLD_BASELINE
from cooperbench_assets.store.images import TASK_IMAGES
from cooperbench_assets.store.partition_tables import read_unit, write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.read import query, table
from cooperbench_assets.store.schema import Column, Table
from cooperbench_assets.store.units import Unit, cell_unit
from cooperbench_assets.store.verdicts import SECOND_VERDICTS, verdicts_unit
from cooperbench_assets.transcripts.model import Note
from cooperbench_assets.transcripts.notes import NoteError, notes_file, notes_of, read_notes, write_note
from cooperbench_assets.transcripts.sources import Source
from cooperbench_assets_tests import experiments, trees
from cooperbench_assets_tests.commands.place import make_place
from cooperbench_assets_tests.commands.store import fail_a_check
from cooperbench_assets_tests.disks import files_at_most
from cooperbench_assets_tests.report.making import Page
from cooperbench_assets_tests.sharing.machines import blank, machine, read

KEY = "sk-aB3dE6gH9jK2mN5pQ8sT1vW4"


def cells_in(project: Project) -> list[tuple[str, int]]:
    return sorted(table(project.database, "pairs").select("setting", "seed").unique().rows())


@pytest.mark.slow
def test_what_is_exported_here_is_the_same_rows_there(tmp_path: Path) -> None:
    experiment = machine(tmp_path / "a")
    fail_a_check(experiment.project, Cell("made", "solo", 0))
    done = export_bundle(experiment.project, "made", tmp_path / "made.tar.gz")
    assert len(done.cells) == 4
    there = blank(tmp_path / "b")
    taken = import_bundle(there, done.file)
    assert taken.added == done.cells
    for name in ("pairs", "agents", "messages", "attempts", "provenance", "check_results", "patch_overlaps"):
        assert table(there.database, name).equals(table(experiment.project.database, name)), name


def add_whole_tables(experiment: ExperimentContext) -> None:
    """What task_images, gold_baseline and the job second_verdict write, and the checks of the first two."""
    name = experiment.name
    image = {"experiment": name, "repo": "a_task", "task_id": 1, "image": "a:1", "state": "ready", "pulled": True}
    gold = {"experiment": name, "mode": "solo", "pair": "a_task/1/f1_f2", "first": "pass", "second": "pass"}
    write_table(experiment, TASK_IMAGES, TASK_IMAGES.frame([image]))
    look(experiment, TASK_IMAGES, TASK_IMAGES_CHECKS, ImagesView(name, TASK_IMAGES.frame([image])))
    write_table(experiment, GOLD_BASELINE, GOLD_BASELINE.frame([gold]))
    look(experiment, GOLD_BASELINE, GOLD_BASELINE_CHECKS, GoldView(name, GOLD_BASELINE.frame([gold])))
    for cell in experiment.cells:
        key = {"experiment": name, "setting": cell.cell.setting, "seed": cell.cell.seed}
        rows = [{**key, "pair": "a_task/1/f1_f2", "round": n, "first": "pass", "verdict": "fail"} for n in (2, 3)]
        frames = {SECOND_VERDICTS.name: SECOND_VERDICTS.frame(rows)}
        write_unit(experiment.project.tables, verdicts_unit(cell.cell), frames, declared=(SECOND_VERDICTS,))


def contents_in(project: Project) -> dict[str, str]:
    """Content hash of every unit in the store, but for analyses, which are made anew."""
    sql = "SELECT unit, content_sha256 FROM published WHERE unit NOT LIKE '%/analysis/%' ORDER BY unit"
    return dict(query(project.database, sql).rows())


@pytest.mark.slow
def test_images_gold_and_second_verdicts_go_along_by_command_with_equal_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = make_place(tmp_path / "a"), make_place(tmp_path / "b")
    experiment = machine(mine.project.root)
    add_whole_tables(experiment)
    publish(experiment.project.database, experiment.project.tables, declared=STORE_TABLES)
    file = tmp_path / "made.tar.gz"
    monkeypatch.setenv("COOPERBENCH_ASSETS_ROOT", str(mine.project.root))
    exported = mine.run("export", "made", "-o", file)
    assert exported.exit_code == 0, exported.output
    monkeypatch.setenv("COOPERBENCH_ASSETS_ROOT", str(other.project.root))
    imported = other.run("import-bundle", file)
    assert imported.exit_code == 0, imported.output
    there = contents_in(other.project)
    assert there == contents_in(experiment.project)
    kinds = {name.split("/")[1] for name in there}
    assert kinds == {"cells", "checks", "gold_baseline", "second_verdicts", "task_images"}
    (content,) = [line for line in exported.stdout.splitlines() if line.startswith("content hash ")]
    assert content in imported.stdout.splitlines()


@pytest.mark.slow
def test_cells_of_several_machines_merge_and_the_same_again_is_unchanged(tmp_path: Path) -> None:
    one = machine(tmp_path / "a", (("solo", 0), ("coop-comm", 0)))
    two = machine(tmp_path / "b", (("solo", 1),))
    first = export_bundle(one.project, "made", tmp_path / "a.tar.gz").file
    assert [cell.seed for cell in import_bundle(two.project, first).added] == [0, 0]
    assert cells_in(two.project) == [("coop-comm", 0), ("solo", 0), ("solo", 1)]
    again = import_bundle(two.project, first)
    assert again.added == ()
    assert len(again.unchanged) == 2
    assert not again.published.replaced
    both = export_bundle(two.project, "made", tmp_path / "b.tar.gz").file
    back = import_bundle(one.project, both)
    assert [(cell.setting, cell.seed) for cell in back.added] == [("solo", 1)]
    assert len(back.unchanged) == 2


@pytest.mark.slow
def test_the_same_cell_with_other_content_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    one = machine(tmp_path / "a", (("solo", 0), ("solo", 1)))
    two = machine(tmp_path / "b", (("solo", 1),), total_cost=9.0)
    before = two.project.database.read_bytes()
    file = export_bundle(one.project, "made", tmp_path / "a.tar.gz").file
    with pytest.raises(BundleError, match=r"different content: made solo seed 1.*Nothing was imported"):
        import_bundle(two.project, file)
    assert two.project.database.read_bytes() == before
    assert not cell_unit(Cell("made", "solo", 0)).folder(two.project.tables).exists()


def test_the_same_cells_give_the_same_bytes(tmp_path: Path) -> None:
    experiment = machine(tmp_path / "a")
    first = export_bundle(experiment.project, "made", tmp_path / "1.tar.gz").file
    second = export_bundle(experiment.project, "made", tmp_path / "2.tar.gz").file
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_raw_logs_and_tables_go_without_secrets_and_the_page_links_to_them(tmp_path: Path) -> None:
    experiment = machine(tmp_path / "a", (("coop-comm", 0),))
    built = experiments.tree(experiment, "coop-comm")
    pair = experiment.subset().pairs[1]
    built.conversation(pair, trees.message(text=f"use {KEY} please"))
    built.result(pair, agents=[trees.agent(status="Error", error=f"401 bad key my-own-secret {KEY}"), trees.agent()])
    (built.folder(pair) / "link").symlink_to("/etc/hostname")
    read(experiment)
    build_reports(experiment.project.database, experiment.project.report, logs={"made": experiment.logs})
    runs = [LogRun(experiment.run_dir(cell), experiment.logs) for cell in experiment.cells]
    done = export_bundle(
        experiment.project, "made", tmp_path / "x.tar.gz", runs=runs, redactor=Redactor({"MINE": "my-own-secret"})
    )
    assert done.contents.redacted["api_key"] > 1
    assert done.contents.redacted["MINE"] > 0
    assert len(done.left_out) == 1
    assert "link: no regular file" in done.left_out[0]
    packed = gzip.decompress(done.file.read_bytes())
    assert KEY.encode() not in packed
    assert b"my-own-secret" not in packed

    with tarfile.open(done.file) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    page = tmp_path / "unpacked" / "report" / "made" / "report.html"
    links = [href for href in Page(page.read_text()).having("href") if href.startswith("./")]
    assert links
    assert all((page.parent / href).resolve().is_dir() for href in links)

    there = blank(tmp_path / "b")
    import_bundle(there, done.file)
    assert table(there.database, "messages")["message"].to_list() == ["use [redacted:api_key] please"]
    assert import_bundle(experiment.project, done.file).added == ()  # where it came from, it is the same cell


def test_an_experiment_without_cells_is_an_error_and_leaves_no_file(
    one_cell: ExperimentContext, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="other has no cell"):
        export_bundle(one_cell.project, "other", tmp_path / "x.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_the_bundle_that_was_there(one_cell: ExperimentContext, tmp_path: Path) -> None:
    target = tmp_path / "to" / "made.tar.gz"
    export_bundle(one_cell.project, "made", target)
    whole = target.read_bytes()
    with files_at_most(1000), pytest.raises(BundleError, match=r"made\.tar\.gz: File too large; nothing was exported"):
        export_bundle(one_cell.project, "made", target)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == whole


def test_what_the_experiment_dropped_is_not_exported(tmp_path: Path) -> None:
    experiment = machine(tmp_path / "a", (("solo", 0), ("solo", 1)))
    kept = {"made": {Cell("made", "solo", 0)}}
    publish(experiment.project.database, experiment.project.tables, declared=STORE_TABLES, planned=kept)
    assert export_bundle(experiment.project, "made", tmp_path / "x.tar.gz").cells == (Cell("made", "solo", 0),)


@pytest.mark.slow
def test_tables_that_no_version_here_knows_are_left_out_by_name(tmp_path: Path) -> None:
    experiment = machine(tmp_path / "a", (("solo", 0),))
    strange = Table("strange", "Of a later version", (Column("experiment", pl.String, "Name"),), key=("experiment",))
    unit = Unit.of("made", "strange", "all", key={"experiment": "made"})
    write_unit(
        experiment.project.tables, unit, {"strange": strange.frame([{"experiment": "made"}])}, declared=[strange]
    )
    done = export_bundle(experiment.project, "made", tmp_path / "x.tar.gz")
    assert done.left_out == ("made/strange/all: this version knows no such tables",)
    assert import_bundle(blank(tmp_path / "b"), done.file).added == (Cell("made", "solo", 0),)


@pytest.mark.slow
def test_images_and_gold_that_are_here_already_stay_and_are_named(tmp_path: Path) -> None:
    one, two = machine(tmp_path / "a", (("solo", 0),)), machine(tmp_path / "b", (("solo", 0),))
    add_whole_tables(one)
    add_whole_tables(two)
    changed = TASK_IMAGES.frame([{"experiment": "made", "image": "another:1", "state": "ready"}])
    write_table(two, TASK_IMAGES, changed)
    taken = import_bundle(two.project, export_bundle(one.project, "made", tmp_path / "a.tar.gz").file)
    assert taken.kept == ("made/task_images/all",)
    assert table(two.project.database, "task_images")["image"].to_list() == ["another:1"]


def test_a_person_exports_and_imports_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place(tmp_path)
    monkeypatch.setenv("COOPERBENCH_ASSETS_ROOT", str(place.project.root))
    place.add_run("mine-solo")
    runs = ("--run", "solo=mine-solo")
    assert place.run("import-logs", place.logs, "--experiment", "mine", "--subset", place.subset, *runs).exit_code == 0
    experiment = ExperimentContext("mine", load_experiments(place.project.defs)["mine"], place.project)
    for cell in experiment.cells:
        write_unit(place.project.tables, cell_unit(cell.cell), experiment.view(cell).frames, declared=CELL_UNIT_TABLES)
    file = tmp_path / "mine.tar.gz"
    done = place.run("export", "mine", "--raw-logs", "-o", file)
    assert done.exit_code == 0, done.output
    assert "1 cell, no report, 7 raw files" in done.stdout

    other = make_place(tmp_path / "other")
    monkeypatch.setenv("COOPERBENCH_ASSETS_ROOT", str(other.project.root))
    done = other.run("import-bundle", file)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:2] == ["mine: 1 cell added, 0 unchanged", "  solo seed 0"]
    assert other.run("import-bundle", file).stdout.startswith("mine: 0 cells added, 1 unchanged")
    assert other.run("export", "mine", "--raw-logs", "-o", file).exit_code == 2
    (tmp_path / "bad.tar.gz").write_bytes(b"x")
    assert other.run("import-bundle", tmp_path / "bad.tar.gz").exit_code == 3


@pytest.mark.slow
def test_what_was_imported_reads_as_it_was(one_cell: ExperimentContext, bundle: Path, tmp_path: Path) -> None:
    there = blank(tmp_path / "b")
    import_bundle(there, bundle)
    unit = cell_unit(Cell("made", "solo", 0))
    here = read_unit(one_cell.project.tables, unit)
    assert [name for name, frame in read_unit(there.tables, unit).items() if not frame.equals(here[name])] == []


def test_notes_go_along_without_secrets_and_leave_those_of_the_other_machine_alone(tmp_path: Path) -> None:
    here = machine(tmp_path / "here")
    read(here)
    path = "run/solo/sprout_task/7/f1_f40"
    mine = notes_file(here.project.data, here.name)
    source = Source(here.logs, (), tmp_path, notes=mine)
    write_note(source, Note(path=path, agent=None, index=None, text=f"key {KEY}"))
    write_note(source, Note(path=path, agent="solo", index=3, text="", labels=["gave up"]))
    write_note(source, Note(path=path, agent="solo", index=4, text="wrong"))
    write_note(source, Note(path=path, agent="solo", index=4))
    assert [note.index for note in notes_of(source, path)] == [None, 3]
    export_bundle(here.project, here.name, tmp_path / "e.tar.gz")

    there = blank(tmp_path / "there")
    theirs = notes_file(there.data, here.name)
    kept = Note(path=path, agent="solo", index=3, text="looked for its file")
    write_note(Source(there.data, (), tmp_path, notes=theirs), kept)
    for _ in range(2):
        import_bundle(there, tmp_path / "e.tar.gz")
    assert KEY not in theirs.read_text()
    assert {(note.index, note.text[:4]) for note in read_notes(theirs)} == {(None, "key "), (3, "look")}
    assert len(theirs.read_text().splitlines()) == 3


def test_notes_on_a_folder_of_logs_and_endless_ones_are_refused(tmp_path: Path) -> None:
    note = Note(path="run/solo/sprout_task/7/f1_f40", agent=None, index=None, text="x" * 20_000)
    with pytest.raises(NoteError, match="only read"):
        write_note(Source(tmp_path, (), tmp_path), note)
    with pytest.raises(NoteError, match="10,000 characters"):
        write_note(Source(tmp_path, (), tmp_path, notes=tmp_path / "notes"), note)
