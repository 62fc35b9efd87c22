"""``python -m perf.simulation``: try every candidate on every made study, and write the page of methods.

The figures are kept in ``perf/measured/simulation.json``; ``--page`` makes the page anew from them.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from perf.simulation import claims, contrasts, page, rates, retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.simulation.designs import Design

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "perf" / "measured" / "simulation.json"
PAGE = ROOT / "docs" / "statistics.md"
PARTS = {"rates": rates, "contrasts": contrasts, "retention": retention, "claims": claims}
SEED = 20261122


def run(designs: Sequence[Design], part: str, draws: int) -> list[dict[str, Any]]:
    """What each design of a part gives; the same whichever others are run."""
    found = []
    for number, design in enumerate(designs):
        generator = np.random.default_rng([SEED, list(PARTS).index(part), number])
        found.append({"design": asdict(design), **PARTS[part].measured(design, draws, generator)})
    return found


def kept() -> dict[str, Any]:
    """What each part gave last."""
    found: dict[str, Any] = msgspec.json.decode(KEPT.read_bytes())
    return found


def main() -> int:
    """Run what is asked for and keep it."""
    parser = argparse.ArgumentParser(prog="python -m perf.simulation", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="parts to simulate; all if not given")
    parser.add_argument("--draws", type=int, default=10_000, help="draws a design")
    parser.add_argument("--page", action="store_true", help="only write the page from what is kept")
    arguments = parser.parse_args()
    found = kept() if KEPT.exists() else {"draws": arguments.draws, "parts": {}}
    for part in () if arguments.page else arguments.only or list(PARTS):
        began = time.monotonic()
        found["parts"][part] = _rounded(run(PARTS[part].DESIGNS, part, arguments.draws))
        print(f"{part}: {len(found['parts'][part])} designs, {time.monotonic() - began:.0f} s", file=sys.stderr)
        found["draws"] = arguments.draws
        KEPT.write_bytes(
            msgspec.json.format(msgspec.json.encode(found), indent=0)
            .replace(b"\n", b"")
            .replace(b'{"design"', b'\n{"design"')
        )
    PAGE.write_text(page.page(found), encoding="utf-8")
    return 0


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
