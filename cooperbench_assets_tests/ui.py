"""The real Dagster UI in a real browser: `dagster dev` in a project of its own, and Chromium looking at it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from cooperbench_assets_tests.projects import environment
from cooperbench_assets_tests.services import need_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cooperbench_assets.project import Project

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
EVERY_SECOND = Path(__file__).parent / "every_second"
"""Shortens what the daemon waits for between two looks at backfills."""

AXE = Path(__file__).parent / "viewer" / "vendor" / "axe.min.js"
READY_SECONDS = 120.0
PATIENCE_MILLISECONDS = 60_000


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def dagster_dev(project: Project, options: Sequence[str] = (), **variables: str) -> Iterator[str]:
    """`dagster dev` with its daemon on a free port; gives the UI's address, and stops what it started.

    Args:
        project: The project; what is printed goes to `dagster-dev.log` in its root.
        options: Of Python.
        variables: Of its environment, beside the usual ones.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [*options, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
    with _running(project, command, variables) as (server, log):
        _wait_until_ready(address, server, log)
        yield address


@contextlib.contextmanager
def dagster_daemon(project: Project) -> Iterator[None]:
    """Dagster's daemon alone; stops it."""
    command = ["-m", "dagster._daemon", "run", "--workspace", "workspace.yaml"]
    with _running(project, command, {"DAGSTER_HOME": str(project.root)}):
        yield


@contextlib.contextmanager
def _running(
    project: Project, command: Sequence[str], variables: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A command of Python in a session of its own, in which all is stopped at the end, and the file of its output."""
    paths = f"{project.root}{os.pathsep}{EVERY_SECOND}"
    log = project.root / "dagster-dev.log"
    with log.open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, *command],
            cwd=project.root,
            env=environment(project, **{"PYTHONPATH": paths, **variables}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield server, log
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_ready(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"dagster dev ended with {server.returncode}:\n{log.read_text()[-4000:]}")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{address}/server_info"):
            return
        time.sleep(0.3)
    raise TimeoutError(f"dagster dev was not ready after {READY_SECONDS} s:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def browser(width: int = 1500, height: int = 950) -> Iterator[Page]:
    """A page in Chromium with an empty profile."""
    chromium = need_program("chromium", "chromium-browser", "google-chrome")
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile, sync_playwright() as playwright:
        context: BrowserContext = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            args=CHROMIUM_FLAGS,
            viewport={"width": width, "height": height},
        )
        try:
            page = context.pages[0] if context.pages else context.new_page()
            page.set_default_timeout(PATIENCE_MILLISECONDS)
            # Pytest shows what is printed, beside what a failed test did not see on the page.
            page.on("pageerror", lambda error: print("in the page:", error))
            page.on("requestfailed", lambda request: print("no answer:", request.url, request.failure))
            page.on("response", lambda answer: None if answer.ok else print("answer:", answer.url, answer.status))
            yield page
        finally:
            context.close()


def serious_faults(page: Page, *rules: str) -> list[Any]:
    """What axe-core finds on the page as it is now; by these rules, or by all it has."""
    page.evaluate(AXE.read_text())
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    return [
        (one["id"], [node["target"] for node in one["nodes"]], one["nodes"][0]["failureSummary"])
        for one in page.evaluate("options => axe.run(document, options)", options)["violations"]
        if one["impact"] in ("serious", "critical")
    ]
