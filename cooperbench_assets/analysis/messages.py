"""``message_labels``: what each message does, by rules that are stated here; labels from elsewhere may stand in.

What belongs here: rules on the text and order of messages. What does not: what they add up to (``communication``).

The rules read words, not minds. A message may do several things, so shares of labels may add up to more than 1.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from cooperbench_assets.analysis.frames import CELL, Frames, columns, conform, table_of
from cooperbench_assets.store import schema
from cooperbench_assets.store.schema import Table

RULES = {
    "plan": (
        r"(?i)\b(i['’]?ll|i will|we will|will (?:also |only |just |not )?(?:touch|modify|add|implement|edit|change|"
        r"update|create|put|use|avoid|keep|extend|wrap|append|insert|own|handle|do|take)|(?:i|we)(?: am|['’]m| are|"
        r"['’]re)? (?:going to|planning)|plan(?:s|ning)? (?:to|is)|(?:my|feature|the) plan\b|plan:|(?:i )?intend|"
        r"implementing|working on|starting)\b"
    ),
    "question": r"\?(?:\s|$|[\"'’)\]*_`])",
    "update": (
        r"(?i)\b(done|finished|completed?|implemented|added|changed|updated|modified|edited|committed|pushed|fixed|"
        r"written|inserted|removed|i(?: have|['’]ve)|tests? pass(?:ed|es|ing)?|all (?:tests? )?pass(?:ed|ing)?)\b"
    ),
    "acknowledgement": (
        r"(?i)^\W*(?:agent ?\d+\b(?: here)?\W*)?(?:ack(?:nowledged)?|ok(?:ay)?|got it|thanks?|thank you|sounds good|"
        r"great|perfect|understood|noted|agreed|confirmed|will do|makes sense|roger|sure|received)\b"
    ),
    "mentions_file": (
        r"[\w./-]*\w\.(?:py|pyi|go|rs|ts|tsx|js|jsx|c|h|cc|cpp|hpp|java|rb|md|rst|toml|yaml|yml|json|txt|cfg|ini|"
        r"html|css|sh|lock|mod|sum|typ)\b"
    ),
    "mentions_line": r"(?i)\b(?:lines?|L)[ ~]*\d+|\.\w{1,4}:\d+",
}
"""Label → regular expression (Rust syntax) that a message of that kind contains. `answer` is not a matter of words:
the first message of an agent after a question of another."""

PRECISION = {"plan": (24, 24), "question": (12, 12), "answer": (5, 9), "update": (20, 20), "acknowledgement": (21, 23)}
"""Of so many messages that the rules label, how many do it: one reading of messages of six real runs (703 in all,
claude-sonnet-5), drawn at random but for questions and answers, which are all that there are."""

LEAST_PRECISION = 0.9
"""Labels by rule that are right less often than this are in the tables, and not drawn."""

LABELS = ("plan", "question", "answer", "update", "acknowledgement")
MENTIONS = ("mentions_file", "mentions_line")

MESSAGE_LABELS = Table(
    "message_labels",
    "One row for every message: what it does, by rules on its words and place or by labels from elsewhere.",
    columns(
        *schema.CELL,
        ("pair", pl.String, "Pair"),
        ("position", pl.Int32, "Place in the conversation, from 0"),
        ("sender", pl.String, "Agent that sent the message"),
        ("plan", pl.Boolean, "Says what its sender is going to do"),
        ("question", pl.Boolean, "Has a question mark at the end of a word"),
        ("answer", pl.Boolean, "First message of its sender after a question of another agent"),
        ("update", pl.Boolean, "Says what its sender has done"),
        ("acknowledgement", pl.Boolean, "Begins by taking note of a message"),
        ("mentions_file", pl.Boolean, "Names a file"),
        ("mentions_line", pl.Boolean, "Names a line number"),
        ("first_turn", pl.Boolean, "First message of its sender in the conversation"),
        ("unanswered", pl.Boolean, "A question after which no other agent sent anything; NULL for no question"),
        ("source", pl.String, "rules, or the name of whatever made the labels"),
    ),
    key=("experiment",),
)

IMPORTED_LABELS = replace(
    MESSAGE_LABELS,
    name="imported_labels",
    description="Labels of messages from elsewhere, such as a language model's; they stand in for those of the rules.",
)
"""An input: the same columns, ``source`` naming who made them."""

_TALK = (*CELL, "pair")
_MESSAGE = (*_TALK, "position")


def message_labels(frames: Frames) -> dict[str, pl.DataFrame]:
    """What each message does: plan, question, answer, update, acknowledgement."""
    messages = table_of(frames, schema.MESSAGES)
    imported = conform(IMPORTED_LABELS, table_of(frames, IMPORTED_LABELS)).join(messages, on=_MESSAGE, how="semi")
    own = conform(MESSAGE_LABELS, by_rules(messages)).join(imported, on=_MESSAGE, how="anti")
    return {MESSAGE_LABELS.name: pl.concat([own, imported]).sort(_MESSAGE)}


def labels_of(frames: Frames) -> pl.DataFrame:
    """The labels that this run has made already, or else makes now."""
    made = frames.get(MESSAGE_LABELS.name)
    return message_labels(frames)[MESSAGE_LABELS.name] if made is None else made


def by_rules(messages: pl.DataFrame) -> pl.DataFrame:
    """Labels of every message by ``RULES`` and by its place in the conversation."""
    text = pl.col("message").fill_null("")
    rows = messages.select(*_MESSAGE, "sender", *(text.str.contains(rule).alias(name) for name, rule in RULES.items()))
    rows = rows.sort(_MESSAGE)
    asked = pl.col("question").cast(pl.Int32)
    # Questions of others before a message: all so far in the conversation, less the sender's own.
    others = (asked.cum_sum().over(_TALK) - asked) - (asked.cum_sum().over(*_TALK, "sender") - asked)
    rows = rows.with_columns(asked_before=others).with_columns(
        answer=pl.col("asked_before") > pl.col("asked_before").shift(fill_value=0).over(*_TALK, "sender"),
        first_turn=pl.int_range(pl.len()).over(*_TALK, "sender") == 0,
    )
    # A question is without an answer where all that comes after it is its sender's own.
    later = pl.int_range(pl.len()).reverse()
    silent = later.over(_TALK) == later.over(*_TALK, "sender")
    return rows.with_columns(unanswered=pl.when("question").then(silent), source=pl.lit("rules"))
