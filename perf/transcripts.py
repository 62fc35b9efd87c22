"""Opening a transcript: its index, an index that was kept, and the texts of one chunk."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cooperbench_assets.redaction import Redactor
from cooperbench_assets.transcripts.index import Index, chunk_of, index_of
from perf.measure import Contender, peak_of, race
from perf.results import Section, Target, find

SIZES = {1: 100, 150: 10_000}
"""Megabytes → steps."""

INDEX_SECONDS, CHUNK_MS = 5.0, 200


def make(path: Path, megabytes: int, steps: int) -> Path:
    """A trajectory of mini-swe-agent v2: a third of it is output, a third the same again, a third raw answers."""
    share = megabytes * 1_000_000 // steps // 3
    line = "def function_{0}(argument): return argument  # a line that is read\n"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"agent_id": "agent1", "messages": [')
        for number in range(steps):
            printed = (line.format(number) * (share // len(line) + 1))[:share]
            command = json.dumps({"command": f"sed -n '{number},{number + 60}p' file.py"})
            answer = {"choices": [{"message": {"content": "x" * share}}], "usage": {"prompt_tokens": 1000}}
            asked = {
                "role": "assistant",
                "content": f"I look at part {number}.",
                "tool_calls": [{"id": "call", "function": {"name": "bash", "arguments": command}}],
                "extra": {"timestamp": 1.8e9 + number, "cost": 0.001, "response": answer},
            }
            said = json.dumps({"returncode": 0, "output": printed})
            extra = {"raw_output": printed, "returncode": 0, "timestamp": 1.8e9 + number + 0.5}
            told = {"role": "tool", "tool_call_id": "call", "content": said, "extra": extra}
            file.write((",\n" if number else "") + json.dumps(asked, indent=2) + ",\n" + json.dumps(told, indent=2))
        file.write("]}")
    return path


def read(path: Path) -> int:
    """The bytes, and nothing else."""
    return len(path.read_bytes())


def load(path: str) -> int:
    """What a page does that loads all of it."""
    return len(json.loads(Path(path).read_bytes())["messages"])


def index(path: str, cache: Path | None = None) -> Index:
    """The index of a transcript."""
    return index_of(Path(path), None, Redactor({"A_KEY": "k3y-of-a-provider"}).personal(), cache)


def measure(place: Path, quick: bool) -> Section:
    """Two sizes, and what each takes."""
    sizes = {1: 100, 10: 700} if quick else SIZES
    contenders: list[Contender] = []
    for megabytes, steps in sizes.items():
        path, cache = make(place / f"{megabytes}_traj.json", megabytes, steps), place / "cache"
        kept, redactor = index(str(path), cache), Redactor().personal()
        ours: dict[str, Callable[[], object]] = {
            "index": partial(index, str(path)),
            "index that was kept": partial(index, str(path), cache),
            "first chunk": partial(chunk_of, path, kept, "agent1", 0, redactor),
            "last chunk": partial(chunk_of, path, kept, "agent1", kept.chunks - 1, redactor),
        }
        contenders.append(Contender(f"{megabytes} MB: read the bytes", "floor", partial(read, path), n=steps))
        contenders.append(Contender(f"{megabytes} MB: json.loads", "peer", partial(load, str(path)), n=steps))
        contenders += [Contender(f"{megabytes} MB: {name}", "ours", work, n=steps) for name, work in ours.items()]
    records = race(contenders, rounds=3 if quick else 7)
    largest = max(sizes)
    find(records, f"{largest} MB: json.loads").peak_mib = peak_of(
        "perf.transcripts", "load", [str(place / f"{largest}_traj.json")]
    )
    took = {name: find(records, f"{largest} MB: {name}").seconds or 0.0 for name in ("index", "first chunk")}
    return Section(
        name="transcripts",
        title="Open a transcript",
        records=records,
        targets=[
            Target(
                text=f"index of {largest} MB < {INDEX_SECONDS:.0f} s",
                value=f"{took['index']:.1f} s",
                met=took["index"] < INDEX_SECONDS,
            ),
            Target(
                text=f"first chunk of {largest} MB < {CHUNK_MS} ms",
                value=f"{1000 * took['first chunk']:.0f} ms",
                met=1000 * took["first chunk"] < CHUNK_MS,
            ),
        ],
        text=(
            f"Trajectories of mini-swe-agent v2 with {' and '.join(f'{n:,}' for n in sizes.values())} steps. The index "
            "is made once, and again when the file has changed; a page loads it and then one chunk (about 256 KB of "
            "texts, secrets taken out) at a time. The file is mapped: no more of it than one record is ever copied."
        ),
    )
