"""One experiment among others has a mistake in its defs.yaml: what the command line and the store do meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.definitions import project_definitions
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.commands.store import read_into_store

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets_tests.commands.place import Place

SENTENCE = (
    "cooperbench_assets/defs/broken/defs.yaml: nightly: '99 2 * * *': minute: '99' is not 0 to 59; "
    "write a cron expression such as '0 2 * * *'"
)


@pytest.fixture
def file(place: Place) -> Path:
    """The defs.yaml of the broken one of two published experiments."""
    for name in ("broken", "sound"):
        place.add_run(f"{name}-solo")
        runs = ("--subset", "three.json", "--run", f"solo={name}-solo")
        assert place.run("import-logs", "logs", "--experiment", name, *runs).exit_code == 0
        read_into_store(place.project, name)
    file = place.project.defs / "broken" / "defs.yaml"
    file.write_text(file.read_text() + '  nightly: "99 2 * * *"\n')
    return file


def published(place: Place) -> list[tuple[str, int]]:
    """How many pairs of each experiment the store holds."""
    rows = query(place.project.database, "SELECT experiment, count(*) AS n FROM pairs GROUP BY 1 ORDER BY 1")
    return list(rows.iter_rows())


BOTH = [("broken", 3), ("sound", 3)]


@pytest.mark.usefixtures("file")
def test_status_shows_the_others_and_what_is_stored_of_the_broken_one(place: Place) -> None:
    done = place.run("status")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [f"not loaded: {SENTENCE}"]
    broken, sound = ([line for line in done.stdout.splitlines() if line.startswith("solo")][n] for n in (1, 0))
    assert broken.endswith("not loaded")
    assert sound.split()[2:4] == ["3/3", "3/3"]
    cells = json.loads(place.run("status", "--json").stdout)
    assert {cell["experiment"]: (cell["planned"], cell["results"]) for cell in cells} == {
        "broken": (None, 3),
        "sound": (True, 3),
    }


@pytest.mark.usefixtures("file")
def test_who_asks_about_the_broken_one_gets_the_sentence_and_exit_code_2(place: Place) -> None:
    for arguments in (["materialize", "broken"], ["export", "broken", "-o", "x.tar.gz"], ["status", "broken"]):
        done = place.run(*arguments)
        assert done.exit_code == 2, arguments
        assert done.stderr.splitlines() == [f"Error: {SENTENCE}"], arguments
    assert "3/3" not in done.stdout
    assert done.stdout.splitlines()[-1].split()[:4] == ["solo", "0", "3", "3"]


@pytest.mark.slow
@pytest.mark.usefixtures("file")
def test_who_asks_about_another_hears_nothing_of_it(place: Place) -> None:
    for arguments in (["status", "sound"], ["export", "sound", "-o", "x.tar.gz"], ["report", "sound"]):
        done = place.run(*arguments)
        assert done.exit_code == 0, done.output
        assert "broken" not in done.output


@pytest.mark.usefixtures("file")
def test_the_doctor_names_it_and_looks_at_everything_else(place: Place) -> None:
    done = place.run("doctor", "--json")
    assert done.exit_code == 1
    looks = {look["subject"]: look for look in json.loads(done.stdout)["looks"]}
    assert looks["broken: defs.yaml"]["detail"] == SENTENCE
    assert looks["sound: logs"]["state"] == "ok"


@pytest.mark.slow
def test_its_cells_stay_published_whoever_publishes(place: Place, file: Path) -> None:
    assert published(place) == BOTH
    done = place.run("materialize", "sound")
    assert done.exit_code == 0, done.output
    assert published(place) == BOTH
    place.project.database.unlink()
    job = project_definitions(place.project).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        selection = [asset_key("sound", "results_store")]
        assert job.execute_in_process(instance=instance, asset_selection=selection).success
    assert published(place) == BOTH, "a store that is built anew has them too"
    done = place.run("report")
    assert done.exit_code == 0
    pages = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("data/report/")]
    assert pages == [f"data/report/{name}/report.html" for name in ("broken", "sound")]
    assert (place.project.report / "broken" / "report.html").is_file()
    file.write_text(file.read_text().replace("99 2", "0 2"))
    done = place.run("status")
    assert (done.exit_code, "not loaded" in done.stdout) == (0, False)
    assert place.run("materialize", "broken").exit_code == 0
    assert published(place) == BOTH
