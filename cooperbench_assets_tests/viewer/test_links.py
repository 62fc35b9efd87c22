"""Addresses of the viewer's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.store.cells import Cell
from cooperbench_assets.viewer_links import VARIABLE, affected_page, pair_in, pair_page, viewer_address

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CELL = Cell("my exp", "coop-comm", 0)


def test_one_affected_pair_is_its_page_several_are_a_list_and_lines_without_one_no_page() -> None:
    one, other = "click_task/7/f1_f2 outcome=infra_error", "click_task/7/f1_f3"
    assert affected_page(CELL, [one]) == "/#/e/my%20exp/coop-comm/0/click_task/7/f1_f2"
    assert affected_page(CELL, [one, other]) == (
        "/#/e/my%20exp/pairs?setting=coop-comm&seed=0&pair=click_task%2F7%2Ff1_f2%2Cclick_task%2F7%2Ff1_f3"
    )
    assert affected_page(CELL, ["model another-model", "solo/7", "a/7/f1_f2x"]) is None
    assert pair_page(CELL, other, part="tests").endswith("/7/f1_f3?show=tests")


@given(line=st.text())
def test_any_line_names_a_pair_or_none(line: str) -> None:
    found = pair_in(line)
    assert found is None or line.startswith(found)


def test_the_address_is_that_of_env_then_of_the_environment_then_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert viewer_address(tmp_path) == "http://127.0.0.1:3001"
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:4001/")
    assert viewer_address(tmp_path) == "http://127.0.0.1:4001"
    (tmp_path / ".env").write_text(f"{VARIABLE}=https://viewer.example\n")
    assert viewer_address(tmp_path) == "https://viewer.example"
