"""Warnings: what must be said before any figure."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from cooperbench_assets.analysis.notices import warnings
from cooperbench_assets_tests.analysis.stores import START, conflict, outcomes, pair_row, pairs_frame, provenance

KEYS = [(task, 1) for task in range(10)]


def _of(frames: dict[str, pl.DataFrame], code: str) -> list[tuple[str, str, str]]:
    return warnings(frames)["warnings"].filter(code=code).select("level", "subject", "text").rows()


def test_an_arm_whose_agents_died_is_an_error_that_names_the_other_arm() -> None:
    rows = [
        *outcomes("solo", dict.fromkeys(KEYS, "P")),
        *outcomes("coop-comm", {k: "I" if k[0] < 4 else "P" for k in KEYS}),
    ]
    frames = {"pairs": pairs_frame(*rows)}
    (found,) = _of(frames, "agents_died")
    assert found[:2] == ("error", "coop-comm")
    assert "ended agents in 4 of 10 planned pairs (40.0 %; auth), against 0.0 % in solo" in found[2]
    assert warnings(frames)["warnings"]["code"][0] == "agents_died"


def test_agents_that_die_in_every_arm_alike_are_a_warning() -> None:
    dead = {k: "I" if k[0] < 4 else "P" for k in KEYS}
    found = _of({"pairs": pairs_frame(*outcomes("solo", dead), *outcomes("coop-comm", dead))}, "agents_died")
    assert [row[:2] for row in found] == [("warning", "coop-comm"), ("warning", "solo")]


def test_cells_that_differ_are_an_error_by_name() -> None:
    frames = {
        "pairs": pairs_frame(
            *outcomes("solo", dict.fromkeys(KEYS, "P")), *outcomes("coop-comm", dict.fromkeys(KEYS, "P"))
        ),
        "provenance": provenance({"setting": "solo", "seed": 0}, {"setting": "coop-comm", "seed": 0, "model": "x"}),
    }
    assert _of(frames, "not_comparable") == [("error", "solo and coop-comm", "not compared: model differs: m / x")]


def test_truncated_cells_are_an_error() -> None:
    frames = {
        "pairs": pairs_frame(*outcomes("solo", dict.fromkeys(KEYS, "P"))),
        "provenance": provenance({"setting": "solo", "seed": 0, "truncated": True}),
    }
    ((level, subject, text),) = _of(frames, "no_headline")
    assert (level, subject) == ("error", "solo")
    assert "a budget stopped it" in text


def test_pairs_without_a_verdict_are_a_warning_above_the_bound() -> None:
    many = _of(
        {"pairs": pairs_frame(*outcomes("solo", {k: "U-"[k[0] % 2] if k[0] < 4 else "P" for k in KEYS}))}, "no_verdict"
    )
    assert many[0][0] == "warning"
    assert "4 of 10 planned pairs without a verdict (40.0 %)" in many[0][2]
    assert many[0][2].endswith("unevaluated 2, missing 2")
    one = {(task, 1): "P" if task else "U" for task in range(30)}
    assert _of({"pairs": pairs_frame(*outcomes("solo", one))}, "no_verdict")[0][0] == "info"


def test_flags_plans_seeds_and_unplanned_cells_are_said() -> None:
    rows = [
        pair_row(task=1, suspect=True),
        pair_row(task=2, stale=True, outcome="unevaluated"),
        conflict(task=1, outcome="pass", outcome_strict="fail", fallback_unseen=True),
        pair_row(setting="coop-comm", task=2, seed=1),
    ]
    cells = provenance(
        {"setting": "solo", "seed": 0, "harness_version": None},
        {"setting": "coop-comm", "seed": 0},
        {"setting": "coop-comm", "seed": 1, "planned": False},
    )
    found = warnings({"pairs": pairs_frame(*rows), "provenance": cells})["warnings"]
    codes = set(found["code"])
    assert codes >= {
        "suspect",
        "stale",
        "rescued",
        "fallback_unseen",
        "one_seed",
        "few_tasks",
        "plans_differ",
        "unplanned_cell",
        "not_on_record",
    }
    assert found["level"].to_list() == sorted(found["level"], key=["error", "warning", "info"].index)
    assert found["position"].to_list() == list(range(found.height))
    unplanned = found.filter(code="unplanned_cell")
    assert unplanned["subject"].to_list() == ["coop-comm seed 1"]


def test_settings_that_ran_at_other_times_are_a_warning() -> None:
    rows = [*outcomes("solo", dict.fromkeys(KEYS, "P")), *outcomes("coop-comm", dict.fromkeys(KEYS, "P"))]
    for row in rows:
        if row["setting"] == "solo":
            row |= {"started_at": START - timedelta(days=1), "ended_at": START - timedelta(hours=23)}
    ((level, subject, _),) = _of({"pairs": pairs_frame(*rows)}, "time_windows")
    assert (level, subject) == ("warning", "solo and coop-comm")


def test_many_settings_that_ran_at_other_times_are_one_line() -> None:
    names = ("solo", "coop-comm", "coop-nocomm", "team")
    rows = [row for name in names for row in outcomes(name, dict.fromkeys(KEYS, "P"))]
    for row in rows:
        days = timedelta(days=names.index(row["setting"]))
        row |= {"started_at": START + days, "ended_at": START + days + timedelta(hours=1)}
    ((_, subject, text),) = _of({"pairs": pairs_frame(*rows)}, "time_windows")
    assert subject == "experiment"
    assert text.startswith("6 pairs of settings did not run in overlapping times")
    assert "coop-comm and coop-nocomm; " in text


def test_a_sound_store_has_nothing_to_say() -> None:
    rows = [*outcomes("solo", dict.fromkeys(KEYS, "PF")), *outcomes("coop-comm", dict.fromkeys(KEYS, "PF"))]
    rows = [row | {"cost_usd": 1.0} for row in rows]
    cells = provenance(*({"setting": s, "seed": seed} for s in ("solo", "coop-comm") for seed in (0, 1)))
    assert warnings({"pairs": pairs_frame(*rows), "provenance": cells})["warnings"].is_empty()
