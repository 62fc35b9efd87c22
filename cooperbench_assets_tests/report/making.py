"""Sources for reports from hand-made frames, and pages taken apart."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import polars as pl

from cooperbench_assets.report.figure import Figure, render
from cooperbench_assets.report.sections import SECTIONS
from cooperbench_assets.report.sources import Source, source_of
from cooperbench_assets.store import schema
from cooperbench_assets_tests.analysis.stores import START, outcomes, pair_row, pairs_frame, provenance

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "link", "br", "img", "input", "hr"}


def store(rows: list[dict[str, Any]], **cells: Any) -> dict[str, pl.DataFrame]:
    """The tables of a store that holds these rows of PAIRS; every cell with `cells` changed in its provenance."""
    pairs = pairs_frame(*rows)
    keys = pairs.select("experiment", "setting", "seed").unique(maintain_order=True).rows(named=True)
    return {"pairs": pairs, "provenance": provenance(*({**key, **cells} for key in keys))}


def table(setting: str, letters: str, experiment: str = "e", tasks: int = 8) -> list[dict[str, Any]]:
    """Rows of a setting over eight tasks of two pairs: `letters` are the outcomes of each pair's seeds, in turn.

    ``P F`` gives the first pair P, the second F, the third P, …; with ``PF FP`` each pair has two seeds.
    """
    kinds = letters.split()
    places = [(task, pair) for task in range(1, tasks + 1) for pair in (1, 3)]
    made = {place: kinds[n % len(kinds)] for n, place in enumerate(places)}
    return outcomes(setting, made, experiment)


def ordinary(experiment: str = "e") -> list[dict[str, Any]]:
    """Three solo seeds and a coop setting of one seed, eight tasks, all judged."""
    return [
        *table("solo", "PPP PPF FPF FFF", experiment),
        *table("coop-comm", "P F F F", experiment),
        *table("coop-nocomm", "F P F F", experiment),
    ]


def dead_arm() -> list[dict[str, Any]]:
    """Solo is judged; in coop-comm infrastructure ended the agents of every other pair."""
    return [*table("solo", "PP PF FF"), *table("coop-comm", "I P I F")]


def messages(*texts: str) -> pl.DataFrame:
    """Messages of one pair of coop-comm."""
    pair = pair_row(setting="coop-comm")
    names = ("experiment", "setting", "seed", "pair", "repo", "task_id", "feature_a", "feature_b")
    key = {name: pair[name] for name in names}
    return schema.MESSAGES.frame(
        [
            {
                **key,
                "position": n,
                "sender": f"agent{n % 2 + 1}",
                "recipient": "agent1",
                "message": text,
                "sent_at": START,
            }
            for n, text in enumerate(texts)
        ]
    )


def source(rows: list[dict[str, Any]], logs: Path | None = None, **cells: Any) -> Source:
    """A source of one experiment."""
    tables = store(rows, **cells)
    return source_of(rows[0]["experiment"], tables, logs)


def drawn(source: Source, *names: str) -> dict[str, Figure]:
    """These figures of a source, and no others."""
    drawings = (drawing for section in SECTIONS for drawing in section.drawings if drawing.name in names)
    return {one.name: render(one.name, one.definition, one.draw(source.results, source.look)) for one in drawings}


class Page(HTMLParser):
    """A page taken apart: its elements in order, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        """Text with the names of the elements around it, from the outside in."""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(("/".join(self._open), " ".join(data.split())))

    @property
    def visible(self) -> str:
        """All text but scripts and styles."""
        return "\n".join(text for where, text in self.texts if not where.endswith(("script", "style")))

    def having(self, attribute: str) -> list[str]:
        """The values of an attribute, of all elements that have it."""
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]

    def count(self, tag: str) -> int:
        """How many elements there are of a name."""
        return sum(name == tag for name, _ in self.elements)
