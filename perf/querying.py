"""Headline queries, and the whole analysis, on large stores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cooperbench_assets.analysis.registry import ANALYSES, run_all, run_analysis
from cooperbench_assets.store.read import connect, snapshot
from perf import stores
from perf.measure import Contender, peak_of, race
from perf.results import Record, Section, Target

QUERIES = {
    "success by setting": """
        SELECT experiment, setting, count(*) FILTER (outcome_strict = 'pass') AS passed,
            count(*) FILTER (outcome_strict IN ('pass', 'fail')) AS judged
        FROM pairs GROUP BY ALL ORDER BY ALL""",
    "outcomes of all cells": "SELECT * FROM cells ORDER BY experiment, setting, seed",
    "failures by family": "SELECT stage, family, count(*) FROM pairs WHERE outcome = 'infra_error' GROUP BY ALL",
    "solo against coop, pair by pair": """
        SELECT s.outcome_strict AS solo, c.outcome_strict AS coop, count(*) FROM pairs s JOIN pairs c
        USING (experiment, pair) WHERE s.setting = 'solo' AND s.seed = 0 AND c.setting = 'coop-comm' GROUP BY ALL""",
    "cost by experiment": "SELECT experiment, sum(cost_usd), avg(steps) FROM pairs GROUP BY ALL ORDER BY ALL",
    "one pair in all cells": "SELECT setting, seed, outcome FROM pairs WHERE pair = 'sprout_task/104/f1_f40'",
}
QUERY_MS, ANALYSIS_SECONDS = 20, 10


def analyse(database: str) -> dict[str, object]:
    """Everything in the store, read and analysed."""
    inputs = {name for analysis in ANALYSES for name in analysis.needs}
    with snapshot(Path(database)) as store:
        frames = {name: store.table(name) for name in sorted(inputs.intersection(store.names()))}
    return dict(run_all(frames))


def queries(database: Path, rows: int, rounds: int) -> list[Record]:
    """Each query on a connection that is open, as in the UI and in notebooks."""
    with connect(database) as connection:

        def ask(sql: str) -> Callable[[], object]:
            return lambda: connection.execute(sql).fetchall()

        contenders = [Contender(f"query: {name}", "ours", ask(sql), n=rows) for name, sql in QUERIES.items()]
        return race(contenders, rounds, warm=2)


def slowest(database: Path) -> str:
    """The three analyses that take longest, and their share."""
    inputs = {name for analysis in ANALYSES for name in analysis.needs}
    with snapshot(database) as store:
        frames = {name: store.table(name) for name in sorted(inputs.intersection(store.names()))}
    contenders = [Contender(one.name, "part", partial(run_analysis, one, frames)) for one in ANALYSES]
    records = race(contenders, rounds=1, warm=0)
    total = sum(record.seconds or 0.0 for record in records)
    longest = sorted(records, key=lambda record: -(record.seconds or 0.0))[:3]
    return ", ".join(f"{one.name} {100 * (one.seconds or 0) / total:.0f} %" for one in longest)


def measure(place: Path, quick: bool) -> Section:
    """The table's fifth row."""
    made = stores.templates(place)
    section = Section(name="querying", title="Headline queries and the whole analysis")
    for cells in (20, 100) if quick else (200, 2000):
        database, _, _ = stores.build(place, cells, made)
        rows = 100 * cells
        found = queries(database, rows, 3 if quick else 15)
        whole = Contender("the whole analysis", "ours", partial(analyse, str(database)), n=rows)
        found += race([whole], rounds=1 if quick else 3, warm=0 if quick else 1)
        found[-1].peak_mib = peak_of("perf.querying", "analyse", [str(database)])
        section.records += found
        longest = max(found[:-1], key=lambda record: record.seconds or 0.0)
        worst, analysis = 1000 * (longest.seconds or 0.0), found[-1].seconds or 0.0
        section.targets += [
            Target(
                text=f"queries < {QUERY_MS} ms at {rows:,} rows",
                value=f"{worst:.1f} ms at most",
                met=worst < QUERY_MS,
                why=f"The longest is {longest.name.removeprefix('query: ')}.",
            ),
            Target(
                text=f"analysis < {ANALYSIS_SECONDS} s at {rows:,} rows",
                value=f"{analysis:.1f} s",
                met=analysis < ANALYSIS_SECONDS,
                why=f"Of its time: {slowest(database)}.",
            ),
        ]
        section.facts |= {
            "analysis_seconds": analysis,
            "analysis_peak_mib": found[-1].peak_mib or 0.0,
            "analysis_rows": rows,
            "query_seconds": worst / 1000,
        }
    section.text = (
        "Rows are pairs in cells: experiments of five cells (three seeds of solo, coop with and without messages) of "
        "100 pairs, with their agents and messages. Queries go to an open connection. The analysis takes every table "
        "out of the store and makes every result table, for all experiments at once; an asset does it for one."
    )
    return section
