"""What the sandboxes of an experiment are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cooperbench_assets.assets.execution import container_limits
from cooperbench_assets.spec import ExperimentError
from cooperbench_assets_tests.experiments import bind

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("execution", "network", "held_to"),
    [
        ("process", None, {"network": False}),
        ("process", True, {"network": True}),
        ("process", False, {"network": False, "isolation": "bubblewrap"}),
        ("docker", None, {}),
        ("docker", False, {"network": False}),
    ],
)
def test_tests_have_a_network_where_they_need_one_or_are_given_one(
    execution: str, network: bool | None, held_to: dict[str, object], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "execution": execution,
        "agent": "mine",
        "model_name": "m",
        "sandbox": {"network": network},
    }
    assert container_limits(bind(tmp_path, **changes)) == held_to


def test_a_network_that_is_not_ours_to_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExperimentError, match=r"sandbox\.network: tests run at modal, which has a network; leave it out"
    ):
        bind(tmp_path, execution="modal", agent="mine", model_name="m", sandbox={"network": False})
