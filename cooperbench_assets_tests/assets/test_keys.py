"""Partitions: the planned cells, one static key each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.assets.keys import cell_of, partition_key, partitions_of
from cooperbench_assets.spec import ExperimentError, ExperimentSpec, parse_experiment
from cooperbench_assets.store.cells import Cell


def parse(settings: dict[str, list[int]]) -> ExperimentSpec:
    attributes: dict[str, Any] = {label: {"seeds": seeds} for label, seeds in settings.items()}
    return parse_experiment("made", {"subset": "lite", "settings": attributes}, Path("defs/made/defs.yaml"))


def test_partitions_are_the_planned_cells_by_setting_and_by_number_of_seed() -> None:
    spec = parse({"solo": [10, 2, 0], "coop-comm": [1]})
    assert partitions_of(spec).get_partition_keys() == ["coop-comm/1", "solo/0", "solo/2", "solo/10"]


def test_the_order_of_the_file_does_not_change_the_partitions() -> None:
    one, other = parse({"solo": [0, 1], "coop": [0]}), parse({"coop": [0], "solo": [1, 0]})
    assert partitions_of(one) == partitions_of(other)


@pytest.mark.parametrize("key", ["0|solo", "solo", "solo/", "/0", "solo/x", ""])
def test_what_is_no_partition_of_a_cell_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match="is no partition of a cell"):
        cell_of("made", key)


@pytest.mark.parametrize("label", ["a,b", "a|b", "[a]", "a]", "a[0", "a*", "*", "a/b", "a...b", "a\n", "a b", ""])
def test_a_label_that_partition_keys_cannot_hold_is_refused_with_its_name(label: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        parse({label: [0]})
    assert str(caught.value).startswith(f"defs/made/defs.yaml: settings.{label}: ")


@given(
    st.dictionaries(
        st.text(st.sampled_from("aZ0.._-"), min_size=1, max_size=6) | st.text(max_size=4),
        st.lists(st.integers(0, 10**12), min_size=1, max_size=3, unique=True),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_labels_are_accepted_dagster_takes_and_gives_back(settings: dict[str, list[int]]) -> None:
    try:
        spec = parse(settings)
    except ExperimentError:
        return
    partitions = partitions_of(spec)
    cells = {Cell("made", label, seed) for label, seeds in settings.items() for seed in seeds}
    keys = partitions.get_partition_keys()
    assert {cell_of("made", key) for key in keys} == cells
    assert {partition_key(cell) for cell in cells} == set(keys)
    everything = dg.PartitionKeyRange(keys[0], keys[-1])
    assert list(partitions.get_partition_keys_in_range(everything)) == list(keys)
