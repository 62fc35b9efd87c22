"""What materialize says of a cell that is blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cooperbench_assets_tests.commands.place import Place


def test_a_blocked_cell_is_told_with_the_check_the_pair_and_the_fix(place: Place) -> None:
    place.add_run("s_1", pairs=((1, 2), (1, 3), (2, 3), (8, 9)))
    place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "solo=s_{seed}")
    done = place.run("materialize", "mine")
    assert done.exit_code == 3
    assert "check run_logs.only_planned_pairs: " in done.stdout
    assert "click_task/7/f8_f9" in done.stdout
    assert "how to fix: " in done.stdout
