"""What ten thousand times as much needs: a reckoning from the measured figures, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from perf.makespan import RUNS_AT_ONCE, USER_MINUTES

PAIRS = 10**6
CELL = 100
SHARE = 0.1
NODES = (10, 100, 1000)
NODE_SLOTS = 8
PAIR_SECONDS = 60 * sum(USER_MINUTES.values()) / (CELL * len(USER_MINUTES))
"""What a pair of a user's model takes its agents."""


def section(facts: Mapping[str, float]) -> str:
    """The last part of the page; it says so where a figure is missing."""
    parts = []
    for title, part in (("## Past one machine", _section), ("### On a Ray cluster", _cluster)):
        try:
            parts.append(part(facts))
        except KeyError as missing:
            parts.append(f"{title}\n\nNot reckoned: no figure for {missing.args[0]}.\n")
    return "\n".join(parts)


def _section(facts: Mapping[str, float]) -> str:
    cells = PAIRS // CELL
    tree = PAIRS * facts["tree_bytes_per_pair"] / 1e9
    parquet = PAIRS * facts["parquet_bytes_per_pair"] / 1e9
    units = f"{parquet:,.1f} GB in {cells * facts['parquet_files_per_cell']:,.0f} files"
    store = PAIRS * facts["store_bytes_per_pair"] / 1e9
    reading = PAIRS * facts["import_seconds_per_pair"] / 3600
    tests = PAIRS * facts["evaluation_seconds_per_pair"] / 86400
    analysis = facts["analysis_seconds"] * PAIRS / facts["analysis_rows"]
    gib = facts["analysis_peak_mib"] * PAIRS / facts["analysis_rows"] / 1024
    fixed, each = _publish(facts)
    once, every = fixed + each * cells, (fixed * cells + each * cells**2 / 2) / 3600
    return f"""## Past one machine

A reckoning in proportion, from the figures above, of {PAIRS:,} pairs: {cells:,} cells of {CELL}. Nothing of it was
measured at that size.

| what | time | disk | memory |
| --- | --- | --- | --- |
| log trees, without patches and trajectories | | {tree:,.0f} GB | |
| evaluation: the demo's short tests, on this machine | {tests:,.1f} days | | |
| reading, judging and writing all of it once | {reading:,.1f} h | {units} | {facts["import_peak_mib"]:,.0f} MiB |
| results.duckdb | | {store:,.1f} GB | |
| publishing one changed cell | {once:,.1f} s | | |
| publishing after each new cell, from none to all | {every:,.1f} h | | |
| the analysis of all experiments at once | {analysis:,.0f} s | | {gib:,.1f} GiB |

{_first(facts)}

Reading and the partition tables have no such limit: a cell costs what it costs, in any number of processes, on any
number of machines that share a file system. Agents and tests are most of the time at any size: they go to the nodes of
a cluster.
"""


def _cluster(facts: Mapping[str, float]) -> str:
    """How long the agents of all pairs take on so many nodes, and what breaks first as nodes are added."""
    rows = [_row(facts, nodes) for nodes in NODES]
    gib = RUNS_AT_ONCE * facts["cluster_node_mib"] / 1024
    return f"""### On a Ray cluster

The agents of these pairs, {PAIR_SECONDS / 60:.1f} minutes each (a user's first run), on nodes of {NODE_SLOTS} slots,
with {RUNS_AT_ONCE} cells at once. CPUs are what is used beside the agents, as measured above on one machine.

| nodes | pairs a second | hours | CPUs, orchestrator | CPUs, head | CPUs, each node | log trees an hour |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

{_first_of_cluster(facts)}

Each cell that runs has an actor and a harness server on each node: for {RUNS_AT_ONCE} cells about {gib:,.1f} GiB of a
node's memory, with what they share counted in each.
"""


def _row(facts: Mapping[str, float], nodes: int) -> str:
    rate = _rate(nodes)
    head, worker = facts["cluster_head_seconds_per_pair"], facts["cluster_worker_seconds_per_pair"]
    cells = [
        f"{nodes:,}",
        f"{rate:,.2f}",
        f"{PAIRS / rate / 3600:,.0f}",
        f"{_launching(facts, nodes):.2f}",
        f"{rate * head:.2f}",
        f"{rate * worker / nodes:.3f}",
        f"{rate * facts['tree_bytes_per_pair'] * 3600 / 1e9:,.2f} GB",
    ]
    return f"| {' | '.join(cells)} |"


def _rate(nodes: int) -> float:
    """Pairs a second that keep all slots of so many nodes busy."""
    return nodes * NODE_SLOTS / PAIR_SECONDS


def _launching(facts: Mapping[str, float], nodes: int) -> float:
    """CPUs of all launching processes and their drivers together."""
    pairs = _rate(nodes) * facts["cluster_orchestrator_seconds_per_pair"]
    return pairs + RUNS_AT_ONCE * nodes * facts["cluster_heartbeat_seconds"]


def _first_of_cluster(facts: Mapping[str, float]) -> str:
    """Which part of a cluster breaks first, and at how many nodes: everything grows in proportion to them."""
    limits = sorted(
        [
            (RUNS_AT_ONCE / _launching(facts, 1), *DRIVER),
            (1 / (_rate(1) * facts["cluster_head_seconds_per_pair"]), *HEAD),
            (RUNS_AT_ONCE * facts["cluster_pairs_per_second"] / _rate(1), *STARTS),
        ]
    )
    (nodes, what, remedy), *others = limits
    later = "; ".join(f"{text}, at about {count:,.0f} nodes" for count, text, _ in others)
    return f"**What breaks first**, at about {nodes:,.0f} nodes, is {what}. {remedy} Then: {later}."


DRIVER = (
    "the driver of a cell, one thread that is then busy all the time",
    "More cells at once, launched from more machines, share the work.",
)
HEAD = (
    "Ray's head, which sets every slot aside and is then busy with one CPU all the time",
    "More clusters, each with experiments of its own, share the work.",
)
STARTS = (
    "the rate at which a launch starts pairs, as measured where nodes and launch share the processors",
    "More cells at once start more.",
)


def _publish(facts: Mapping[str, float]) -> tuple[float, float]:
    """Seconds of one publish: fixed, and for each cell in the store."""
    small, large = facts["publish_small_seconds"], facts["publish_seconds"]
    few, many = facts["publish_small_cells"], facts["publish_cells"]
    each = max(0.0, (large - small) / (many - few))
    return max(0.0, small - each * few), each


def _first(facts: Mapping[str, float]) -> str:
    """Which part breaks first, and at how many pairs."""
    fixed, each = _publish(facts)
    # Publishing once a cell, from none to n cells, takes a tenth of the time that evaluating them takes.
    allowed = SHARE * CELL * facts["evaluation_seconds_per_pair"] - fixed
    published = CELL * 2 * allowed / each if each > 0 and allowed > 0 else 0.0
    analysed = facts["memory_mib"] * facts["analysis_rows"] / facts["analysis_peak_mib"]
    publishing = (
        "publishing after every cell: it copies the whole file and looks at every unit's record, so that all publishes "
        f"together grow with the square of the cells. From about {published:,.0f} pairs on they take a tenth of "
        "the time of the evaluation itself. Publish in batches then (one publish takes in whatever changed since the "
        "last), or keep one file an experiment"
    )
    analysing = (
        "the analysis of all experiments at once, which takes every row into memory: "
        f"{analysed:,.0f} pairs fill this machine's. An asset takes the rows of its own experiment only, so it is "
        "the largest experiment that counts; past that, the counting must move into DuckDB"
    )
    first, second = (publishing, analysing) if published < analysed else (analysing, publishing)
    return f"**What breaks first** is {first}.\n\nNext is {second}."
