"""Reading and classifying a log tree, against what people do and against no more than reading the bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb

from cooperbench_assets.benchmark import evidence
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.outcomes import judge
from perf import inputs
from perf.measure import Contender, race
from perf.results import Section, Target, ratio

NAMES = frozenset((*inputs.RUN_FILES, *inputs.PAIR_FILES))


def walk_and_read(logs: str) -> int:
    """The bytes that reading needs, with what Python has for it."""
    total = 0
    for folder, _, files in os.walk(logs):
        for name in files:
            if name in NAMES:
                with open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123 - the quickest of the plain ways
                    total += len(file.read())
    return total


def bare_calls(logs: str) -> int:
    """The same bytes, with the system's calls and nothing between."""
    total = 0
    with os.scandir(logs) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += bare_calls(entry.path)
            elif entry.name in NAMES:
                descriptor = os.open(entry.path, os.O_RDONLY)
                total += len(os.read(descriptor, os.fstat(descriptor).st_size + 1))
                os.close(descriptor)
    return total


def runs(logs: str) -> list[Path]:
    """The run folders of a log tree."""
    return sorted(Path(logs).iterdir())


def _no_cause(*_: object) -> None:
    """In place of the search; a mock of the library would take longer than the search itself."""


def parse(logs: str) -> None:
    """Every file read, decoded, validated and held against its place; no search for causes."""
    with mock.patch.object(evidence, "infra_failed", _no_cause):
        for run in runs(logs):
            read_run(run)


def ours(logs: str) -> int:
    """Every pair read and judged."""
    return sum(judge(pair).outcome == "pass" for run in runs(logs) for pair in read_run(run).pairs.values())


def json_loop(logs: str) -> list[dict[str, Any]]:
    """What people write: rglob, json.load, a dict a pair; nothing checked, nothing classified."""
    rows = []
    for path in Path(logs).rglob("result.json"):
        result = json.load(path.open())
        row = {name: result.get(name) for name in ("repo", "task_id", "features", "total_cost", "total_steps")}
        verdict = path.with_name("eval.json")
        if verdict.exists():
            content = json.load(verdict.open())
            row |= {"both_passed": content["both_passed"], "merge": (content["merge"] or {}).get("status")}
        talk = path.with_name("conversation.json")
        if talk.exists():
            row["messages"] = len(json.load(talk.open()))
        rows.append(row)
    return rows


def read_json(logs: str) -> list[Any]:
    """DuckDB over the files themselves, with the columns it finds."""
    found: list[Any] = []
    with duckdb.connect() as connection:
        for name in ("result", "eval", "conversation"):
            files = f"{logs}/*/*/*/*/*/{name}.json"
            sql = f"SELECT * FROM read_json('{files}', union_by_name = true, filename = true)"
            columns = "count(*), count(COLUMNS(*))"
            found += connection.sql(f"SELECT {columns} FROM ({sql})").fetchall()
    return found


def measure(place: Path, quick: bool) -> Section:
    """The table's first row."""
    logs, real = inputs.flash(place, quick)
    tree = str(logs)
    pairs = sum(len(read_run(run).pairs) for run in runs(tree))
    size = walk_and_read(tree)

    def contender(name: str, role: Any, function: Any) -> Contender:
        peak = ("perf.reading", function.__name__, [tree])
        return Contender(name, role, lambda: function(tree), n=pairs, peak=peak)

    records = race(
        [
            contender("floor: os.walk, open, read", "floor", walk_and_read),
            contender("bare system calls", "floor", bare_calls),
            contender("ours: parse and check", "part", parse),
            contender("ours: read and classify", "ours", ours),
            contender("rglob + json.load", "peer", json_loop),
            contender("DuckDB read_json", "peer", read_json),
        ],
        rounds=5 if quick else 21,
    )
    floor = "floor: os.walk, open, read"
    parsed, classified = (ratio(records, name, floor) for name in ("ours: parse and check", "ours: read and classify"))
    bare = [ratio(records, f"ours: {name}", "bare system calls") for name in ("parse and check", "read and classify")]
    loop, duck = (ratio(records, name, "ours: read and classify") for name in ("rglob + json.load", "DuckDB read_json"))
    times = {one.name: 1000 * (one.seconds or 0.0) for one in records}
    decoding = times["ours: parse and check"] - times["bare system calls"]
    why = (
        f"The loop takes {times['rglob + json.load']:.0f} ms. System calls alone are {times['bare system calls']:.0f} "
        f"ms of ours; decoding, checking and listing add {decoding:.0f}, and looking through failed tests' output for "
        f"what ended them {times['ours: read and classify'] - times['ours: parse and check']:.0f}: "
        "an output without a summary of its tests is searched for sixteen signs. Most of these files is output, which "
        "json.load copies about as fast as memory allows, so the loop is not slow here."
    )
    cost = next(record for record in records if record.role == "ours").seconds or 0.0
    return Section(
        name="reading",
        title="Read and classify a log tree",
        records=records,
        targets=[
            Target(text="parsing ≤ 1.6 × floor", value=f"{parsed:.2f} ×", met=parsed <= 1.6, why=why),
            Target(
                text="with classification ≤ 2.5 × floor", value=f"{classified:.2f} ×", met=classified <= 2.5, why=why
            ),
            Target(text="≥ 3.5 × as fast as the loop", value=f"{loop:.1f} ×", met=loop >= 3.5, why=why),
            Target(text="≥ 10 × as fast as read_json", value=f"{duck:.1f} ×", met=duck >= 10),
        ],
        text=(
            f"{'The six real flash runs' if real else 'Generated trees (the real logs are not at hand)'}: "
            f"{pairs} pairs, {size / 1e6:.1f} MB, in the page cache. The floor reads the same bytes and does nothing "
            "with them. The loop and `read_json` check and classify nothing: what they give is not the same thing. "
            f"Against system calls with nothing between, parsing takes {bare[0]:.2f} × and all of it {bare[1]:.2f} ×: "
            "that floor leaves out what Python's own `os.walk` and `open` cost."
        ),
        facts={"read_seconds_per_pair": cost / pairs, "tree_bytes_per_pair": size / pairs},
    )
