"""``warnings``: what a reader must know before any figure; the report shows it first.

What belongs here: findings that make figures doubtful, as rows. What does not: checks of the log tree (those are
Dagster's, in ``checks``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.comparability import (
    MUST_AGREE,
    comparable_values,
    contrast_differences,
    refused_settings,
    window_gaps,
)
from cooperbench_assets.analysis.comparisons import contrasts_of
from cooperbench_assets.analysis.formatting import counted, percent
from cooperbench_assets.analysis.frames import (
    CELL,
    Frames,
    cells_of,
    compared_cells,
    conform,
    pairs_of,
    result_table,
)
from cooperbench_assets.analysis.intervals import FEWEST_TASKS

DEATHS = 0.05
"""Share of a setting's planned pairs ended by agent-stage infrastructure above which it is said; and the difference
between two settings above which it is an error: then rates over all pairs compare infrastructure, not agents."""

NO_VERDICT = 0.05
"""Share of a setting's planned pairs without a verdict above which it is a warning, and not only information."""

LEVELS = ("error", "warning", "info")

WARNINGS = result_table(
    "warnings",
    "What to know before reading a figure, the worst first.",
    ("position", pl.Int64, "Place in the list, from 0"),
    ("level", pl.String, "error (figures are refused or mislead), warning, or info"),
    ("code", pl.String, "What kind of finding it is"),
    ("subject", pl.String, "Setting, settings or cell it is about"),
    ("text", pl.String, "The finding in a sentence"),
)

_ROW = ["experiment", "level", "code", "subject", "text"]


def warnings(frames: Frames) -> dict[str, pl.DataFrame]:
    """What to know before reading any figure."""
    cells = cells_of(frames)
    used = compared_cells(cells)
    pairs = pairs_of(frames)
    counts = _counts(pairs.join(used.select(CELL), on=CELL, how="semi"))
    contrasts = contrasts_of(cells)
    parts = [
        _deaths(counts),
        _not_comparable(used, contrasts),
        _refused(used),
        _no_verdict(counts),
        _windows(frames, used, contrasts),
        _unknown(used),
        _plans(pairs, used),
        _flags(counts),
        _thin(counts, used),
        _unplanned(cells),
    ]
    rows = pl.concat(part.select(pl.col(_ROW).cast(pl.String)) for part in parts)
    rows = rows.sort("experiment", pl.col("level").cast(pl.Enum(LEVELS)), "code", "subject", "text")
    rows = rows.with_columns(position=pl.int_range(pl.len()).over("experiment"))
    return {WARNINGS.name: conform(WARNINGS, rows)}


def _row(frame: pl.DataFrame, level: str | pl.Expr, code: str, subject: pl.Expr, text: pl.Expr) -> pl.DataFrame:
    """One finding for every row of `frame`."""
    level = pl.lit(level) if isinstance(level, str) else level
    return frame.select(
        "experiment", level.alias("level"), pl.lit(code).alias("code"), subject.alias("subject"), text.alias("text")
    )


def _counts(pairs: pl.DataFrame) -> pl.DataFrame:
    outcome, stage = pl.col("outcome"), pl.col("stage")
    by_agent = (outcome == "infra_error") & (stage == "agent")
    clean = outcome.is_in(["pass", "fail"])
    families = pl.col("family").filter(by_agent).drop_nulls().unique().sort().str.join(", ")
    of_verdicts = ("suspect", "hollow", "fallback_unseen", "limits_exceeded")
    flags = {name: pl.col(name).fill_null(False) & clean for name in of_verdicts}
    flags |= {name: pl.col(name).fill_null(False) for name in ("stale", "accepted")}
    return pairs.group_by("experiment", "setting").agg(
        planned=pl.len(),
        dead=by_agent.sum(),
        families=families,
        no_verdict=(~clean).sum(),
        infra_eval=((outcome == "infra_error") & (stage == "eval")).sum(),
        unevaluated=(outcome == "unevaluated").sum(),
        missing=(outcome == "missing").sum(),
        tasks=pl.col("task").n_unique(),
        rescued=((outcome == "pass") & (pl.col("outcome_strict") != "pass")).sum(),
        cost_unknown=(pl.col("has_result").fill_null(False) & pl.col("cost_usd").is_null()).sum(),
        **{name: flag.sum() for name, flag in flags.items()},
    )  # fmt: skip


def _deaths(counts: pl.DataFrame) -> pl.DataFrame:
    """Settings whose agents died, held against the experiment's best setting."""
    share = pl.col("dead") / pl.col("planned")
    rows = counts.with_columns(share=share).with_columns(
        least=pl.col("share").min().over("experiment"),
        best=pl.col("setting").sort_by("share", "setting").first().over("experiment"),
    )
    apart = pl.col("share") - pl.col("least") > DEATHS
    what = pl.format(
        "infrastructure errors ended agents in {} of {} ({}; {})",
        "dead", counted("planned", "planned pair"), percent(pl.col("share")), pl.col("families"),
    )  # fmt: skip
    against = pl.format(
        "{}, against {} in {}: its rate over all pairs is not what its agents can do; read the bounds",
        what, percent(pl.col("least")), "best",
    )  # fmt: skip
    found = rows.filter(apart | (pl.col("share") > DEATHS)).with_columns(apart=apart)
    level = pl.when("apart").then(pl.lit("error")).otherwise(pl.lit("warning"))
    return _row(found, level, "agents_died", pl.col("setting"), pl.when("apart").then(against).otherwise(what))


def _not_comparable(used: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    found = contrast_differences(used, contrasts.select("experiment", "setting_a", "setting_b"))
    text = pl.format("not compared: {}", "differs")
    subject = pl.format("{} and {}", "setting_a", "setting_b")
    return _row(found.filter(pl.col("differs").is_not_null()), "error", "not_comparable", subject, text)


def _refused(used: pl.DataFrame) -> pl.DataFrame:
    found = refused_settings(used).filter(pl.col("why_not").is_not_null())
    text = pl.format("no headline figure: {}", "why_not")
    return _row(found, "error", "no_headline", pl.col("setting"), text)


def _no_verdict(counts: pl.DataFrame) -> pl.DataFrame:
    share = pl.col("no_verdict") / pl.col("planned")
    level = pl.when(share > NO_VERDICT).then(pl.lit("warning")).otherwise(pl.lit("info"))
    text = pl.format(
        "{} of {} without a verdict ({}): infra_error of agents {}, infra_error of evaluations {}, "
        "unevaluated {}, missing {}",
        "no_verdict", counted("planned", "planned pair"), percent(share),
        "dead", "infra_eval", "unevaluated", "missing",
    )  # fmt: skip
    return _row(counts.filter(pl.col("no_verdict") > 0), level, "no_verdict", pl.col("setting"), text)


def _windows(frames: Frames, used: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    gaps = window_gaps(frames, used, contrasts).filter(pl.col("gap").is_not_null())
    named = pl.format("{} and {}", "setting_a", "setting_b")
    several = gaps.group_by("experiment").agg(
        n=pl.len(), named=named.sort().str.join("; "), gap=pl.col("gap").first(), one=named.first()
    )
    text = pl.format(
        "{} of settings did not run in overlapping times, so that the model or the service may have changed between "
        "them: {}; how far apart, see the column caution of paired_comparisons",
        counted("n", "pair"), "named",
    )  # fmt: skip
    alone = pl.col("n") == 1
    subject = pl.when(alone).then("one").otherwise(pl.lit("experiment"))
    return _row(several, "warning", "time_windows", subject, pl.when(alone).then("gap").otherwise(text))


def _unknown(used: pl.DataFrame) -> pl.DataFrame:
    """What should agree among cells, and is not on record for some."""
    known = comparable_values(used).with_columns(solo=pl.col("mode") == "solo")
    parts = []
    for name, label in MUST_AGREE.items():
        lacking = known.filter(pl.col(name).is_null() & ~(pl.col("solo") & pl.lit(name == "merge_policy")))
        found = lacking.group_by("experiment").agg(n=pl.len())
        text = pl.format(
            "the {} of {} is not on record, so that it cannot be said to agree", pl.lit(label), counted("n", "cell")
        )
        parts.append(_row(found, "info", "not_on_record", pl.lit(label), text))
    return pl.concat(parts)


def _plans(pairs: pl.DataFrame, used: pl.DataFrame) -> pl.DataFrame:
    """Cells of an experiment that do not plan the same pairs."""
    of_used = pairs.join(used.select(CELL), on=CELL, how="semi")
    plans = of_used.group_by(CELL).agg(plan=pl.col("pair").sort().str.join(",").hash(), n=pl.len())
    found = plans.group_by("experiment").agg(
        plans=pl.col("plan").n_unique(), least=pl.col("n").min(), most=pl.col("n").max()
    )
    text = pl.format("the cells plan different pairs ({} to {})", "least", counted("most", "pair"))
    return _row(found.filter(pl.col("plans") > 1), "warning", "plans_differ", pl.lit("experiment"), text)


def _flags(counts: pl.DataFrame) -> pl.DataFrame:
    """Verdicts that may not be what they look like."""
    texts = {
        "suspect": ("warning", "suspect verdicts (an agent submitted although its stream ended in an API error)"),
        "stale": ("warning", "verdicts older than their result or of another patch, which are not used"),
        "rescued": ("info", "passes by upstream's verdict only, which the strict one does not count"),
        "hollow": ("info", "merges that are called clean and hold nothing"),
        "fallback_unseen": ("info", "conflicts after which agent 1's patch was tested alone, its output not kept"),
        "limits_exceeded": ("info", "verdicts on agents that ended at their step or cost limit"),
        "accepted": ("info", "infrastructure failures that a person accepted; they still count as infra_error"),
        "cost_unknown": ("info", "results without a known cost, which totals leave out"),
    }
    return pl.concat(
        _row(counts.filter(pl.col(name) > 0), level, name, pl.col("setting"), pl.format("{}: {}", pl.lit(text), name))
        for name, (level, text) in texts.items()
    )


def _thin(counts: pl.DataFrame, used: pl.DataFrame) -> pl.DataFrame:
    seeds = used.group_by("experiment", "setting").agg(seeds=pl.len())
    once = _row(
        seeds.filter(pl.col("seeds") == 1),
        "info",
        "one_seed",
        pl.col("setting"),
        pl.lit("one seed only: how much a repetition would differ cannot be told"),
    )
    tasks = counts.group_by("experiment").agg(tasks=pl.col("tasks").max())
    few = _row(
        tasks.filter(pl.col("tasks") < FEWEST_TASKS),
        "warning",
        "few_tasks",
        pl.lit("experiment"),
        pl.format("{}: too few for an interval or a conclusion beyond these pairs", counted("tasks", "task")),
    )
    return pl.concat([once, few])


def _unplanned(cells: pl.DataFrame) -> pl.DataFrame:
    found = cells.filter(~pl.col("planned"))
    text = pl.lit("a cell that the experiment does not ask for; only its own rows and costs count it")
    return _row(found, "info", "unplanned_cell", pl.format("{} seed {}", "setting", "seed"), text)
