"""When a message was sent and when it was read, by the transcripts of both agents.

What belongs here: finding the messages of conversation.json again in indexes. What does not: what is said in them
(``analysis.messages``).

A message that was sent several times over in one wording is found only if the transcript has it as often.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from cooperbench_assets.benchmark.records import text_of
from cooperbench_assets.transcripts.model import Message
from cooperbench_assets.transcripts.readers import READERS
from cooperbench_assets.transcripts.readers.events import moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cooperbench_assets.benchmark.records import MessageRecord
    from cooperbench_assets.redaction import Redactor
    from cooperbench_assets.transcripts.index import Index

Read = Literal["read", "never", "not recorded"]


def messages_of(records: Sequence[MessageRecord], indexes: Mapping[str, Index], redactor: Redactor) -> list[Message]:
    """The messages of a pair, in order.

    Args:
        records: conversation.json.
        indexes: The transcript of each agent that has one.
        redactor: What the indexes were made with.
    """
    texts = [redactor.text(text_of(record.message) or "") for record in records]
    keys = [(record.sender, _receiver(record), text.strip()) for record, text in zip(records, texts, strict=True)]
    often, seen = Counter(keys), Counter[tuple[str | None, str | None, str]]()
    found = []
    for position, (record, text, key) in enumerate(zip(records, texts, keys, strict=True)):
        sender, receiver, said = key
        sent = _nth(_sent(indexes.get(sender or ""), said), often[key], seen[key])
        read, at = _read(indexes.get(receiver or ""), sender, said, often[key], seen[key])
        seen[key] += 1
        found.append(
            Message(
                position=position,
                sender=sender,
                receiver=receiver,
                text=text,
                sent_at=moment(record.timestamp),
                sent_index=sent,
                read_index=at,
                read_at=indexes[receiver or ""].steps[at].at if at is not None else None,
                read=read,
            )
        )
    return found


def _receiver(record: MessageRecord) -> str | None:
    return ", ".join(record.recipient) if isinstance(record.recipient, list) else record.recipient


def _sent(index: Index | None, text: str) -> list[int]:
    """The steps whose commands hold a text."""
    if index is None or not text:
        return []
    # In JSON and in a shell's quotes a text may stand with its line ends and quotes escaped.
    return [
        step
        for step, command in index.sent
        if text in command or text in command.replace("\\n", "\n").replace('\\"', '"')
    ]


def _nth(steps: Sequence[int], often: int, n: int) -> int | None:
    """The step of the n-th of so many equal messages; None where it cannot be told."""
    return steps[n] if len(steps) == often else None


def _read(index: Index | None, sender: str | None, text: str, often: int, n: int) -> tuple[Read, int | None]:
    """Whether a message was read, and in which step first."""
    if index is None or not index.steps:
        return "not recorded", None
    steps = [step for step, name, heard in index.heard if name in (None, sender) and text and text in heard]
    if len(steps) > n and (often == 1 or len(steps) == often):
        return "read", steps[n]
    known = index.whole and READERS[index.format].hears if index.format in READERS else False
    return ("never", None) if known and not steps else ("not recorded", None)
