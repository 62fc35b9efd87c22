"""``python -m perf.soak --faults 200 --minutes 30 --seed 1 --execution process --driver command``.

Ctrl-C ends it early: the pass that is under way is brought to its end, and what was seen is kept.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from perf.soak.drivers import CommandLine, Daemon
from perf.soak.page import PAGE, page
from perf.soak.place import Place, small_disk
from perf.soak.results import SoakRun, keep, read_runs
from perf.soak.soak import Soak, say

DRIVERS = {"command": CommandLine, "daemon": Daemon}


def main() -> int:
    """Inject faults, keep what was seen, write the page. Exit code 1 if anything was lost, leaked or wrong."""
    arguments = _arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cooperbench-soak-", dir=arguments.scratch) as scratch:
        root = Path(scratch).resolve()
        with small_disk(root / "logs") as small, _images(root, arguments.execution):
            place = Place(root, arguments.execution, arguments.pairs)
            driver = DRIVERS[arguments.driver](place)
            ends = began + arguments.minutes * 60
            soak = Soak(place, driver, random.Random(arguments.seed), small, arguments.faults, ends)
            soak.longest_stop = arguments.longest_stop
            signal.signal(signal.SIGINT, lambda *_: soak.stop())
            try:
                soak.run(soak.undisturbed())
            finally:
                driver.stop()
            if soak.broken and arguments.keep:
                shutil.copytree(root, arguments.keep, symlinks=True, ignore_dangling_symlinks=True)
    run = SoakRun(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        seed=arguments.seed,
        execution=arguments.execution,
        driver=driver.name,
        pairs=arguments.pairs,
        passes=soak.passes,
        verdicts=soak.verdicts,
        minutes=(time.monotonic() - began) / 60,
        faults=sorted(soak.faults.values(), key=lambda one: -one.count),
        lost=soak.broken.lost,
        leaked=soak.broken.leaked,
        wrong=soak.broken.wrong,
    )
    say(f"{soak.injected} faults: {len(run.lost)} lost, {len(run.leaked)} leaked, {len(run.wrong)} wrong")
    for problem in (*run.lost, *run.leaked, *run.wrong):
        say(problem)
    if not arguments.dry:
        keep(run)
        PAGE.write_text(page(read_runs()), encoding="utf-8")
    return 1 if soak.broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.soak", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="faults to inject (200)")
    parser.add_argument("--minutes", type=float, default=30, help="no fault is injected after this time (30)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of faults and moments (1)")
    parser.add_argument("--execution", choices=("process", "docker"), default="process", help="sandboxes (process)")
    parser.add_argument("--driver", choices=sorted(DRIVERS), default="command", help="who runs the cells (command)")
    parser.add_argument("--pairs", type=int, default=40, help="pairs a cell, at most 100 (40)")
    parser.add_argument("--longest-stop", type=float, default=150, metavar="SECONDS", help="of a stopped process (150)")
    parser.add_argument("--scratch", type=Path, help="folder for what is made; the system's temporary one if not given")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy everything here if something did not hold")
    parser.add_argument("--dry", action="store_true", help="print only: keep no run, write no page")
    return parser.parse_args()


@contextmanager
def _images(root: Path, execution: str) -> Iterator[None]:
    """The images of the built-in benchmark's tasks, where tests run on Docker."""
    if execution != "docker":
        yield
        return
    from cooperbench_assets.demo import build_dataset
    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets_tests.engines import running_engine
    from cooperbench_assets_tests.execution.sandboxes.docker.images import build_task_images

    with running_engine(), Engine.connect() as engine:
        build_task_images(engine, build_dataset(root / "dataset"))
        yield


if __name__ == "__main__":
    sys.exit(main())
