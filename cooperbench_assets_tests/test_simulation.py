"""A small, fixed part of the simulation by which methods were chosen, and that it tries what the analysis does."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cooperbench_assets.analysis.intervals import clustered, ratio_interval
from cooperbench_assets.analysis.significance import sign_flips
from perf.simulation import claims, contrasts, page, rates, retention
from perf.simulation.__main__ import KEPT, PAGE, kept
from perf.simulation.designs import Design, drawn

TWO = Design(0.4, 8, 3, 0.3, 0.2)


def test_the_interval_of_a_rate_covers_where_the_t_interval_does_not() -> None:
    for design in (Design(0.1, 20, 3, 0.6), Design(0.05, 26, 5, 0.4), Design(0.2, 8, 3, 0.4)):
        found = rates.measured(design, 2_000, np.random.default_rng(5))
        assert found[rates.CHOSEN]["coverage"] >= 0.93 - 3 * (0.07 * 0.93 / 2_000) ** 0.5
        assert found["CR2-t"]["coverage"] < 0.9


@pytest.mark.slow
def test_settings_that_do_not_differ_are_rarely_called_different() -> None:
    for design in (Design(0.1, 6, 3, 0.3, 0.1), Design(0.5, 12, 3, 0.6, 0.5), Design(0.3, 20, 3, 0.3, 0.3, "drift")):
        found = contrasts.measured(design, 2_000, np.random.default_rng(6))[page.CONTRAST]
        assert found["rejected"] <= 0.055 + 3 * (0.055 * 0.945 / 2_000) ** 0.5


def test_studies_without_any_effect_claim_one_in_rarely_more_than_twenty() -> None:
    found = claims.measured(Design(0.3, 8, 2, 0.3), 200, np.random.default_rng(7))
    assert found["studies"] == 200
    assert found["claimed"] <= 0.055 + 3 * (0.055 * 0.945 / 200) ** 0.5


def test_the_simulation_tries_what_the_analysis_does() -> None:
    solo, coop = drawn(TWO, 1, np.random.default_rng(8))
    counts = TWO.counts
    mean, se, dof = rates.cr2(solo, counts)
    frame = pl.DataFrame({"g": 0, "task": range(8), "s": solo[0], "n": counts})
    row = clustered(frame, ["g"], total="s").row(0, named=True)
    assert (row["mean"], row["se"], row["dof"]) == pytest.approx((mean[0], se[0], dof))
    (flip,) = sign_flips([(solo[0] - coop[0], counts)])
    for shift in (0.0, 0.1):
        p = contrasts.p_values(solo - coop, counts, shift)[page.CONTRAST][0]
        assert flip.p(shift) == pytest.approx(p)
    ends = retention.of_ratios(coop, solo, counts)[page.RATIO]
    assert ratio_interval(coop[0], solo[0], counts) == pytest.approx((ends[0][0], ends[1][0]))


def test_the_page_says_what_the_simulation_gave_last() -> None:
    assert KEPT.exists()
    assert PAGE.read_text(encoding="utf-8") == page.page(kept()), "run: python -m perf.simulation --page"
