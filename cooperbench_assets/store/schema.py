"""The tables of the results store: names, columns, types, and what each means.

What belongs here: declarations, and nothing that reads or writes. Every table is written as Parquet by
``store.partition_tables`` with exactly these columns, and becomes a DuckDB table in ``store.publish``; the
descriptions below become ``COMMENT ON`` there. Analyses declare tables of their own with the same classes.

All times are UTC, stored without a zone. What is not known is NULL, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polars._typing import PolarsDataType

SCHEMA_VERSION = 3
"""Version of the partition tables and of the file, which is built anew of an earlier one; a later one is refused."""

TIME = pl.Datetime("us")
"""A UTC time without a zone (a DuckDB ``TIMESTAMP``)."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, polars type, and meaning."""

    name: str
    dtype: PolarsDataType
    description: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its name, meaning, columns, and the columns that name the unit a row belongs to."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ("experiment", "setting", "seed")
    """The columns whose values select all rows of one published unit (a cell, say)."""

    volatile: tuple[str, ...] = ()
    """Columns that do not count for the content hash, such as the time of reading."""

    @property
    def schema(self) -> pl.Schema:
        """The polars schema, columns in order."""
        return pl.Schema([(column.name, column.dtype) for column in self.columns])

    def frame(self, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
        """Rows as a frame of exactly this schema.

        Raises:
            ValueError: if a row has a key that is no column.
        """
        names = {column.name for column in self.columns}
        for row in rows:
            if unknown := row.keys() - names:
                raise ValueError(f"table {self.name} has no column {', '.join(sorted(unknown))}")
        return pl.DataFrame(rows, schema=self.schema, orient="row")


def _columns(*rows: tuple[str, PolarsDataType, str]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


CELL = _columns(
    ("experiment", pl.String, "Name of the experiment: the folder of its defs.yaml"),
    ("setting", pl.String, "The user's label of how agents work: solo, coop-comm, coop-nocomm, …"),
    ("seed", pl.Int32, "Number of the independent repetition; it sets no random generator"),
)
PAIR = _columns(
    ("pair", pl.String, "repo/task_id/f<a>_f<b>: the key of the pair in every table"),
    ("repo", pl.String, "Repository of the task, as the dataset names it"),
    ("task_id", pl.Int32, "Number of the task in its repository"),
    ("feature_a", pl.Int32, "Lower feature of the pair"),
    ("feature_b", pl.Int32, "Higher feature of the pair"),
)
USAGE = _columns(
    ("cost_usd", pl.Float64, "Money spent on model calls, USD; NULL where not known"),
    ("steps", pl.Int64, "Model calls made; NULL where not known"),
    ("input_tokens", pl.Int64, "Prompt tokens; NULL where not reported"),
    ("output_tokens", pl.Int64, "Completion tokens; NULL where not reported"),
    ("cache_read_tokens", pl.Int64, "Prompt tokens read from a cache; NULL where not reported"),
    ("cache_write_tokens", pl.Int64, "Prompt tokens written to a cache; NULL where not reported"),
)
FAILURE = _columns(
    ("stage", pl.String, "Where infrastructure failed: agent or eval; NULL unless infra_error"),
    ("family", pl.String, "Family of the infrastructure failure, from benchmark.failures; NULL unless infra_error"),
    ("evidence", pl.String, "The text that shows the failure, cut to 2,000 characters"),
    ("evidence_source", pl.String, "File that the evidence was found in, relative to the pair's folder"),
    ("retryable", pl.Boolean, "Whether another try can help without a person; NULL unless infra_error"),
)

PAIRS = Table(
    "pairs",
    "One row for every planned pair of every cell, with its outcome. Pairs nobody planned are in quarantine.",
    (
        *CELL,
        *PAIR,
        *_columns(
            ("outcome", pl.String, "pass, fail, infra_error, unevaluated or missing, by upstream's own verdict"),
            (
                "reason",
                pl.String,
                "Why it failed: tests, conflict, not_applied, empty_patch, agent_error, agent_timeout, test_timeout",
            ),
            (
                "outcome_strict",
                pl.String,
                "The outcome where only solo, or a clean or identical merge of two applied patches, may pass",
            ),
            ("reason_strict", pl.String, "Reason of outcome_strict"),
        ),
        *FAILURE,
        *_columns(
            ("both_passed", pl.Boolean, "Upstream's both_passed as recorded; NULL without a readable eval.json"),
            ("both_passed_strict", pl.Boolean, "both_passed, and solo or a clean/identical merge with both applied"),
            ("has_result", pl.Boolean, "A readable result.json is there"),
            ("has_eval", pl.Boolean, "A readable eval.json is there"),
            ("accepted", pl.Boolean, "A person has accepted this pair's infrastructure failure"),
            (
                "suspect",
                pl.Boolean,
                (
                    "Looks graded but should not be trusted: an agent said Submitted although its "
                    "stream ended in an API error"
                ),
            ),
            ("hollow", pl.Boolean, "The merge is called clean, and its diff is empty"),
            (
                "fallback_unseen",
                pl.Boolean,
                "The merge failed: upstream tested agent 1's patch alone and threw that output away",
            ),
            ("limits_exceeded", pl.Boolean, "An agent ended at its step or cost limit; its patch is graded"),
            ("stale", pl.Boolean, "The verdict is older than the result, or of another patch; it is not used"),
            ("merge_status", pl.String, "Upstream's merge status: clean, conflicts, identical, missing_input, error"),
            ("merge_strategy", pl.String, "Upstream's merge strategy: naive, union, solo-agent1, …"),
            ("merge_diff_empty", pl.Boolean, "The merged diff that upstream kept is empty"),
            ("apply_a", pl.String, "Whether feature_a's patch applied: applied, skipped, failed, unknown"),
            ("apply_b", pl.String, "Whether feature_b's patch applied: applied, skipped, failed, unknown"),
            ("feature_a_passed", pl.Boolean, "feature_a's tests passed"),
            ("feature_b_passed", pl.Boolean, "feature_b's tests passed"),
            ("feature_a_tests_passed", pl.Int64, "Tests of feature_a that passed; NULL where not recorded"),
            ("feature_a_tests_failed", pl.Int64, "Tests of feature_a that failed; NULL where not recorded"),
            ("feature_b_tests_passed", pl.Int64, "Tests of feature_b that passed; NULL where not recorded"),
            ("feature_b_tests_failed", pl.Int64, "Tests of feature_b that failed; NULL where not recorded"),
            ("agents", pl.Int32, "Agents that the result lists; NULL without a result"),
            ("agents_submitted", pl.Int32, "Agents that ended as Submitted"),
            ("agents_failed", pl.Int32, "Agents that ended with status Error"),
            ("patches", pl.Int32, "Agents whose patch is not empty"),
        ),
        *USAGE,
        *_columns(
            (
                "agents_with_tokens",
                pl.Int32,
                "Agents whose prompt and completion tokens are known; the pair's are sums over what is known",
            ),
            ("messages_sent", pl.Int64, "Messages between the agents; NULL for solo"),
            ("started_at", TIME, "Start of the agents"),
            ("ended_at", TIME, "End of the agents"),
            ("duration_seconds", pl.Float64, "Wall time of the agents"),
            ("evaluated_at", TIME, "End of the evaluation"),
            ("patch_sha256", pl.String, "Hash of the patch or of both patches in feature order; NULL without files"),
            ("agent_tries", pl.Int32, "Recorded tries at the agent stage; NULL where none were recorded"),
            ("eval_tries", pl.Int32, "Recorded tries at the eval stage; NULL where none were recorded"),
            ("model", pl.String, "Model that result.json names"),
            ("agent_framework", pl.String, "Agent framework that result.json names"),
            ("run_id", pl.String, "Upstream's id of the run that made the result"),
            ("path", pl.String, "Folder of the pair's raw files, relative to the log root"),
        ),
    ),
)

AGENTS = Table(
    "agents",
    "One row for every agent of every readable result.",
    (
        *CELL,
        *PAIR,
        *_columns(
            ("agent", pl.String, "agent1, agent2 or solo, as upstream names it"),
            ("feature_id", pl.Int32, "The agent's feature; NULL for solo, whose agent does both"),
            ("status", pl.String, "Upstream's status: Submitted, LimitsExceeded, Error"),
            ("failed", pl.Boolean, "Infrastructure ended this agent"),
        ),
        *FAILURE,
        *_columns(
            ("suspect", pl.Boolean, "Submitted, although its stream ended in an API error"),
            ("error", pl.String, "Upstream's error text, cut to 2,000 characters"),
        ),
        *USAGE,
        *_columns(
            ("patch_lines", pl.Int64, "Lines of the agent's patch, as upstream counted them"),
            ("patch_sha256", pl.String, "Hash of the patch file; NULL without the file"),
        ),
    ),
)

MESSAGES = Table(
    "messages",
    "One row for every message between agents, in the order of conversation.json.",
    (
        *CELL,
        *PAIR,
        *_columns(
            ("position", pl.Int32, "Place in the conversation, from 0"),
            ("sender", pl.String, "Agent that sent the message"),
            ("recipient", pl.String, "Agent that the message is for"),
            ("feature_id", pl.Int32, "The sender's feature"),
            ("message", pl.String, "The text"),
            ("sent_at", TIME, "When it was sent; NULL where not recorded"),
            ("step", pl.Int64, "Step of its sender that it was sent in, from 1; NULL where no trajectory tells"),
        ),
    ),
)

ATTEMPTS = Table(
    "attempts",
    "One row for every recorded try of a pair at a stage; the try that gave the present files is among them.",
    (
        *CELL,
        *PAIR,
        *_columns(
            ("stage", pl.String, "agent or eval"),
            ("n", pl.Int32, "Number of the try at this stage, from 1"),
            ("campaign", pl.Int32, "Retry generation that the try counts in, from 1"),
            ("outcome", pl.String, "completed, infra_error, interrupted or running"),
            ("counted", pl.Boolean, "The try counts towards the limit of tries: it ended as infrastructure"),
            ("family", pl.String, "Family of the infrastructure failure"),
            ("evidence", pl.String, "The text that shows the failure, cut to 2,000 characters"),
            ("retryable", pl.Boolean, "Whether another try can help without a person"),
            ("started_at", TIME, "Launch of the try"),
            ("ended_at", TIME, "End of the try; NULL where it was interrupted"),
            ("cost_usd", pl.Float64, "Money spent on the try, USD; NULL where not known"),
            ("cost_estimated", pl.Boolean, "cost_usd is an estimate, because the try left no record of it"),
            ("patch_sha256", pl.String, "Hash of the patch that the try made (agent) or judged (eval)"),
            ("isolation", pl.String, "Sandbox that the try ran in: bubblewrap, subprocess, docker, …"),
            ("path", pl.String, "Folder of the try's files, relative to the log root"),
        ),
    ),
)

QUARANTINE = Table(
    "quarantine",
    "One row for every file or folder that could not be used, and why.",
    (
        *CELL,
        *_columns(
            ("path", pl.String, "File or folder, relative to the log root"),
            ("pair", pl.String, "Pair it belongs to by its place; NULL where the place names none"),
            (
                "kind",
                pl.String,
                (
                    "unreadable, cut, empty, encoding, not_json, wrong_type, features, extra, duplicate, "
                    "misplaced, unknown_setting, stray"
                ),
            ),
            ("message", pl.String, "What is wrong"),
            ("remedy", pl.String, "What fixes it"),
        ),
    ),
)

PROVENANCE = Table(
    "provenance",
    "One row for every cell: what made it, as far as is known, and what was read.",
    (
        *CELL,
        *_columns(
            ("planned", pl.Boolean, "The experiment asks for this cell"),
            ("expected_pairs", pl.Int32, "Pairs of the subset"),
            ("run_name", pl.String, "Upstream's name of the run"),
            ("path", pl.String, "Folder of the run, relative to the log root"),
            ("mode", pl.String, "solo, coop or team"),
            ("messaging", pl.Boolean, "Agents could send messages; NULL for solo"),
            ("git", pl.Boolean, "Agents shared a git server; NULL where not known"),
            ("gold", pl.Boolean, "The dataset's own patches, not an agent's: no part of any comparison"),
            ("origin", pl.String, "executed, imported or adopted"),
            ("model", pl.String, "Model of the run; models joined by a comma where they differ"),
            ("agent", pl.String, "Agent framework of the run; joined by a comma where they differ"),
            ("agent_config_sha256", pl.String, "Hash of the effective agent config; NULL where not known"),
            ("agent_config", pl.String, "Text of the effective agent config; NULL where not known"),
            ("harness_version", pl.String, "Version of the harness, or a range where fingerprinted"),
            ("harness_version_source", pl.String, "recorded, fingerprinted or unknown"),
            ("harness_commit", pl.String, "Commit of the harness checkout; NULL where not known"),
            ("merge_policy", pl.String, "union, agent1_alone, none (solo) or unknown"),
            ("subset", pl.String, "Name of the subset"),
            ("subset_sha256", pl.String, "Hash of the subset's pairs"),
            ("dataset_sha256", pl.String, "Hash of the task files used; NULL where not known"),
            ("execution", pl.String, "docker, process, modal, gcp or none"),
            ("isolation", pl.String, "Sandbox of the evaluations; NULL where not known"),
            ("truncated", pl.Boolean, "A budget stopped the cell before all pairs were bought"),
            ("started_at", TIME, "Earliest start of an agent"),
            ("ended_at", TIME, "Latest end of an agent or an evaluation"),
            ("files_read", pl.Int32, "Files that were read"),
            ("bytes_read", pl.Int64, "Bytes that were read"),
            ("read_at", TIME, "When the tree was last read to a different content"),
            ("record", pl.String, "provenance.json of the run as recorded; NULL where there is none"),
            ("analysis", pl.String, "What defs.yaml declares of the analysis, as JSON; NULL where it declares nothing"),
        ),
    ),
    volatile=("read_at",),
)

CHECK_RESULTS = Table(
    "check_results",
    "One row for the latest evaluation of every asset check, by cell where the check has cells.",
    (
        *CELL,
        *_columns(
            ("asset", pl.String, "Asset that was checked"),
            ("check_name", pl.String, "Name of the check"),
            ("passed", pl.Boolean, "Whether it passed"),
            ("blocking", pl.Boolean, "Whether a failure stops what is downstream in the same run"),
            ("offenders", pl.Int64, "How many rows or files are affected"),
            ("description", pl.String, "What was found"),
            ("sample", pl.List(pl.String), "Up to ten of the affected"),
            ("remedy", pl.String, "The command or change that fixes it"),
            ("checked_at", TIME, "When it was evaluated"),
        ),
    ),
    key=("experiment", "setting", "seed", "asset"),
    volatile=("checked_at",),
)

CELL_TABLES = (PAIRS, AGENTS, MESSAGES, ATTEMPTS, QUARANTINE, PROVENANCE)
"""The tables that one cell writes, in the order in which they are published."""

CORE_TABLES = (*CELL_TABLES, CHECK_RESULTS)
"""Every table of this module."""
