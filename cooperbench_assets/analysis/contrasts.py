"""One side against another over the pairs that both were judged on: its estimate, its tests, what stands against it.

What belongs here: what contrasts of settings (``comparisons``) and of experiments (``across``) have in common. What
does not: which sides are contrasted and which were planned, whether they may be (``comparability``), what is scored
(``endpoints``), and the formulas (``intervals``, ``significance``).

A contrast lies within one ``experiment`` and is of two ``setting``s; across experiments the two columns change places.
Two things are estimated: how the settings differ on other tasks like these (tasks are the sample), and how they differ
on these tasks (only the agents' luck is drawn anew). Each has its p value, and a sentence says which it is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import scipy

from cooperbench_assets.analysis.comparability import (
    CONTRAST_REASONS,
    beside_the_headline,
    with_headline,
    without_refused,
)
from cooperbench_assets.analysis.declarations import PLANNED
from cooperbench_assets.analysis.endpoints import ENDPOINTS
from cooperbench_assets.analysis.formatting import MINUS, counted, points
from cooperbench_assets.analysis.frames import SCORE, columns
from cooperbench_assets.analysis.intervals import ALPHA, clustered, why_no_interval
from cooperbench_assets.analysis.significance import holm, mcnemar, sign_flips, smallest_p

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cooperbench_assets.analysis.significance import SignFlip

CONTRAST = (*SCORE, "endpoint", "setting_a", "setting_b")

POWER = 0.8
"""Chance with which the detectable difference is found."""

ESTIMATE = columns(
    ("endpoint", pl.String, "; ".join(f"{name}: {text}" for name, text in ENDPOINTS.items())),
    ("family", pl.String, "planned (Holm and simultaneous intervals are within these), or exploratory"),
    ("seeds_a", pl.Int64, "Seeds of side A with a verdict"),
    ("seeds_b", pl.Int64, "Seeds of side B with a verdict"),
    ("pairs", pl.Int64, "Common pairs: at least one verdict on both sides"),
    ("pairs_left_out", pl.Int64, "Pairs planned on both sides without a verdict on one"),
    ("tasks", pl.Int64, "Tasks of the common pairs"),
    ("informative_pairs", pl.Int64, "Common pairs whose means differ"),
    ("informative_tasks", pl.Int64, "Tasks whose sum of differences is not 0"),
    ("rate_a", pl.Float64, "Mean over common pairs of A's mean over seeds"),
    ("rate_b", pl.Float64, "Mean over common pairs of B's mean over seeds"),
    ("difference", pl.Float64, "rate_a − rate_b: the estimate"),
    ("low", pl.Float64, "Other tasks like these: lower end of the 95 % interval, what the test of p does not reject"),
    ("high", pl.Float64, "Upper end of it"),
    ("low_all", pl.Float64, "Lower end of the simultaneous interval: 95 % for all contrasts of the family together"),
    ("high_all", pl.Float64, "Upper end of it; 0 where Holm's method rejects and Bonferroni's interval reaches over 0"),
    ("se", pl.Float64, "CR2 standard error by task"),
    ("interval_note", pl.String, "Why there is no interval"),
    ("p", pl.Float64, "Other tasks like these: two-sided sign-flip test of the task sums, mid-p"),
    ("p_method", pl.String, "How p was found"),
    ("p_holm", pl.Float64, "p adjusted by Holm over the contrasts of its family, endpoint, verdict and population"),
    ("contrasts", pl.Int64, "Contrasts that Holm's method adjusts for"),
    ("p_smallest", pl.Float64, "Smallest p_holm for so many tasks: 2/2^tasks (over 15: 1/16,385) times contrasts"),
    ("detectable", pl.Float64, "Smallest true difference that 4 of 5 such studies find, Bonferroni over contrasts"),
    ("only_a", pl.Int64, "Pairs times common seeds that pass in A only"),
    ("only_b", pl.Int64, "Pairs times common seeds that pass in B only"),
    ("p_these", pl.Float64, "These tasks: exact McNemar test of only_a against only_b, within pair and seed"),
    ("p_these_holm", pl.Float64, "p_these adjusted by Holm like p"),
    ("claimed", pl.Boolean, "A difference on other tasks like these: p_holm and p_smallest at most .05"),
    ("equivalent", pl.Boolean, "Both one-sided tests at 5 % hold within the declared margin; NULL: none was declared"),
    ("non_verdicts_a", pl.Int64, "Pairs times seeds without a verdict in A, of those planned in both"),
    ("non_verdicts_b", pl.Int64, "The same in B"),
    ("difference_lowest", pl.Float64, "Difference if A's non-verdicts all failed and B's all passed"),
    ("difference_highest", pl.Float64, "Difference if A's non-verdicts all passed and B's all failed"),
    ("robust", pl.Boolean, "A difference is claimed, and has the same sign at both of these extremes"),
    ("refused", pl.String, "Why these two may not be compared; all figures are then NULL"),
    ("caution", pl.String, "What else may explain a difference, such as times that do not overlap"),
    ("statement", pl.String, "The result in a sentence"),
)


def contrasted(
    scores: Iterable[pl.DataFrame], contrasts: pl.DataFrame, reasons: pl.DataFrame, family: Sequence[str]
) -> pl.DataFrame:
    """Every contrast, estimated and tested.

    Args:
        scores: As ``endpoints.endpoint_scores`` gives them.
        contrasts: One row for each: experiment, setting_a, setting_b, ``family``, ``margin`` (of equivalence, or NULL),
            and whatever the caller's table has of them.
        reasons: By the same three: ``refused``, ``why_a``, ``why_b`` (as ``comparability.refusals`` has them), and
            ``caution``.
        family: Columns within which, beside ``family`` and ``endpoint``, Holm's method counts contrasts.

    Returns:
        One row for every contrast by every endpoint, verdict and population: the columns of ``ESTIMATE``, but for what
        `contrasts` brings, with ``headline`` and ``why_not``.
    """
    on = ["experiment", "setting_a", "setting_b"]
    parts = [_parts(kind) for kind in scores]
    estimates, sums = (pl.concat(part) for part in zip(*parts, strict=True))
    rows = contrasts.join(estimates, on=on, how="left").join(reasons, on=on, how="left")
    figures = [name for name, dtype in rows.schema.items() if dtype in (pl.Float64, pl.Boolean) and name != "margin"]
    rows = rows.with_columns(without_refused(*figures, "interval_note"))
    rows = _with_tests(rows, sums, [*family, "endpoint", "family"])
    rows = rows.with_columns(statement=_statement())
    empty = pl.when(pl.col("pairs").fill_null(0) == 0).then(pl.lit("no pair was judged in both"))
    explored = pl.when(pl.col("family") != PLANNED).then(pl.lit("exploratory: not among the planned contrasts"))
    other = pl.when(pl.col("endpoint") != pl.col("primary")).then(pl.lit("not the primary endpoint"))
    return with_headline(rows, beside_the_headline(), *CONTRAST_REASONS, other, explored, empty)


def against_each_other(sides: pl.DataFrame) -> pl.DataFrame:
    """Every two settings of an experiment, from experiment, setting and place: each of these with _a and _b."""
    a, b = (sides.rename({name: f"{name}_{side}" for name in ("setting", "place")}) for side in "ab")
    return a.join(b, on="experiment").filter(pl.col("place_a") < pl.col("place_b"))


def pair_means(scores: pl.DataFrame) -> pl.DataFrame:
    """Per verdict, population, setting and pair: ``k`` passes, ``n`` verdicts, ``seeds``, and the ``mean`` k/n."""
    by = [name for name in (*SCORE, "endpoint", "setting", "place", "task", "pair") if name in scores.columns]
    sums = scores.group_by(by).agg(
        k=pl.col("score").sum().cast(pl.Int64), n=pl.col("score").count().cast(pl.Int64), seeds=pl.len().cast(pl.Int64)
    )
    return sums.with_columns(mean=pl.when(pl.col("n") > 0).then(pl.col("k") / pl.col("n")))


def _parts(scores: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All contrasts of one endpoint: their estimates, and the sums of their tasks."""
    differences = _differences(pair_means(scores))
    known = differences.filter(pl.col("d").is_not_null())
    estimates = _estimates(differences, known).join(_by_seed(scores), on=CONTRAST, how="left")
    return estimates, known.group_by(*CONTRAST, "task").agg(s=pl.col("d").sum(), m=pl.len().cast(pl.Float64))


def _differences(means: pl.DataFrame) -> pl.DataFrame:
    """One row for every contrast and pair planned on both sides: ``d`` (NULL without a verdict on one) and bounds.

    Args:
        means: Of one endpoint.
    """
    side = means.drop("endpoint", "task")
    both = means.join(side, on=[*SCORE, "pair"], suffix="_b").filter(pl.col("place") < pl.col("place_b"))
    low_a, low_b = pl.col("k") / pl.col("seeds"), pl.col("k_b") / pl.col("seeds_b")
    gap_a, gap_b = pl.col("seeds") - pl.col("n"), pl.col("seeds_b") - pl.col("n_b")
    d = pl.col("mean") - pl.col("mean_b")
    return both.select(
        *SCORE,
        "endpoint",
        pl.col("setting").alias("setting_a"),
        "setting_b",
        "task",
        "pair",
        d=pl.when(d.abs() > 1e-12).then(d).otherwise(d * 0),
        mean_a="mean",
        mean_b="mean_b",
        gap_a=gap_a,
        gap_b=gap_b,
        lowest=low_a - low_b - gap_b / pl.col("seeds_b"),
        highest=low_a + gap_a / pl.col("seeds") - low_b,
    )


def _estimates(differences: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """One row per contrast: the estimate, its extremes, and its standard error."""
    common = pl.col("d").is_not_null()
    rows = differences.group_by(CONTRAST).agg(
        pairs=common.sum().cast(pl.Int64),
        pairs_left_out=(~common).sum().cast(pl.Int64),
        informative_pairs=(pl.col("d") != 0).sum().cast(pl.Int64),
        rate_a=pl.col("mean_a").filter(common).mean(),
        rate_b=pl.col("mean_b").filter(common).mean(),
        difference=pl.col("d").mean(),
        non_verdicts_a=pl.col("gap_a").sum(),
        non_verdicts_b=pl.col("gap_b").sum(),
        difference_lowest=pl.col("lowest").mean(),
        difference_highest=pl.col("highest").mean(),
    )
    spread = clustered(known.with_columns(one=pl.lit(1)), CONTRAST, total="d", count="one")
    rows = rows.join(spread.select(*CONTRAST, "tasks", "se", "dof"), on=CONTRAST, how="left")
    note = why_no_interval(pl.col("se") < 1e-9)
    shown = note.is_null() & pl.col("tasks").is_not_null()
    return rows.with_columns(pl.col("tasks").fill_null(0), interval_note=note, se=pl.when(shown).then("se"))


def _by_seed(scores: pl.DataFrame) -> pl.DataFrame:
    """Per contrast: seeds with a verdict on either side, and pairs of common seeds that pass in one setting only."""
    key = [*SCORE, "endpoint"]
    judged = scores.filter(pl.col("score").is_not_null()).select(*key, "setting", "place", "seed", "pair", "score")
    seeds = judged.group_by(*key, "setting", "place").agg(seeds=pl.col("seed").n_unique().cast(pl.Int64))
    sides = [pl.col("setting").alias("setting_a"), pl.col("setting_b")]
    two = seeds.join(seeds, on=key, suffix="_b").filter(pl.col("place") < pl.col("place_b"))
    two = two.select(*key, *sides, seeds_a="seeds", seeds_b="seeds_b")
    both = judged.join(judged, on=[*key, "seed", "pair"], suffix="_b").filter(pl.col("place") < pl.col("place_b"))
    more, less = pl.col("score") > pl.col("score_b"), pl.col("score") < pl.col("score_b")
    split = both.group_by(*key, *sides).agg(only_a=more.sum().cast(pl.Int64), only_b=less.sum().cast(pl.Int64))
    return two.join(split, on=CONTRAST, how="left")


def _with_tests(rows: pl.DataFrame, sums: pl.DataFrame, family: Sequence[str]) -> pl.DataFrame:
    """p values for both estimands, Holm's adjustment, intervals, and what the design can show."""
    live = pl.col("s").abs() > 1e-9
    lists = sums.sort(*CONTRAST, "task").group_by(CONTRAST, maintain_order=True).agg(
        "s", "m", informative_tasks=live.sum().cast(pl.Int64)
    )  # fmt: skip
    flips = sign_flips([(s.to_numpy(), m.to_numpy()) for s, m in zip(lists["s"], lists["m"], strict=True)])
    tested = lists.drop("s", "m").with_columns(
        p=pl.Series([flip.p() for flip in flips], dtype=pl.Float64),
        p_method=pl.Series([flip.method for flip in flips], dtype=pl.String),
        test=pl.int_range(pl.len()),
    )
    rows = rows.join(tested, on=CONTRAST, how="left").with_columns(
        pl.col("informative_tasks", "only_a", "only_b").fill_null(0)
    )
    rows = rows.with_columns(p_these=mcnemar(rows["only_a"], rows["only_b"]))
    rows = rows.with_columns(
        *without_refused("p", "p_method"),
        p_these=pl.when(pl.col("p").is_not_null() & pl.col("refused").is_null()).then("p_these"),
    )
    rows = rows.with_columns(
        p_holm=holm("p", family),
        p_these_holm=holm("p_these", family),
        contrasts=pl.col("p").count().over(family).cast(pl.Int64),
    )
    return _with_conclusions(_with_ends(rows, flips))


def _with_ends(rows: pl.DataFrame, flips: Sequence[SignFlip]) -> pl.DataFrame:
    """Intervals of each row's own test, alone and together with its family, and equivalence within the margin."""
    found = [_ends(row, flips) for row in rows.iter_rows(named=True)]
    names = ("low", "high", "low_all", "high_all", "inner_low", "inner_high")
    ends = pl.DataFrame(found, schema=dict.fromkeys(names, pl.Float64), orient="row")
    inside = (pl.col("inner_low") > -pl.col("margin")) & (pl.col("inner_high") < pl.col("margin"))
    return pl.concat([rows, ends], how="horizontal").with_columns(
        equivalent=pl.when(pl.col("margin").is_not_null() & pl.col("p").is_not_null()).then(inside.fill_null(False))
    )


def _ends(row: Mapping[str, Any], flips: Sequence[SignFlip]) -> tuple[float | None, ...]:
    if row["p"] is None or row["se"] is None:
        return (None,) * 6
    flip = flips[row["test"]]
    low, high = flip.ends(ALPHA / row["contrasts"])
    if row["p_holm"] <= ALPHA:
        # Holm's method rejects more than Bonferroni's: its interval ends at 0 there (Guilbaud, Biom. J. 50 (2008) 678).
        low, high = (max(low, 0.0), high) if flip.estimate > 0 else (low, min(high, 0.0))
    ends = (*flip.ends(ALPHA), low, high, *flip.ends(2 * ALPHA))
    return tuple(min(max(end, -1.0), 1.0) for end in ends)


def _with_conclusions(rows: pl.DataFrame) -> pl.DataFrame:
    """What the design could show, whether a difference is claimed, and whether its sign is settled."""
    smallest = (pl.col("contrasts") * smallest_p(pl.col("tasks"))).clip(upper_bound=1.0)
    dof = rows["dof"].fill_null(1.0).to_numpy()
    share = 1 - ALPHA / 2 / np.maximum(rows["contrasts"].to_numpy(), 1)
    reach = pl.Series(scipy.special.stdtrit(dof, share) + scipy.special.stdtrit(dof, POWER), dtype=pl.Float64)
    rows = rows.with_columns(
        p_smallest=pl.when(pl.col("p").is_not_null()).then(smallest), detectable=(pl.col("se") * reach)
    )
    claimed = (pl.col("p_holm") <= ALPHA) & (pl.col("p_smallest") <= ALPHA)
    signs = [pl.col(name).round(12).sign() for name in ("difference", "difference_lowest", "difference_highest")]
    same = (signs[0] == signs[1]) & (signs[0] == signs[2]) & (signs[0] != 0)
    rows = rows.with_columns(claimed=claimed.fill_null(False), robust=(claimed & same).fill_null(False))
    return rows.with_columns(without_refused("claimed", "robust"))


def conclusion() -> pl.Expr:
    """What a contrast comes to, in a few words; NULL where nothing was judged on both sides."""
    return (
        pl.when(pl.col("p").is_null())
        .then(pl.lit(None, pl.String))
        .when(pl.col("p_smallest") > ALPHA)
        .then(pl.lit("this design cannot decide"))
        .when(pl.col("claimed") & (pl.col("difference") > 0))
        .then(pl.format("{} higher", "setting_a"))
        .when("claimed")
        .then(pl.format("{} higher", "setting_b"))
        .when(pl.col("equivalent").fill_null(False))
        .then(pl.lit("equivalent within the declared margin"))
        .otherwise(pl.lit("no difference shown"))
    )


def _p(name: str) -> pl.Expr:
    """A p value to two digits; what is smaller than one in ten thousand says no more than that."""
    exact = pl.format("= {}", pl.col(name).round_sig_figs(2))
    return pl.when(pl.col(name) < 1e-4).then(pl.lit("< 0.0001")).otherwise(exact)


def _statement() -> pl.Expr:
    """The result in words: on other tasks like these, on these tasks, and what it comes to."""
    estimate = pl.format(
        f"{{}} {MINUS} {{}} = {{}} points over {{}} of {{}}",
        "setting_a", "setting_b", points("difference"), counted("pairs", "pair"), counted("tasks", "task"),
    )  # fmt: skip
    interval = (
        pl.when(pl.col("low").is_not_null())
        .then(pl.format("95 % {} to {}", points("low"), points("high")))
        .otherwise(pl.format("no interval: {}", pl.col("interval_note").fill_null("nothing to cluster")))
    )
    tests = pl.format(
        " ({} on other tasks like these, p {}, Holm over {}; on these tasks p {}); ",
        interval, _p("p_holm"), counted("contrasts", "contrast"), _p("p_these_holm"),
    )  # fmt: skip
    return (
        pl.when(pl.col("refused").is_not_null())
        .then(pl.format("{} and {} are not compared: {}", "setting_a", "setting_b", "refused"))
        .when(pl.col("difference").is_null())
        .then(pl.format("{} and {}: no pair was judged in both", "setting_a", "setting_b"))
        .otherwise(pl.concat_str(estimate, tests, _sign()))
    )


def _sign() -> pl.Expr:
    """What a difference comes to, and what can be said of its sign whatever the non-verdicts were."""
    extremes = pl.format("{} to {}", points("difference_lowest"), points("difference_highest"))
    none = (pl.col("non_verdicts_a") + pl.col("non_verdicts_b")) == 0
    equal = pl.col("difference").round(12) == 0
    smallest = pl.col("p_smallest").round_sig_figs(2)
    undecided = pl.format("this design cannot decide: with so few tasks p is never below {}", smallest)
    shown = (
        pl.when(pl.col("p_smallest") > ALPHA)
        .then(undecided)
        .when(equal & none)
        .then(pl.lit("no difference on average, and no pair is without a verdict"))
        .when(equal)
        .then(pl.lit("no difference on average"))
        .when(~pl.col("claimed"))
        .then(conclusion())
        .when(none)
        .then(pl.lit("a difference is shown; no pair is without a verdict that could turn the sign"))
        .when("robust")
        .then(pl.lit("a difference is shown; robust: the sign holds whatever the non-verdicts were"))
        .otherwise(pl.lit("a difference is shown, and its sign is not settled"))
    )
    beside = pl.format("; with the non-verdicts at their extremes it is {}", extremes)
    return pl.concat_str(shown, pl.when(none | pl.col("robust")).then(pl.lit("")).otherwise(beside))
