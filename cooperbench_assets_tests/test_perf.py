"""The measurements run: what they find is not looked at, as no test looks at a clock."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cooperbench_assets_tests import trees
from perf import growth, report
from perf.__main__ import MEASUREMENTS, PAGE, kept, main
from perf.makespan import Machine, bound, run_after_run


@pytest.mark.slow
def test_a_quick_measurement_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["perf", "--quick", "--only", "publishing", "--output", str(page)])
    assert main() == 0
    text = page.read_text()
    assert "not for quoting" in text
    assert "| **ours: 5 cells** |" in text
    assert str(tmp_path) not in text


def test_the_page_in_the_docs_says_what_each_measurement_gave_last() -> None:
    page = PAGE.read_text()
    names = [section.name for section in kept()]
    assert names == [name for name in MEASUREMENTS if name in names]
    assert {"reading", "materialising", "evaluating", "demo"} <= set(names)
    for section in kept():
        assert report.of_section(section) in page, f"run: python -m perf --only {section.name}"
    assert "Not reckoned" not in page


def test_an_unknown_measurement_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["perf", "--only", "nothing"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "nothing" in capsys.readouterr().err


def test_the_fake_clock_ends_where_the_work_does(tmp_path: Path) -> None:
    import random

    one, two, three = trees.pairs(3)
    seconds = {one: 1.0, two: 2.0, three: 3.0}
    machine = Machine(2, tmp_path)
    machine.add("cell", seconds, seconds.get)
    assert machine.makespan(random.Random(0)) == 3.0
    assert bound([seconds], 2) == 3.0
    assert run_after_run([seconds, seconds], 1) == 12.0


def test_the_exponent_of_a_square_is_two() -> None:
    assert round(growth.exponent([1, 10, 100], [3.0, 300.0, 30000.0]), 6) == 2.0
