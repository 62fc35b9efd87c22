"""One pair in full: what its page shows.

What belongs here: `pair_page`, `chunk` and `raw_part`, the three things that a page asks for, put together of what the
other modules read. What does not: reading transcripts (``index``) and drawing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.attempts import ATTEMPTS, folder_name, place_of
from cooperbench_assets.benchmark.jsonfiles import open_regular, printable
from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets.benchmark.pairfolder import Exclusions, read_pair
from cooperbench_assets.benchmark.records import TOKENS
from cooperbench_assets.transcripts.conversation import messages_of
from cooperbench_assets.transcripts.evaluation import graded
from cooperbench_assets.transcripts.index import chunk_of, index_of, transcript_file
from cooperbench_assets.transcripts.listing import frame_of, row_of
from cooperbench_assets.transcripts.model import (
    CHUNK_BYTES,
    Agent,
    Chunk,
    Evidence,
    LeftOut,
    Message,
    PairPage,
    Patch,
    RawFile,
    RawPart,
    Try,
)
from cooperbench_assets.transcripts.notes import notes_of
from cooperbench_assets.transcripts.patches import overlapping
from cooperbench_assets.transcripts.readers.events import moment
from cooperbench_assets.transcripts.sources import Source, SourceCell, SourceError, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cooperbench_assets.benchmark.attempts import Attempt
    from cooperbench_assets.benchmark.evidence import AgentEnd
    from cooperbench_assets.benchmark.logtree import PairReading, RunReading
    from cooperbench_assets.benchmark.outcomes import Outcome
    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.benchmark.records import AgentRecord
    from cooperbench_assets.redaction import Redactor
    from cooperbench_assets.transcripts.index import Index

_OF_AGENTS = ("result.json", "_traj.json", "_stream.jsonl", "_session.jsonl")
"""Ends of the names of files that agents leave."""

_LARGEST_PATCH = 1 << 20
_MOST_FILES = 500


def pair_page(source: Source, path: str, attempt: str | None = None) -> PairPage:
    """Everything of a pair but the texts of its steps.

    Args:
        source: Where it is looked for.
        path: As in `PairRow.path`.
        attempt: An earlier try whose files are to be shown in place of the pair's, as in `Try.page`.

    Raises:
        SourceError: if there is no such pair or try, or its run cannot be read.
    """
    cell, pair = find(source, path)
    run, tries = _read(cell, pair, attempt)
    return _Page(source, cell, pair, run, attempt).made(tries)


def chunk(source: Source, path: str, agent: str, number: int, attempt: str | None = None) -> Chunk:
    """The texts of a range of an agent's steps, as `pair_page` has them.

    Raises:
        SourceError: if there is no such pair, try, agent or chunk.
    """
    cell, pair = find(source, path)
    reading = _read(cell, pair, attempt)[0].pairs.get(pair)
    for name, feature, framework in _agents(reading) if reading is not None else ():
        assert reading is not None
        file = transcript_file(reading.folder, _names(reading.folder), name, feature) if name == agent else None
        if file is not None:
            try:
                index = index_of(reading.folder / file, framework, source.redactor, source.cache)
                return chunk_of(reading.folder / file, index, agent, number, source.redactor)
            except (IndexError, OSError) as error:
                raise SourceError(f"{path}: {error}") from error
    raise SourceError(f"{path} has no transcript of {agent[:40]!r}")


def raw_part(source: Source, path: str, name: str, start: int = 0) -> RawPart:
    """A stretch of a raw file, redacted: whole lines, about `CHUNK_BYTES` of them.

    Args:
        source: Where the pair is looked for.
        path: As in `PairRow.path`.
        name: As in `PairPage.files`.
        start: The byte to begin at: 0, or the `end` of another part.

    Raises:
        SourceError: if the pair has no such file, or it cannot be read.
    """
    cell, pair = find(source, path)
    if name not in {file.name for file in _files(cell, pair, _read(cell, pair)[0].pairs.get(pair))}:
        raise SourceError(f"{path} has no file {name[:200]!r}")
    try:
        descriptor, size = open_regular(str(cell.run_dir / name))
        start = min(max(0, start), size)
        try:
            raw = os.pread(descriptor, CHUNK_BYTES, start)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror or error}") from error
    if start + len(raw) < size and b"\n" in raw:
        raw = raw[: raw.rindex(b"\n") + 1]
    text = source.redactor.text(raw.decode("utf-8", "replace"))
    return RawPart(name=name, start=start, end=start + len(raw), bytes=size, text=text)


def _read(cell: SourceCell, pair: Pair, attempt: str | None = None) -> tuple[RunReading, list[Attempt]]:
    """The run with this pair alone, and the pair's tries; what an earlier try left stands in place of its files."""
    try:
        run = read_run(cell.run_dir, cell.mode, only=pair, find_steps=False)
    except LogTreeError as error:
        raise SourceError(str(error)) from error
    reading = run.pairs.get(pair)
    tries = [] if reading is None else sorted(reading.attempts, key=lambda one: (one.stage, one.n))
    if attempt is None:
        return run, tries
    chosen = next((one for one in tries if _page_of(run, pair, one) == attempt), None)
    if chosen is None:
        raise SourceError(f"{pair.name} has no try {attempt[:40]!r} whose files were kept")
    exclusions = Exclusions(cell.run_dir)
    run.pairs[pair] = read_pair(exclusions, pair, place_of(pair, run.mode, chosen), run.mode, find_steps=False)
    run.quarantine = exclusions.quarantine
    return run, tries


def _page_of(run: RunReading, pair: Pair, attempt: Attempt) -> str | None:
    """Name of a try whose agents' files were kept apart from the pair's."""
    there = _names(run.run_dir / place_of(pair, run.mode, attempt))
    kept = any(name.endswith(_OF_AGENTS) for name in there)
    return folder_name(attempt.stage, attempt.n) if kept else None


def _agents(reading: PairReading) -> list[tuple[str, int | None, str | None]]:
    """Name, feature and framework of each agent: by the result, else those that such a pair has."""
    framework = None if reading.result is None else reading.result.agent_framework
    if reading.agents:
        return [(agent.name, agent.feature, framework) for agent in reading.agents]
    if reading.mode == "solo":
        return [("solo", None, framework)]
    return [(f"agent{n}", feature, framework) for n, feature in enumerate(reading.pair.features, 1)]


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - names are all that is needed
    except OSError:
        return frozenset()


def _files(cell: SourceCell, pair: Pair, reading: PairReading | None) -> list[RawFile]:
    """The regular files of a pair's folder and of its tries; links are left out."""
    found: list[RawFile] = []
    tries = f"{ATTEMPTS}/{cell.mode or (reading.mode if reading else None)}/{pair.name}"
    own = tries if reading is None else reading.relative
    for base in (own,) if own.startswith(tries) else (own, tries):
        for folder, folders, names in os.walk(cell.run_dir / base):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink():
                    relative = file.relative_to(cell.run_dir).as_posix()
                    found.append(RawFile(name=printable(relative), bytes=file.stat().st_size))
    return found[:_MOST_FILES]


def _known(record: AgentRecord | None, name: str) -> int | None:
    """A count of tokens; None where the adapter reports none (every count is 0 although the model was called)."""
    if record is None or (record.steps and not any(getattr(record, token) for token in TOKENS)):
        return None
    count: int | None = getattr(record, name)
    return count


class _Page:
    """The making of one page."""

    def __init__(self, source: Source, cell: SourceCell, pair: Pair, run: RunReading, attempt: str | None) -> None:
        self.source, self.cell, self.pair, self.run, self.attempt = source, cell, pair, run, attempt
        self.redactor: Redactor = source.redactor
        self.reading = run.pairs.get(pair)
        self.outcome = judge(self.reading)
        self.left_out: list[LeftOut] = []
        self.not_kept: list[str] = []
        self.indexes: dict[str, Index] = {}

    def made(self, tries: Sequence[Attempt]) -> PairPage:
        """The page; `tries` are all of the pair."""
        cell, reading = self.cell, self.reading
        planned = SourceCell(
            cell.run_dir, cell.setting, cell.seed, cell.mode, cell.experiment, (self.pair,), cell.accepted
        )
        row = row_of(self.source, cell, frame_of(self.source, planned, self.run).row(0, named=True))
        problems = [self.redactor.text(bad.message) for bad in self.run.quarantine if bad.pair == self.pair]
        files = _files(cell, self.pair, reading)
        notes = notes_of(self.source, row.path) if self.attempt is None else []
        if reading is None:
            return PairPage(row=row, files=files, problems=problems, notes=notes, not_kept=["Nothing of this pair."])
        agents = self._agents(reading)
        judged = graded(reading, self.redactor)
        self.left_out += judged.left_out
        return PairPage(
            row=row,
            attempt=self.attempt,
            both_passed=None if reading.evaluation is None else reading.evaluation.both_passed,
            reason_strict=self.outcome.reason_strict,
            evidence=self._evidence(agents),
            agents=agents,
            messages=self._messages(reading),
            patches=self._patches(reading),
            merge=judged.merge,
            tests=judged.tests,
            tries=self._tries(tries),
            eval_error=self._clean(reading.eval_error or (reading.evaluation.error if reading.evaluation else None)),
            files=files,
            not_kept=self.not_kept,
            left_out=self.left_out,
            problems=problems,
            notes=notes,
        )

    def _clean(self, text: str | None) -> str | None:
        return None if text is None else self.redactor.text(text)

    def _agents(self, reading: PairReading) -> list[Agent]:
        ends = {end.name: end for end in reading.agents}
        return [
            self._agent(reading, name, feature, framework, ends.get(name))
            for name, feature, framework in _agents(reading)
        ]

    def _agent(
        self, reading: PairReading, name: str, feature: int | None, framework: str | None, end: AgentEnd | None
    ) -> Agent:
        file = transcript_file(reading.folder, _names(reading.folder), name, feature)
        index = None
        if file is None:
            self.not_kept.append(f"No transcript of {name} was kept: its steps are not recorded.")
        else:
            index = self._index(reading, file, name, framework)
        if f"{name}_full_traj.json" in _names(reading.folder):
            reason = f"what {name} did before its context was cut, and the summaries: they are in this raw file alone"
            self.left_out.append(LeftOut(file=f"{name}_full_traj.json", reason=reason))
        record = None if end is None else end.record
        status = None if record is None else record.status
        return Agent(
            name=name,
            feature=feature,
            status=self._clean(status),
            failed=end is not None and end.failure is not None,
            family=None if end is None or end.failure is None else end.failure.family,
            evidence=None if end is None else self._clean(end.evidence),
            evidence_source=None if end is None else end.source,
            cost_usd=None if record is None else record.cost,
            calls=None if record is None else record.steps,
            input_tokens=_known(record, "input_tokens"),
            output_tokens=_known(record, "output_tokens"),
            cache_read_tokens=_known(record, "cache_read_tokens"),
            format=None if index is None else index.format,
            transcript=file,
            transcript_bytes=None if index is None else index.size,
            timed=index is not None and any(step.at is not None for step in index.steps),
            steps=[] if index is None else index.steps,
            chunks=0 if index is None else index.chunks,
        )

    def _index(self, reading: PairReading, file: str, name: str, framework: str | None) -> Index | None:
        try:
            index = index_of(reading.folder / file, framework, self.redactor, self.source.cache)
        except OSError as error:
            self.left_out.append(LeftOut(file=file, reason=f"it cannot be read: {error.strerror or error}"))
            return None
        self.indexes[name] = index
        self.left_out += index.left_out
        if index.format == "openhands":
            self.not_kept.append(f"Of {name} upstream keeps previews: thoughts and outputs are cut, and have no times.")
        if not any(step.kind == "step" for step in index.steps):
            self.not_kept.append(f"The transcript of {name} holds no call of the model.")
        return index

    def _evidence(self, agents: Sequence[Agent]) -> Evidence | None:
        outcome: Outcome = self.outcome
        if outcome.evidence is None:
            return None
        own = [agent for agent in agents if agent.evidence and agent.evidence_source == outcome.evidence_source]
        agent = own[0] if own and outcome.stage != "eval" else None
        # Streams and trajectories say at their ends what ended them.
        told = agent is not None and agent.transcript == outcome.evidence_source and bool(agent.steps)
        return Evidence(
            text=self.redactor.text(outcome.evidence),
            source=outcome.evidence_source,
            agent=None if agent is None else agent.name,
            index=agent.steps[-1].index if agent is not None and told else None,
        )

    def _messages(self, reading: PairReading) -> list[Message] | None:
        if reading.messages is None:
            if reading.mode != "solo":
                self.not_kept.append("No conversation.json was kept: messages are not recorded.")
            return None
        return messages_of(reading.messages, self.indexes, self.redactor)

    def _patches(self, reading: PairReading) -> list[Patch]:
        solo = reading.mode == "solo"
        files = {name: "solo.patch" if solo else f"agent{feature}.patch" for name, feature, _ in _agents(reading)}
        texts = {name: self._patch(reading.folder / file) for name, file in files.items()}
        counted = {end.name: end.record.patch_lines for end in reading.agents}
        patches = []
        for name, file in files.items():
            text, others = texts[name], [other for one, other in texts.items() if one != name]
            if text is None:
                self.not_kept.append(f"The patch of {name} was not kept.")
            hunks = overlapping(text or "", (others[0] if others else None) or "")
            lines = len(text.splitlines()) if text is not None else counted.get(name)
            patches.append(Patch(agent=name, file=file, text=text, lines=lines, overlapping=hunks))
        return patches

    def _patch(self, file: Path) -> str | None:
        """A patch's text; None where the file is missing, a link that may lead anywhere, or cannot be read."""
        if file.is_symlink():
            self.left_out.append(LeftOut(file=file.name, reason="it is a link, which is not followed"))
            return None
        try:
            descriptor, size = open_regular(str(file))
        except OSError:
            return None
        try:
            raw = os.pread(descriptor, _LARGEST_PATCH, 0)
        finally:
            os.close(descriptor)
        if size > len(raw):
            reason = "the patch is longer than 1 MB: its end is in the raw file"
            self.left_out.append(LeftOut(file=file.name, reason=reason, bytes=size - len(raw)))
        return self.redactor.text(raw.decode("utf-8", "replace"))

    def _tries(self, tries: Sequence[Attempt]) -> list[Try]:
        return [
            Try(
                stage=one.stage,
                n=one.n,
                outcome=one.outcome,
                family=one.family,
                evidence=self._clean(one.evidence),
                started_at=moment(one.started_at),
                ended_at=moment(one.ended_at),
                cost_usd=one.cost_usd,
                cost_estimated=one.cost_estimated,
                page=_page_of(self.run, self.pair, one),
            )
            for one in tries
        ]
