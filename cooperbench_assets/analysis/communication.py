"""``communication``: how much agents write to each other, when, and what kind of thing.

What belongs here: counts and shares per cell and setting. What does not: the labels (``messages``) and what goes with
success (``associations``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.comparability import refused_units, with_headline
from cooperbench_assets.analysis.frames import (
    CELL,
    HEADLINE,
    UNIT,
    Frames,
    cells_and_settings,
    cells_of,
    conform,
    is_clean,
    pairs_of,
    result_table,
    settings_of,
    table_of,
    tally,
)
from cooperbench_assets.analysis.messages import LABELS, MENTIONS, labels_of
from cooperbench_assets.store import schema

_SHARES = (*LABELS, *MENTIONS)
_PAIR = (*CELL, "pair")

COMMUNICATION = result_table(
    "communication",
    "Messages between agents, per cell and setting; means and shares over clean pairs. Labels are by stated rules.",
    *UNIT,
    ("pairs", pl.Int64, "Pairs with a readable result"),
    ("pairs_with_messages", pl.Int64, "Pairs in which any message was sent"),
    ("agents", pl.Int64, "Agents of those results"),
    ("messages", pl.Int64, "Messages"),
    ("clean", pl.Int64, "Those pairs that have a clean verdict: every figure after this one is over them"),
    ("left_out", pl.Int64, "The other pairs: dead agents and what was not judged"),
    ("left_out_messages_per_pair", pl.Float64, "Messages of these over their number"),
    ("messages_per_pair", pl.Float64, "Messages of clean pairs / clean"),
    ("messages_per_agent", pl.Float64, "Messages of clean pairs / their agents"),
    ("characters_median", pl.Float64, "Median length of a message"),
    ("steps", pl.Int64, "Steps of the pairs whose steps are known"),
    ("share_of_steps", pl.Float64, "Messages per step over those pairs, a message taken as one step"),
    ("first_message_minutes", pl.Float64, "Median minutes from the start of the agents to the first message"),
    ("first_message_share", pl.Float64, "Median of that time over the pair's duration"),
    ("first_message_known", pl.Int64, "Pairs whose first message has a time within the agents' run"),
    ("writers", pl.Int64, "Agents that sent a message"),
    ("writers_known", pl.Int64, "Those of which every message's step is known from the trajectory"),
    ("message_steps", pl.Int64, "Steps in which these sent a message"),
    ("share_message_steps", pl.Float64, "message_steps over all steps of these agents"),
    ("first_message_step", pl.Float64, "Median step, from 1, of the first message of these agents"),
    ("first_message_step_share", pl.Float64, "Median of that step over the agent's steps"),
    *((f"share_{name}", pl.Float64, f"Share of messages labelled {name}") for name in _SHARES),
    ("first_turn_plan", pl.Float64, "Of agents that wrote, the share whose first message has a plan"),
    ("questions", pl.Int64, "Messages with a question"),
    ("questions_unanswered", pl.Int64, "Those after which no other agent sent anything"),
    ("share_unanswered", pl.Float64, "questions_unanswered / questions"),
    ("labels", pl.String, "Where the labels come from: rules, or the names of other sources"),
    *HEADLINE,
)


def communication(frames: Frames) -> dict[str, pl.DataFrame]:
    """How much agents write to each other, when, and what kind of thing."""
    cells = cells_of(frames)
    labels = labels_of(frames)
    places = settings_of(cells).filter(pl.col("mode") != "solo").select("experiment", "setting", "place")
    pairs = talk_of_pairs(frames, labels).join(places, on=["experiment", "setting"])
    clean = pairs_of(frames).filter(is_clean()).select(_PAIR)
    labels, writers = (rows.join(clean, on=_PAIR, how="semi") for rows in (labels, _writers(frames)))
    rows = _summary(cells_and_settings(pairs, cells), cells_and_settings(_with_lengths(labels, frames), cells))
    steps = _steps(cells_and_settings(writers, cells))
    rows = rows.join(steps, on=CELL, how="left", nulls_equal=True).with_columns(
        pl.col("writers", "writers_known", "message_steps").fill_null(0)
    )
    rows = with_headline(rows.join(refused_units(cells), on=CELL, how="left", nulls_equal=True), pl.col("why_not"))
    order = [pl.col("experiment", "place", "setting"), pl.col("seed").is_not_null(), pl.col("seed")]
    return {COMMUNICATION.name: conform(COMMUNICATION, rows.sort(*order))}


def _writers(frames: Frames) -> pl.DataFrame:
    """One row for every agent that sent a message: ``known`` (each of them has a step), those steps, and all steps."""
    agent = [*_PAIR, "sender"]
    totals = table_of(frames, schema.AGENTS).select(*_PAIR, sender="agent", steps="steps")
    step = pl.col("step")
    sent = table_of(frames, schema.MESSAGES).group_by(agent).agg(
        known=step.is_not_null().all(), sending=step.n_unique().cast(pl.Int64), first=step.min()
    )  # fmt: skip
    rows = sent.join(totals, on=agent, how="left")
    return rows.with_columns(known=pl.col("known") & (pl.col("steps") >= pl.col("first")).fill_null(False))


def _steps(writers: pl.DataFrame) -> pl.DataFrame:
    """What is known of the steps that messages were sent in, per cell and setting."""
    known = pl.col("known")
    return writers.group_by(CELL).agg(
        writers=pl.len().cast(pl.Int64),
        writers_known=tally(known),
        message_steps=pl.col("sending").filter(known).sum(),
        share_message_steps=pl.when(known.any()).then(
            pl.col("sending").filter(known).sum() / pl.col("steps").filter(known).sum()
        ),
        first_message_step=pl.col("first").filter(known).median(),
        first_message_step_share=(pl.col("first") / pl.col("steps")).filter(known).median(),
    )


def _with_lengths(labels: pl.DataFrame, frames: Frames) -> pl.DataFrame:
    lengths = table_of(frames, schema.MESSAGES).select(*_PAIR, "position", characters=pl.col("message").str.len_chars())
    return labels.join(lengths, on=[*_PAIR, "position"], how="left")


def talk_of_pairs(frames: Frames, labels: pl.DataFrame) -> pl.DataFrame:
    """Pairs with a result, with their messages counted, the first one timed, and labels as counts.

    The first message's time counts only within the agents' run: clocks of other machines and zones do not agree.
    """
    pairs = pairs_of(frames).filter(pl.col("has_result").fill_null(False))
    sent = table_of(frames, schema.MESSAGES).group_by(_PAIR).agg(first=pl.col("sent_at").min())
    counts = labels.group_by(_PAIR).agg(
        messages=pl.len().cast(pl.Int64),
        plan_first=(pl.col("plan") & pl.col("first_turn")).any(),
        **{f"any_{name}": pl.col(name).any() for name in _SHARES},
        any_unanswered=pl.col("unanswered").fill_null(False).any(),
    )
    rows = pairs.join(sent, on=_PAIR, how="left").join(counts, on=_PAIR, how="left")
    flags = ["plan_first", *(f"any_{name}" for name in _SHARES), "any_unanswered"]
    rows = rows.with_columns(pl.col("messages").fill_null(0), pl.col(flags).fill_null(False))
    seconds = (pl.col("first") - pl.col("started_at")).dt.total_milliseconds() / 1000
    inside = (seconds >= 0) & (pl.col("first") <= pl.col("ended_at"))
    length = (pl.col("ended_at") - pl.col("started_at")).dt.total_milliseconds() / 1000
    return rows.with_columns(first_seconds=pl.when(inside).then(seconds), is_clean=is_clean()).with_columns(
        first_share=pl.when(length > 0).then(pl.col("first_seconds") / length)
    )


def _summary(pairs: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    clean = pl.col("is_clean")
    known, sent = clean & pl.col("steps").is_not_null(), pl.col("messages")
    totals = pairs.group_by(*CELL, "place").agg(
        pairs=pl.len().cast(pl.Int64),
        pairs_with_messages=(pl.col("messages") > 0).sum().cast(pl.Int64),
        agents=pl.col("agents").sum().cast(pl.Int64),
        messages=sent.sum(),
        clean=tally(clean),
        left_out=tally(~clean),
        left_out_messages_per_pair=sent.filter(~clean).mean(),
        messages_per_pair=sent.filter(clean).mean(),
        messages_per_agent=sent.filter(clean).sum() / pl.col("agents").filter(clean).sum(),
        steps=pl.col("steps").filter(clean).sum(),
        share_of_steps=sent.filter(known).sum() / pl.col("steps").filter(known).sum(),
        first_message_minutes=pl.col("first_seconds").filter(clean).median() / 60,
        first_message_share=pl.col("first_share").filter(clean).median(),
        first_message_known=pl.col("first_seconds").filter(clean).count().cast(pl.Int64),
    )
    first = pl.col("plan").filter("first_turn")
    kinds = labels.group_by(CELL).agg(
        *(pl.col(name).mean().alias(f"share_{name}") for name in _SHARES),
        characters_median=pl.col("characters").median(),
        first_turn_plan=first.mean(),
        questions=pl.col("question").sum().cast(pl.Int64),
        questions_unanswered=pl.col("unanswered").fill_null(False).sum().cast(pl.Int64),
        labels=pl.col("source").unique().sort().str.join(", "),
    )
    rows = totals.join(kinds, on=CELL, how="left", nulls_equal=True)
    rows = rows.with_columns(pl.col("questions", "questions_unanswered").fill_null(0))
    return rows.with_columns(share_unanswered=pl.col("questions_unanswered") / pl.col("questions"))
