"""The contract of the transcript pages: exactly what JSON they get.

What belongs here: declarations, and nothing that reads. What does not: filling them (``listing``, ``page``).

Each struct becomes a JSON object with its fields as keys (`encode`). Everywhere:

- None (``null``) means not recorded, never zero; nothing is interpolated.
- ``*_at`` and ``at`` are seconds since 1970, UTC. Durations and waits are seconds. Costs are USD.
- Texts are valid Unicode: bytes that are no UTF-8 are U+FFFD. Keys, e-mail addresses and users' names in home paths
  are replaced by ``[redacted:…]``. All else stays as it was, **also ESC (ANSI) and control characters**: in JSON they
  are escapes such as ``\\u001b``, and the page must write them out (as ␛, say) and never interpret them. Texts are
  never HTML.
- An agent is named as in result.json: ``agent1``, ``agent2`` or ``solo``.
- A step has an `index`, from 0 and without gaps, which links use; and a `number` from 1 if it is a call of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK_BYTES = 256 * 1024
"""Bytes of text from which a chunk is full; a longer text goes on in the next ones."""

CHUNK_STEPS = 200
"""Steps in a chunk at most."""

TextKind = Literal["system", "task", "message", "thought", "command", "output", "note", "raw"]
"""What a text is: the system prompt; the task; another agent's message as it was read; the model's words; what it had
done; what came back; a word of the harness (a refused call, a nudge, how the agent ended); undecoded."""

StepKind = Literal["prompt", "step", "note", "raw"]
"""prompt: before the first call of the model; step: a call, its input and what came of it; note: the harness's words
without a call; raw: a stretch of a file of unknown format."""


class PairRow(Struct, frozen=True, kw_only=True):
    """One pair of one cell, for the list."""

    path: str
    """The pair's folder below the log root, ``<run>/<mode>/<repo>/<task>/f<a>_f<b>``: its key, unique in a source, and
    what `pair_page` and links take. It is there for a missing pair too."""

    experiment: str | None
    """None for a tree of foreign logs."""

    run: str
    """Upstream's run name: the run's folder."""

    setting: str
    """solo, coop-comm, coop-nocomm, or the experiment's own label."""

    seed: int
    mode: str | None
    """solo, coop or team; None where nothing says it."""

    repo: str
    task_id: int
    features: tuple[int, int]
    pair: str
    """``repo/task_id/f<a>_f<b>``: the same in every cell."""

    outcome: str
    """pass, fail, infra_error, unevaluated or missing, by upstream's verdict."""

    outcome_strict: str
    reason: str | None = None
    """Of a fail: tests, conflict, not_applied, agent_error, agent_timeout, test_timeout."""

    stage: str | None = None
    """Of an infra_error: agent or eval."""

    family: str | None = None
    """Of an infra_error: auth, rate_limit, container_start, …"""

    evidence: str | None = None
    """At most 300 characters of it, on one line."""

    difficulty: float | None = None
    """1 − mean(pass) over the judged solo seeds of the experiment, strict verdicts; None where none was judged."""

    flags: list[str] = field(default_factory=list)
    """Of suspect, hollow, fallback_unseen, limits_exceeded, stale, accepted: those that hold."""

    cost_usd: float | None = None
    steps: int | None = None
    duration_seconds: float | None = None
    """Wall time of the agents."""

    messages: int | None = None
    """Messages between agents; None for solo."""

    agent_tries: int | None = None
    eval_tries: int | None = None
    model: str | None = None
    agent_framework: str | None = None


class LeftOut(Struct, frozen=True, kw_only=True):
    """Something that is not shown, and why."""

    file: str
    """The file, relative to the pair's folder (``../`` for one of the run's)."""

    reason: str
    """A sentence."""

    count: int = 1
    """How many such things: records, lines, files."""

    bytes: int | None = None
    """How large they are in the file together."""


class StepEntry(Struct, kw_only=True):
    """A step without its texts, for the index."""

    index: int
    kind: StepKind
    number: int | None = None
    """The call of the model, from 1; None where this is none."""

    at: float | None = None
    """When the model's reply was there."""

    ended_at: float | None = None
    """When the last output of its commands was there."""

    duration_seconds: float | None = None
    """From reply to last output, where both are recorded."""

    waited_seconds: float | None = None
    """How long it waited for the other agent, where the transcript itself says so."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    summary: str = ""
    """One line of at most 160 characters: the first command, else the first words."""

    exit_code: int | None = None
    """Of the last command, where recorded."""

    git: list[Literal["push", "fetch"]] = field(default_factory=list)
    """What its commands do with the shared remote; fetch also stands for pull and clone."""

    sends: bool = False
    """A message of conversation.json was sent in it."""

    reads: bool = False
    """Its input holds a message."""

    chunk: int = 0
    """Number of the chunk in which its texts begin."""

    chunks: int = 1
    """How many chunks its texts stretch over."""

    bytes: int = 0
    """Size of its texts in UTF-8."""


class Agent(Struct, frozen=True, kw_only=True):
    """One agent of the pair, and the index of its steps."""

    name: str
    feature: int | None
    """None for solo, whose agent does both."""

    status: str | None = None
    failed: bool = False
    """Infrastructure ended it; then `family` and `evidence` say how."""

    family: str | None = None
    evidence: str | None = None
    evidence_source: str | None = None
    cost_usd: float | None = None
    calls: int | None = None
    """Calls of the model by result.json; the transcript may hold fewer (a compacted one)."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    format: str | None = None
    """mini_swe_agent_v2, claude_code, codex, swe_agent, openhands, chat (roles and texts), raw (unknown: shown as it
    is); None where no transcript was kept."""

    transcript: str | None = None
    """File that the steps are read from, relative to the pair's folder."""

    transcript_bytes: int | None = None
    timed: bool = False
    """At least one step has a time: it can be laid out on a clock."""

    steps: list[StepEntry] = field(default_factory=list)
    chunks: int = 0


class Message(Struct, frozen=True, kw_only=True):
    """One message between the agents, in the order of conversation.json."""

    position: int
    sender: str | None
    receiver: str | None
    text: str
    sent_at: float | None = None
    sent_index: int | None = None
    """Index of the sender's step that it was sent in; None: not recorded."""

    read_index: int | None = None
    """Index of the receiver's first step whose input holds it; see `read`."""

    read_at: float | None = None
    """Time of that step, which is that of the reply to the input; None where the step has none."""

    read: Literal["read", "never", "not recorded"] = "not recorded"
    """never: the receiver's whole transcript is there, and no input holds it. not recorded: nothing can be said."""


class Patch(Struct, frozen=True, kw_only=True):
    """The patch of one agent."""

    agent: str
    file: str
    text: str | None
    """The diff; None where the file was not kept (`lines` may still be known). Cut after 1 MB: see `left_out`."""

    lines: int | None = None
    overlapping: list[int] = field(default_factory=list)
    """Lines of the text, from 0, at which those hunks stand (their ``@@``) that change lines of the same place of the
    same file as the other agent's patch, by line numbers of the common base."""


class Merge(Struct, frozen=True, kw_only=True):
    """How the patches were merged."""

    status: str | None
    strategy: str | None
    conflict: bool
    applied: dict[str, str | None] = field(default_factory=dict)
    """Agent → applied, skipped, failed, unknown."""

    text: str | None = None
    """The merged diff, or what git said, as upstream kept it; None where it kept none. Cut after 1 MB."""


class FeatureTests(Struct, frozen=True, kw_only=True):
    """The tests of one feature."""

    feature: int
    passed: bool | None
    """None where they were not run, as after a conflict."""

    exit_code: int | None = None
    tests_passed: int | None = None
    tests_failed: int | None = None
    failing: list[str] = field(default_factory=list)
    """Lines of the output that name what failed, at most 200, the tests before their details."""

    output: str | None = None
    """The end of the output, at most 256 KB; None where none was kept."""

    output_bytes: int | None = None
    """Size of the whole output."""

    file: str = "eval.json"
    """The raw file that holds the whole output, relative to the pair's folder."""


class Try(Struct, frozen=True, kw_only=True):
    """One recorded try at a stage."""

    stage: str
    n: int
    outcome: str
    """completed, infra_error, interrupted or running."""

    family: str | None = None
    evidence: str | None = None
    """What ended it."""

    started_at: float | None = None
    ended_at: float | None = None
    cost_usd: float | None = None
    cost_estimated: bool = False
    page: str | None = None
    """Its name (``agent-1``) where `pair_page` shows what its agents did: their files were kept apart."""


class RawFile(Struct, frozen=True, kw_only=True):
    """A file that `raw_part` gives out."""

    name: str
    """Relative to the run folder."""

    bytes: int


class RawPart(Struct, frozen=True, kw_only=True):
    """A stretch of a raw file as text."""

    name: str
    start: int
    """First byte of it in the file."""

    end: int
    """Behind its last byte: where the next part starts."""

    bytes: int
    """Size of the file."""

    text: str


class Evidence(Struct, frozen=True, kw_only=True):
    """The text that shows why, and where it stands."""

    text: str
    source: str | None = None
    """File, relative to the pair's folder."""

    agent: str | None = None
    index: int | None = None
    """The step of that agent that holds it; None where it stands in no step."""


class Note(Struct, frozen=True, kw_only=True):
    """What a person wrote beside a step or a pair."""

    path: str
    """The pair."""

    agent: str | None
    index: int | None
    """The step; both None for the pair itself."""

    text: str = ""
    labels: list[str] = field(default_factory=list)
    written_at: float | None = None


class PairPage(Struct, frozen=True, kw_only=True):
    """Everything of one pair but the texts of its steps."""

    row: PairRow
    attempt: str | None = None
    """Name of the try whose files are shown; None for those of the pair itself."""

    both_passed: bool | None = None
    """Upstream's verdict; None without one."""

    reason_strict: str | None = None
    evidence: Evidence | None = None
    agents: list[Agent] = field(default_factory=list)
    """In order of features; one for solo."""

    messages: list[Message] | None = None
    """None where no conversation.json is there (solo, or nothing kept)."""

    patches: list[Patch] = field(default_factory=list)
    merge: Merge | None = None
    tests: list[FeatureTests] = field(default_factory=list)
    tries: list[Try] = field(default_factory=list)
    eval_error: str | None = None
    files: list[RawFile] = field(default_factory=list)
    not_kept: list[str] = field(default_factory=list)
    """Sentences: what the logs do not hold (trajectories, patches, …)."""

    left_out: list[LeftOut] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Sentences on files of the pair that could not be used."""

    notes: list[Note] = field(default_factory=list)


class Text(Struct, frozen=True, kw_only=True):
    """One text of a step."""

    kind: TextKind
    text: str
    label: str | None = None
    """The tool's name, or whose message it is."""

    exit_code: int | None = None
    continues: bool = False
    """It goes on from the end of the previous chunk."""


class StepBody(Struct, frozen=True, kw_only=True):
    """The texts of a step, as far as they are in this chunk."""

    index: int
    texts: list[Text]


class Chunk(Struct, frozen=True, kw_only=True):
    """The texts of a range of steps: about `CHUNK_BYTES`, `CHUNK_STEPS` steps at most."""

    agent: str
    chunk: int
    steps: list[StepBody]


def encode(value: Struct | Sequence[Struct]) -> bytes:
    """A record, or a list of them, as JSON in UTF-8."""
    return msgspec.json.encode(value)
