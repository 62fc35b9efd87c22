"""``python -m perf``: every measurement, each in a process of its own, and the page that they give.

What each measurement gave last is kept in ``perf/measured``, and the page in docs is made from all of that: one
measured again changes its part of the page and leaves the others.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from perf import machine, report
from perf.measure import ROOT
from perf.results import Section

MEASUREMENTS = (
    "commands",
    "clicks",
    "reading",
    "materialising",
    "publishing",
    "importing",
    "querying",
    "evaluating",
    "demo",
    "makespan",
    "loading",
    "transcripts",
    "viewing",
    "cluster",
    "deployment",
    "growth",
)
PAGE = ROOT / "docs" / "performance.md"
KEPT = ROOT / "perf" / "measured"


def main() -> int:
    """Measure, print, and write the page. Exit code 1 if a measurement could not be made."""
    arguments = _arguments()
    if arguments.worker:
        _work(arguments.only[0], Path(arguments.worker), arguments.quick)
        return 0
    names = [name for name in MEASUREMENTS if not arguments.only or name in arguments.only]
    if "cluster" in names and not arguments.only and importlib.util.find_spec("ray") is None:
        names.remove("cluster")
        print("cluster is left as it was: Ray is not installed (make test-deploy installs it)", file=sys.stderr)
    keep = not arguments.quick and arguments.output is None
    sections, failed = [], []
    with tempfile.TemporaryDirectory(prefix="cooperbench-perf-", dir=arguments.scratch) as scratch:
        for name in names:
            place = Path(scratch) / name
            place.mkdir()
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            if (section := _measured(name, place, arguments.quick)) is None:
                failed.append(name)
                continue
            sections.append(section)
            if keep:
                _keep(section)
    page = report.page(kept() if keep else sections, machine.describe(), quick=arguments.quick)
    print(page)
    if keep:
        PAGE.write_text(page, encoding="utf-8")
    elif arguments.output is not None:
        arguments.output.write_text(page, encoding="utf-8")
    for name in failed:
        print(f"{name}: could not be measured; its output stands above", file=sys.stderr)
    return 1 if failed else 0


def kept() -> list[Section]:
    """What each measurement gave last, in the order of the page."""
    files = (KEPT / f"{name}.json" for name in MEASUREMENTS)
    return [msgspec.json.decode(file.read_bytes(), type=Section) for file in files if file.exists()]


def _keep(section: Section) -> None:
    KEPT.mkdir(exist_ok=True)
    content = msgspec.json.format(msgspec.json.encode(section), indent=1)
    (KEPT / f"{section.name}.json").write_bytes(content + b"\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="few rounds and small inputs: to see that it works")
    parser.add_argument("--output", type=Path, help="write what is measured here, and keep nothing")
    parser.add_argument("--scratch", type=Path, help="folder for what is made; the system's temporary one if not given")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(name: str, place: Path, quick: bool) -> Section | None:
    command = [sys.executable, "-m", "perf", "--only", name, "--worker", str(place), *(["--quick"] if quick else [])]
    left_out = ("DAGSTER_HOME", "COOPERBENCH_ASSETS_ROOT")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    result = place / "section.json"
    if done.returncode or not result.exists():
        return None
    return msgspec.json.decode(result.read_bytes(), type=Section)


def _work(name: str, place: Path, quick: bool) -> None:
    before, began = machine.load(), time.monotonic()
    section: Section = importlib.import_module(f"perf.{name}").measure(place, quick)
    section.load = (before, machine.load())
    section.seconds = time.monotonic() - began
    section.date = f"{datetime.now(UTC):%Y-%m-%d}"
    (place / "section.json").write_bytes(msgspec.json.encode(section))


if __name__ == "__main__":
    sys.exit(main())
