"""The first lines of the page: what a person waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Facts = Mapping[str, float]

ROWS: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("read my logs: 6 runs of 50 pairs, `materialize`", lambda facts: f"{facts['read_flash_seconds']:.1f} s"),
    (
        "the same in an instance with {history:,.0f} earlier runs",
        lambda facts: f"{facts['read_flash_with_history_seconds']:.1f} s",
    ),
    ("read {many_cells:.0f} cells of 20 pairs, `materialize`", lambda facts: f"{facts['read_many_seconds']:.1f} s"),
    ("read all of them from the UI, click to green", lambda facts: f"{facts['click_all_seconds']:.1f} s"),
    ("read one cell from the UI, click to green", lambda facts: f"{facts['click_cell_seconds']:.1f} s"),
    (
        "evaluate a cell of 100 pairs whose tests are short, `process`",
        lambda facts: f"{100 * facts['evaluation_seconds_per_pair']:.0f} s",
    ),
    (
        "see the result: publish the store after a changed cell",
        lambda facts: f"{1000 * facts['publish_seconds']:.0f} ms",
    ),
)


def lines(facts: Facts) -> str:
    """A table of what was measured of it; empty where nothing was."""
    table = []
    for text, value in ROWS:
        try:
            table.append(f"| {text.format(**facts)} | {value(facts)} |")
        except KeyError:
            continue
    return "\n".join(["| how long | |", "| --- | --- |", *table, ""]) if table else ""
