"""Pages in a browser: first paint of a pair with a large transcript, a list of 20,000 pairs, size of a bundle."""

from __future__ import annotations

import json
import time
from pathlib import Path

from playwright.sync_api import Page

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.viewer.bundle import write_bundle
from cooperbench_assets.viewer.shelves import library_of_logs
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.ui import browser
from cooperbench_assets_tests.viewer.places import serving
from perf.measure import Contender, race
from perf.results import Section, Target, find
from perf.transcripts import SIZES, make

PAIRS, BUNDLED = 20_000, 200
PAINT_SECONDS, LIST_SECONDS, SCROLL_MS, PAIR_KB = 1.0, 3.0, 100.0, 40.0
STEP, ROW = ".step-head", ".grid-body .grid-row"


def pairs(count: int) -> tuple[Pair, ...]:
    """Pairs of a task each."""
    return tuple(Pair("some_task", number, (1, 2)) for number in range(1, count + 1))


def pair_of(logs: Path, name: str, megabytes: int, steps: int) -> str:
    """A run with one solo pair and a large transcript; returns the address of its page below the viewer's."""
    built = trees.Tree(logs / name, "solo")
    (pair,) = pairs(1)
    built.config()
    built.pair(pair)
    make(built.folder(pair) / "solo_traj.json", megabytes, steps)
    return f"/#/e/{logs.name}/{name}/solo/{pair.name}"


def rows_of(logs: Path, count: int) -> None:
    """Runs with many small pairs."""
    planned = pairs(min(count, 1000))
    for number in range(count // len(planned)):
        built = trees.Tree(logs / f"many-{number}", "solo")
        built.config()
        for pair in planned:
            built.result(pair)
            built.evaluation(pair, passed=(number % 2 == 0, True))


def shown(page: Page, address: str, what: str) -> None:
    """Go to a page in a fresh document, until the first of what it shows is painted."""
    page.goto("about:blank")
    page.goto(address)
    page.locator(what).first.wait_for()


def scrolled(page: Page) -> float:
    """The longest of 30 frames while the list is scrolled from end to end, in milliseconds."""
    longest: float = page.evaluate(
        """async () => {
          const box = document.querySelector(".grid-body");
          let last = performance.now(), longest = 0;
          for (let n = 1; n <= 30; n += 1) {
            box.scrollTop = (box.scrollHeight * n) / 30;
            await new Promise(requestAnimationFrame);
            longest = Math.max(longest, performance.now() - last);
            last = performance.now();
          }
          return longest;
        }"""
    )
    return longest


def bundle_bytes_a_pair(place: Path, count: int) -> float:
    """Bytes of a bundle over its pairs; transcripts of 20 kB in each."""
    logs = place / "bundled"
    built = trees.Tree(logs / "few", "solo")
    built.config()
    for pair in pairs(count):
        built.pair(pair)
        (built.folder(pair) / "solo_traj.json").write_text(
            json.dumps([{"role": "assistant", "content": f"word {n} " * 20} for n in range(100)])
        )
    written = write_bundle(library_of_logs(logs), place / "out")
    return written.bytes / written.pairs


def measure(place: Path, quick: bool) -> Section:
    """The pages as a person opens them, the server warm."""
    sizes = {1: 100, 10: 700} if quick else SIZES
    count = 2_000 if quick else PAIRS
    pages, many = place / "pages", place / "many"
    addresses = {
        megabytes: pair_of(pages, f"large-{megabytes}", megabytes, steps) for megabytes, steps in sizes.items()
    }
    rows_of(many, count)
    a_pair = bundle_bytes_a_pair(place, 20 if quick else BUNDLED)
    with serving(library_of_logs(pages)) as first, serving(library_of_logs(many)) as second, browser() as page:
        began = time.perf_counter()
        shown(page, f"{first}{addresses[max(sizes)]}", STEP)
        cold = time.perf_counter() - began
        contenders = [
            Contender(f"pair page, {megabytes} MB: first step is painted", "ours", Opening(page, first + where, STEP))
            for megabytes, where in addresses.items()
        ]
        rows = Opening(page, f"{second}/#/e/{many.name}/pairs", ROW)
        contenders.append(Contender(f"list of {count:,} pairs: first row is painted", "ours", rows))
        records = race(contenders, rounds=3 if quick else 5)
        rows()
        frame = scrolled(page)
    painted = find(records, f"pair page, {max(sizes)} MB: first step is painted").seconds or 0.0
    listed = find(records, f"list of {count:,} pairs: first row is painted").seconds or 0.0
    return Section(
        name="viewing",
        title="Look at pairs in a browser",
        records=records,
        targets=[
            _under(f"pair page of {max(sizes)} MB < {PAINT_SECONDS:g} s", painted, PAINT_SECONDS, "s"),
            _under(f"list of {count:,} pairs < {LIST_SECONDS:g} s", listed, LIST_SECONDS, "s"),
            _under(f"longest frame while scrolling < {SCROLL_MS:g} ms", frame, SCROLL_MS, "ms"),
            _under(f"bundle < {PAIR_KB:g} kB a pair", a_pair / 1000, PAIR_KB, "kB"),
        ],
        text=(
            f"Chromium on the viewer's server. Opened first, the pair of {max(sizes)} MB took {cold:.1f} s: its "
            "transcript was indexed. A pair of the bundle has a transcript of about 20 kB."
        ),
    )


class Opening:
    """Opens a page."""

    def __init__(self, page: Page, address: str, what: str) -> None:
        self.page, self.address, self.what = page, address, what

    def __call__(self) -> None:
        shown(self.page, self.address, self.what)


def _under(text: str, value: float, limit: float, unit: str) -> Target:
    return Target(text=text, value=f"{value:.1f} {unit}", met=value < limit)
