"""``numbers.tex``: the report's figures as LaTeX macros, so that no number in a paper is typed by hand.

What belongs here: names and values of macros. What does not: tables (``tables``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import polars as pl

from cooperbench_assets.report.headline_filter import ACROSS, CONTRAST, SUMMARY, with_standing
from cooperbench_assets.report.tables import tex_escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NOT_GIVEN = "n/a"
ACROSS_TABLE = "experiment_comparisons"
"""Among the results of several experiments: the contrasts of one with another."""

_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
_WORD = re.compile(r"[A-Za-z]+|[0-9]")


def macro_name(*parts: str) -> str:
    r"""A name of letters only: ``coop-comm`` becomes ``CoopComm``, digits become words; ``\cb`` stands before it."""
    words = (word for part in parts for word in _WORD.findall(part))
    return "cb" + "".join(_DIGITS[int(word)] if word.isdigit() else word[0].upper() + word[1:] for word in words)


def numbers_tex(results: Mapping[str, pl.DataFrame]) -> str:
    """All macros of the experiments in `results`, one a line.

    Raises:
        ValueError: if two settings or experiments would share a macro.
    """
    made: dict[str, str] = {}
    for parts, value in _numbers(results):
        name = macro_name(*parts)
        if name in made:
            raise ValueError(f"\\{name} would stand for two figures; rename one of: {', '.join(parts)}")
        made[name] = value
    head = "% Shares are percentages, differences percentage points, money USD; n/a: refused or not known.\n"
    return head + "".join(f"\\newcommand{{\\{name}}}{{{tex_escaped(value)}}}\n" for name, value in made.items())


def _numbers(results: Mapping[str, pl.DataFrame]) -> Iterator[tuple[tuple[str, ...], str]]:
    summary = with_standing(results["setting_summary"].filter(level="setting"), SUMMARY)
    for row in summary.iter_rows(named=True):
        yield from _of_setting(row)
    contrasts = results["paired_comparisons"].filter(population="clean", endpoint="success")
    for row in with_standing(contrasts, CONTRAST).iter_rows(named=True):
        yield from _of_two(row, row["experiment"], row["setting_a"], "Vs", row["setting_b"])
    if ACROSS_TABLE in results:
        across = with_standing(results[ACROSS_TABLE].filter(population="clean"), ACROSS)
        for row in across.iter_rows(named=True):
            yield from _of_two(row, "Across", row["setting"], row["experiment_a"], "Vs", row["experiment_b"])
    for row in results["retention"].filter(verdict="strict", population="clean").iter_rows(named=True):
        for name, column in (("Retention", "retention"), ("RetentionLow", "low"), ("RetentionHigh", "high")):
            yield (row["experiment"], row["setting"], name), _percent(row[column] if row["headline"] else None)
    for row in results["cost_report"].filter(level="setting").iter_rows(named=True):
        yield (row["experiment"], row["setting"], "SpentUsd"), _money(row["spent_usd"])
        for name, column in (
            ("UsdPerPair", "pair"), ("UsdPerPass", "pass_strict"), ("UsdPerPassLow", "pass_strict_low"),
            ("UsdPerPassHigh", "pass_strict_high"),
        ):  # fmt: skip
            yield (row["experiment"], row["setting"], name), _money(row[f"usd_per_{column}"])


def _suffix(row: Mapping[str, Any]) -> str:
    """What tells upstream's figures from the strict ones, which are the default."""
    return "" if row["verdict"] == "strict" else "Upstream"


def _of_setting(row: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    who = (row["experiment"], row["setting"])
    if row["verdict"] == "strict":
        for name, column in (
            ("Seeds", "seeds"),
            ("Planned", "planned"),
            ("Clean", "clean"),
            ("InfraErrors", "infra_error"),
        ):
            yield (*who, name), f"{row[column]}"
    suffix = _suffix(row)
    for name, column in (
        ("Rate", "rate_clean"), ("RateLow", "clean_low"), ("RateHigh", "clean_high"), ("RatePlanned", "rate_planned"),
    ):  # fmt: skip
        yield (*who, suffix, name), _percent(row[column] if row["shown"] else None)
    yield (*who, suffix, "BoundLow"), _percent(row["bound_low"])
    yield (*who, suffix, "BoundHigh"), _percent(row["bound_high"])
    yield (*who, suffix, "Passes"), f"{row['passes']}"


def _of_two(row: Mapping[str, Any], *names: str) -> Iterator[tuple[tuple[str, ...], str]]:
    who = (*names, _suffix(row))
    for name, column in (("Difference", "difference"), ("DifferenceLow", "low"), ("DifferenceHigh", "high")):
        yield (*who, name), _percent(row[column] if row["shown"] else None)
    yield (*who, "P"), NOT_GIVEN if row["p_holm"] is None or not row["shown"] else f"{row['p_holm']:.2g}"
    yield (*who, "Pairs"), f"{row['pairs'] or 0}"
    yield (*who, "Tasks"), f"{row['tasks'] or 0}"


def _percent(value: float | None) -> str:
    return NOT_GIVEN if value is None else f"{100 * value:.1f}"


def _money(value: float | None) -> str:
    return NOT_GIVEN if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
