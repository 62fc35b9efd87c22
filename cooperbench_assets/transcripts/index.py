"""The index of a transcript: its steps without their texts, and the texts of one chunk of them.

What belongs here: which file is an agent's transcript, its index (kept in a cache), and reading a chunk again. What
does not: what records mean (``readers``) and what else is known of a pair (``page``).
"""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct, field

from cooperbench_assets.benchmark.jsonfiles import open_regular
from cooperbench_assets.files import write_atomically
from cooperbench_assets.transcripts.model import (
    CHUNK_BYTES,
    CHUNK_STEPS,
    Chunk,
    LeftOut,
    StepBody,
    StepEntry,
    Text,
)
from cooperbench_assets.transcripts.readers import READERS, Reader, of_lines, of_messages
from cooperbench_assets.transcripts.readers.events import SUMMARY
from cooperbench_assets.transcripts.records import Span, decoded, document, elements, lines
from cooperbench_assets.transcripts.steps import drafts

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from cooperbench_assets.redaction import Redactor
    from cooperbench_assets.transcripts.records import Buffer
    from cooperbench_assets.transcripts.steps import Draft

_VERSION = 1
"""Raised whenever an index of the same file would come out otherwise."""

_SAMPLES = 20
_SUMMARY = 160
_LONGEST_MESSAGE = 1 << 15


class Index(Struct, kw_only=True):
    """What is known of a transcript without its texts. Texts in it are redacted."""

    version: int = _VERSION
    size: int
    """Of the file, with `mtime_ns`: the index is of this content."""

    mtime_ns: int
    redaction: str
    """What the redactor took out of a probe: with other secrets the index is made again."""

    file: str
    format: str
    steps: list[StepEntry] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Where each step's records lie in the file."""

    heard: list[tuple[int, str | None, str]] = field(default_factory=list)
    """Messages that were read: step, sender, text."""

    sent: list[tuple[int, str]] = field(default_factory=list)
    """Commands that send: step, text."""

    calls: int = 0
    chunks: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    whole: bool = True
    """Nothing of the file is damaged, and the agent's context was never cut."""


_INDEX = msgspec.msgpack.Decoder(Index)


class _File(NamedTuple):
    """An open transcript."""

    buffer: Buffer
    reader: Reader | None
    spans: list[Span]
    rest: Span | None


def transcript_file(folder: Path, names: Container[str], agent: str, feature: int | None) -> str | None:
    """The file that says most of what an agent did: the first with replies of the model, else the first there is."""
    trajectory = f"{agent}_traj.json" if feature is None else f"agent{feature}_traj.json"
    found = [name for name in (f"{agent}_session.jsonl", f"{agent}_stream.jsonl", trajectory) if name in names]
    # A link may lead to any file of the machine.
    found = [name for name in found if not (folder / name).is_symlink() and (folder / name).is_file()]
    found = [name for name in found if (folder / name).stat().st_size]
    for name in found:
        with _opened(folder / name, None, _SAMPLES) as file:
            if file.reader is not None and any(draft.replied for draft in drafts(file.buffer, file.spans, file.reader)):
                return name
    return found[0] if found else None


def index_of(path: Path, framework: str | None, redactor: Redactor, cache: Path | None) -> Index:
    """The index of a transcript, from the cache where it is of the same content.

    Raises:
        OSError: if the file cannot be read.
    """
    status = path.stat()
    redaction = hashlib.sha256(repr(sorted(redactor.known_marks)).encode()).hexdigest()[:16]
    kept = None if cache is None else cache / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.index"
    same = (status.st_size, status.st_mtime_ns, redaction)
    index = None if kept is None else _kept(kept)
    if index is not None and (index.size, index.mtime_ns, index.redaction) == same:
        return index
    index = Index(size=status.st_size, mtime_ns=status.st_mtime_ns, redaction=redaction, file=path.name, format="raw")
    with _opened(path, framework) as file:
        _fill(index, file, redactor)
    if kept is not None:
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, msgspec.msgpack.encode(index), durable=False)
    return index


def chunk_of(path: Path, index: Index, agent: str, number: int, redactor: Redactor) -> Chunk:
    """The texts of one chunk, read from the transcript.

    Raises:
        IndexError: if there is no such chunk.
        OSError: if the file cannot be read.
    """
    members = [step for step in index.steps if step.chunk <= number < step.chunk + step.chunks]
    if not members:
        raise IndexError(f"{index.file} has chunks 0 to {index.chunks - 1}, not {number}")
    with _mapped(path) as buffer:
        bodies = [_body(buffer, index, step, redactor) for step in members]
    if members[0].chunks > 1:
        bodies = [_part(bodies[0], number - members[0].chunk, members[0].chunks)]
    return Chunk(agent=agent, chunk=number, steps=bodies)


def _body(buffer: Buffer, index: Index, step: StepEntry, redactor: Redactor) -> StepBody:
    start, end = index.spans[step.index]
    if step.kind == "raw":
        texts = [Text(kind="raw", text=buffer[start:end].decode("utf-8", "replace"))]
    else:
        reader = READERS[index.format]
        begun = any(one.kind == "step" for one in index.steps[: step.index])
        stretch = bytes(buffer[start:end])
        spans = list(lines(stretch)) if reader.lines else elements(stretch)
        texts = [text for draft in drafts(stretch, spans, reader, begun=begun) for text in draft.texts]
    return StepBody(index=step.index, texts=[_clean(text, redactor) for text in texts])


def _clean(text: Text, redactor: Redactor) -> Text:
    label = None if text.label is None else redactor.text(text.label)
    return msgspec.structs.replace(text, text=redactor.text(text.text), label=label)


def _part(body: StepBody, part: int, parts: int) -> StepBody:
    """One of so many equal parts of a step's texts."""
    total = sum(len(text.text) for text in body.texts)
    first, last = total * part // parts, total * (part + 1) // parts
    texts, place = [], 0
    for text in body.texts:
        start, end = max(first - place, 0), min(last - place, len(text.text))
        if start < end or (not text.text and first <= place < last):
            texts.append(msgspec.structs.replace(text, text=text.text[start:end], continues=start > 0))
        place += len(text.text)
    return StepBody(index=body.index, texts=texts)


def _fill(index: Index, file: _File, redactor: Redactor) -> None:
    """Index all of a file."""
    damaged = 0
    if file.reader is not None:
        index.format = file.reader.name
        told: list[tuple[str | None, str]] = []
        for draft in drafts(file.buffer, file.spans, file.reader):
            _add(index, draft, [*told, *draft.heard], redactor)
            told = list(draft.told)
            damaged += draft.damaged
            index.whole = index.whole and not any(text.label == SUMMARY for text in draft.texts)
    if file.rest is not None:
        _add_raw(index, file.buffer, file.rest)
    index.whole = index.whole and not damaged and file.rest is None
    _lay_out(index)
    _tell(index, file, damaged)


def _add(index: Index, draft: Draft, heard: list[tuple[str | None, str]], redactor: Redactor) -> None:
    entry, number = draft.entry, len(index.steps)
    entry.index = number
    if entry.kind == "step":
        index.calls += 1
        entry.number = index.calls
    if entry.at is not None and entry.ended_at is not None and entry.ended_at >= entry.at:
        entry.duration_seconds = entry.ended_at - entry.at
        entry.waited_seconds = entry.duration_seconds if draft.waits else None
    entry.summary = redactor.text(_summary(draft))
    entry.git, entry.sends, entry.reads = draft.git, bool(draft.sent), bool(heard)
    entry.bytes = sum(len(text.text.encode("utf-8", "replace")) for text in draft.texts)
    index.steps.append(entry)
    index.spans.append((draft.span.start, draft.span.end))
    index.heard += [(number, sender, redactor.text(text[:_LONGEST_MESSAGE])) for sender, text in heard]
    index.sent += [(number, redactor.text(command)) for command in draft.sent]


def _summary(draft: Draft) -> str:
    """One line: the first command, else the first words."""
    order = ("command", "thought") if draft.entry.kind == "step" else ()
    texts = [text for kind in order for text in draft.texts if text.kind == kind] or draft.texts
    words = next((" ".join(text.text[: 4 * _SUMMARY].split()) for text in texts if text.text.strip()), "")
    return words if len(words) <= _SUMMARY else f"{words[: _SUMMARY - 1]}…"


def _add_raw(index: Index, buffer: Buffer, rest: Span) -> None:
    """Add stretches of a file that cannot be decoded, whole lines where these are short."""
    place = rest.start
    while place < rest.end:
        end = min(place + CHUNK_BYTES, rest.end)
        if end < rest.end:
            newline = buffer.rfind(b"\n", place, end)
            end = newline + 1 if newline >= 0 else _character_end(buffer, end)
        words = " ".join(bytes(buffer[place : min(end, place + 4 * _SUMMARY)]).decode("utf-8", "replace").split())
        summary = f"bytes {place:,} to {end:,} as they are" if words else "blank"
        index.steps.append(StepEntry(index=len(index.steps), kind="raw", summary=summary, bytes=end - place))
        index.spans.append((place, end))
        place = end


def _character_end(buffer: Buffer, place: int) -> int:
    """The first byte from a place on, but at most three further, at which a character of UTF-8 begins."""
    for end in range(place, place + 4):
        if buffer[end : end + 1] and buffer[end] & 0xC0 != 0x80:
            return end
    return place


def _lay_out(index: Index) -> None:
    """Put steps into chunks."""
    chunk, size, count = 0, 0, 0
    for step in index.steps:
        parts = max(1, -(-step.bytes // CHUNK_BYTES))
        if count and (parts > 1 or size + step.bytes > CHUNK_BYTES or count == CHUNK_STEPS):
            chunk, size, count = chunk + 1, 0, 0
        step.chunk, step.chunks = chunk, parts
        size, count = size + step.bytes, count + 1
        if parts > 1:
            chunk, size, count = chunk + parts, 0, 0
    index.chunks = chunk + (1 if count else 0)


def _tell(index: Index, file: _File, damaged: int) -> None:
    """Say what is not shown as what it means."""
    if damaged:
        reason = "records that are no valid JSON: they are shown as they are"
        index.left_out.append(LeftOut(file=index.file, reason=reason, count=damaged))
    if file.rest is not None and file.reader is not None:
        reason = "the file ends in the middle of a record, or in something else: that is shown as it is"
        index.left_out.append(LeftOut(file=index.file, reason=reason, bytes=file.rest.end - file.rest.start))
    if file.reader is None:
        reason = "the file is of no format that is read here: it is shown as it is"
        index.left_out.append(LeftOut(file=index.file, reason=reason, bytes=index.size))
    if (hidden := index.size - sum(step.bytes for step in index.steps)) > 0:
        reason = "fields beside the texts (ids, settings, raw answers of the model), and white space"
        index.left_out.append(LeftOut(file=index.file, reason=reason, count=len(index.steps), bytes=hidden))


@contextmanager
def _opened(path: Path, framework: str | None, most: int | None = None) -> Iterator[_File]:
    """A transcript with its format and its records; of a sample, at most so many of them."""
    with _mapped(path) as buffer:
        if path.suffix == ".jsonl":
            spans = list(islice(lines(buffer), most))
            reader = of_lines([decoded(buffer[span.start : span.end]) for span in spans[:_SAMPLES]])
            yield _File(buffer, reader, spans if reader else [], None if reader else Span(0, len(buffer)))
            return
        found = document(buffer, most)
        samples = [decoded(buffer[span.start : span.end]) for span in found.messages[:_SAMPLES]] if found else []
        reader = of_messages(samples, framework)
        if found is None or (reader is None and (samples or found.rest)):
            yield _File(buffer, None, [], Span(0, len(buffer)))
        else:
            yield _File(buffer, reader or READERS["chat"], found.messages, found.rest)


@contextmanager
def _mapped(path: Path) -> Iterator[Buffer]:
    """A regular file's bytes, mapped."""
    descriptor, size = open_regular(str(path))
    try:
        if size == 0:
            yield b""
            return
        buffer = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        try:
            yield buffer
        finally:
            buffer.close()
    finally:
        os.close(descriptor)


def _kept(path: Path) -> Index | None:
    try:
        index = _INDEX.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
    return index if index.version == _VERSION else None
