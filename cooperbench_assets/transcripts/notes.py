"""A person's notes and labels on steps and pairs.

What belongs here: the file that keeps them, one JSON object a line, the last of an address counting. What does not:
tables of results: a note is never overwritten by reading logs again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cooperbench_assets.errors import UserError
from cooperbench_assets.transcripts.model import Note

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.transcripts.sources import Source

_NOTE = msgspec.json.Decoder(Note)

_LONGEST = 10_000
_MOST_LABELS = 20


class NoteError(UserError):
    """A note cannot be kept; the message says why."""


def notes_file(data: Path, experiment: str) -> Path:
    """Where the notes on an experiment are kept in a project's data folder."""
    return data / "notes" / f"{experiment}.jsonl"


def read_notes(file: Path) -> list[Note]:
    """Every note that counts, in the order of their first writing. A damaged line is skipped, and stays in the file."""
    try:
        return [note for note in _parsed(file.read_bytes()).values() if note.text or note.labels]
    except FileNotFoundError:
        return []


def take_in(file: Path, content: bytes) -> None:
    """Add the notes of another machine's file, but to what has a note here."""
    here = _parsed(file.read_bytes()) if file.exists() else {}
    new = [note for address, note in _parsed(content).items() if address not in here]
    if new:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.writelines(msgspec.json.encode(note) + b"\n" for note in new)


def _parsed(content: bytes) -> dict[tuple[str, str | None, int | None], Note]:
    """The last note of each address."""
    kept: dict[tuple[str, str | None, int | None], Note] = {}
    for line in content.splitlines():
        try:
            note = _NOTE.decode(line)
        except (msgspec.MsgspecError, ValueError):
            continue
        kept[note.path, note.agent, note.index] = note
    return kept


def notes_of(source: Source, path: str) -> list[Note]:
    """The notes on one pair and its steps."""
    return [] if source.notes is None else [note for note in read_notes(source.notes) if note.path == path]


def write_note(source: Source, note: Note) -> Note:
    """Keep a note in place of an earlier one of the same address; an empty one takes it away.

    Raises:
        NoteError: if the source keeps none, or it is too long.
    """
    if source.notes is None:
        raise NoteError("notes are kept for experiments; this is a folder of logs, which is only read")
    if len(note.text) > _LONGEST or len(note.labels) > _MOST_LABELS or any(len(one) > 100 for one in note.labels):
        raise NoteError(f"a note has at most {_LONGEST:,} characters, and {_MOST_LABELS} labels of 100")
    kept = msgspec.structs.replace(note, written_at=datetime.now(UTC).timestamp())
    source.notes.parent.mkdir(parents=True, exist_ok=True)
    with source.notes.open("ab") as file:
        file.write(msgspec.json.encode(kept) + b"\n")
    return kept
