"""power: tasks, pairs and seeds that a difference needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cooperbench_assets.assets.tables import CELL_UNIT_TABLES, STORE_TABLES
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests.analysis.stores import outcomes, pairs_frame, provenance

if TYPE_CHECKING:
    from cooperbench_assets_tests.commands.place import Place


def test_given_variances_say_what_a_difference_needs(place: Place) -> None:
    done = place.run("power", "--variances", "0.04", "0.08", "0.3", "--difference", "0.2")
    assert done.exit_code == 0, done.output
    assert "Tasks that find 20 points (planned contrasts: 1)" in done.stdout
    answer = json.loads(place.run("power", "--variances", "0.04", "0.08", "0.3", "--json").stdout)
    assert answer["tasks_needed"]["1"]["1"] > answer["tasks_needed"]["5"]["8"] > 6
    assert answer["detectable"]["3"]["26"] < answer["detectable"]["3"]["6"]


def test_three_contrasts_over_six_tasks_find_nothing(place: Place) -> None:
    answer = json.loads(place.run("power", "--variances", "0", "0", "0.1", "--contrasts", "3", "--json").stdout)
    assert {row["6"] for row in answer["detectable"].values()} == {None}


def test_an_experiment_in_the_store_says_how_much_its_results_vary(place: Place) -> None:
    tasks = [(task, 1) for task in range(8)]
    rows = [*outcomes("solo", {key: "PPF"[key[0] % 3 :] + "P" for key in tasks}, "mine")]
    rows += outcomes("coop-comm", dict.fromkeys(tasks, "PF"), "mine")
    frame = pairs_frame(*rows)
    for setting, seed in frame.select("setting", "seed").unique().iter_rows():
        tables = {table.name: table.frame([]) for table in CELL_UNIT_TABLES}
        tables |= {
            "pairs": frame.filter(setting=setting, seed=seed),
            "provenance": provenance({"experiment": "mine", "setting": setting, "seed": seed}),
        }
        unit = cell_unit(Cell("mine", setting, seed))
        write_unit(place.project.tables, unit, tables, declared=CELL_UNIT_TABLES)
    publish(place.project.database, place.project.tables, declared=STORE_TABLES)
    done = place.run("power", "mine")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Variance of the difference, solo − coop-comm in mine: between tasks ")
    done = place.run("power", "mine", "--contrast", "solo", "team")
    assert done.exit_code == 2
    assert "two settings of mine are needed; in the results store are: solo, coop-comm" in done.output


@pytest.mark.parametrize("arguments", [(), ("demo", "--variances", "1", "1", "1")])
def test_either_an_experiment_or_variances_are_asked_for(place: Place, arguments: tuple[str, ...]) -> None:
    done = place.run("power", *arguments)
    assert done.exit_code == 2
    assert "name an experiment, or give --variances" in done.output
