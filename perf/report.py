"""The page: what was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from perf import beyond, summary
from perf.machine import memory_mib
from perf.results import Record, Section

_TITLE = "# Performance\n"
_HEAD = """This page is written by `make perf`, from what it measured. Ours, what people use today and the floor run in
turn in the same process, several rounds; medians are shown. Ratios carry over to other machines, absolute times do not.
CPU seconds count children. Peak memory is what a process of its own needed over what it held before.
"""


def page(sections: Sequence[Section], machine: dict[str, str], *, quick: bool) -> str:
    """The whole page."""
    facts = {name: value for one in sections for name, value in one.facts.items()}
    parts = [_TITLE, summary.lines(facts), _HEAD]
    if quick:
        parts.append("**A quick run: few rounds, small inputs. These figures are not for quoting.**\n")
    parts.append(_table([["", ""], *([f"**{name}**", value] for name, value in machine.items())]))
    parts.append(_loads(sections))
    parts.append(_summary(sections))
    parts += [of_section(section) for section in sections]
    if not quick:
        parts.append(beyond.section(facts | {"memory_mib": memory_mib()}))
    return "\n".join(parts)


def _loads(sections: Sequence[Section]) -> str:
    loads = [value for section in sections for value in section.load]
    spread = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "not known"
    return f"Load average of the machine before and after each measurement, the measurements' own included: {spread}.\n"


def _summary(sections: Sequence[Section]) -> str:
    rows = [["what", "target", "measured", "met"]]
    for section in sections:
        for target in section.targets:
            met = {True: "yes", False: "**no**", None: "not measured"}[target.met]
            rows.append([f"[{section.title}](#{_anchor(section.title)})", target.text, target.value, met])
    return "## Targets\n\n" + _table(rows)


def _anchor(title: str) -> str:
    kept = "".join(character for character in title.lower() if character.isalnum() or character in " -_")
    return kept.replace(" ", "-")


def of_section(section: Section) -> str:
    """What the page says of one measurement."""
    parts = [f"## {section.title}\n", f"{section.text}\n"]
    if section.records:
        parts.append(_table([["", "seconds", "CPU seconds", "peak MiB", "n", "rounds"], *map(_row, section.records)]))
    if section.table:
        parts.append(_table(section.table))
    parts += [f"Not met: {target.text}. {target.why}\n" for target in section.targets if target.met is False]
    parts.append(f"Measured on {section.date}; load {section.load[0]:.1f} before, {section.load[1]:.1f} after.\n")
    return "\n".join(parts)


def _row(record: Record) -> list[str]:
    name = f"**{record.name}**" if record.role == "ours" else record.name
    note = f" ({record.note})" if record.note else ""
    peak = "" if record.peak_mib is None else f"{record.peak_mib:.0f}"
    figures = [seconds(record.seconds), seconds(record.cpu_seconds), peak]
    return [name + note, *figures, f"{record.n:,}", str(record.rounds)]


def seconds(value: float | None) -> str:
    """Seconds with three digits that count."""
    if value is None:
        return ""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
