"""Loading the code location, `dagster dev` until it answers, and the memory it keeps when idle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

import psutil

from cooperbench_assets.project import Project
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project
from perf.measure import Contender, cpu_seconds, race, run_command
from perf.results import Record, Section, Target, ratio

EMPTY = "from dagster import Definitions\n\ndefs = Definitions()\n"
WORKSPACE = "load_from:\n  - python_module:\n      module_name: empty\n      working_directory: .\n"
QUESTION = (
    "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError { __typename } } } } }"
)
PATIENCE = 180.0
SETTLE_SECONDS = 10.0
TIMES = 1.3


def shipped() -> dict[str, dict[str, object]]:
    """The experiment that comes with the project, and the one in docs."""
    import yaml

    files = {
        "demo": CHECKOUT / "cooperbench_assets" / "defs" / "demo" / "defs.yaml",
        "command_a": CHECKOUT / "docs" / "command_a.yaml",
    }
    return {name: yaml.safe_load(file.read_text())["attributes"] for name, file in files.items()}


def make_projects(place: Path) -> dict[str, tuple[Path, dict[str, str]]]:
    """Ours, and a Dagster project with nothing in it: folder and environment."""
    ours = make_project(place / "ours", shipped())
    empty = place / "empty"
    empty.mkdir()
    (empty / "empty.py").write_text(EMPTY)
    (empty / "workspace.yaml").write_text(WORKSPACE)
    (empty / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
    found = {}
    for name, folder in (("ours", ours.root), ("empty project", empty)):
        (folder / "data" / "dagster").mkdir(parents=True)
        variables = environment(ours) if name == "ours" else {**os.environ, "PYTHONPATH": str(folder)}
        found[name] = (folder, {**variables, "DAGSTER_HOME": str(folder)})
    return found


class Dev:
    """A `dagster dev` of one project."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        dagster = str(Path(sys.executable).with_name("dagster"))
        command = [dagster, "dev", "--host", "127.0.0.1", "--port", str(self.port)]
        self.log = (folder / "dev.log").open("wb")
        self.process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait_until_loaded(self) -> None:
        """Until the code location is loaded, and the web server says so.

        Raises:
            RuntimeError: if it does not come to that.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            if self._is_loaded():
                return
            time.sleep(0.05)
        raise RuntimeError(f"dagster dev did not come up: {Path(self.log.name).read_text()[-2000:]}")

    def _is_loaded(self) -> bool:
        body = json.dumps({"query": QUESTION}).encode()
        address = f"http://127.0.0.1:{self.port}/graphql"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        for entry in entries:
            if (entry["locationOrLoadError"] or {}).get("__typename") == "PythonError":
                raise RuntimeError("the code location does not load")
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def memory_mib(self) -> float:
        """Memory of all its processes, each shared page counted once (PSS)."""
        parent = psutil.Process(self.process.pid)
        total = 0
        for one in [parent, *parent.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except (psutil.NoSuchProcess, AttributeError):
                continue
        return total / 2**20

    def stop(self) -> None:
        """End it, and whatever it started."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()
        self.log.close()


def dev(projects: dict[str, tuple[Path, dict[str, str]]], rounds: int) -> list[Record]:
    """Time until `dagster dev` has loaded each project, and its memory some seconds later."""
    seconds: dict[str, list[float]] = {name: [] for name in projects}
    cpu: dict[str, list[float]] = {name: [] for name in projects}
    memory: dict[str, list[float]] = {name: [] for name in projects}
    for _ in range(rounds):
        for name, (folder, variables) in projects.items():
            used, began = cpu_seconds(), time.perf_counter()
            server = Dev(folder, variables)
            try:
                server.wait_until_loaded()
                seconds[name].append(time.perf_counter() - began)
                time.sleep(SETTLE_SECONDS)
                memory[name].append(server.memory_mib())
            finally:
                server.stop()
            cpu[name].append(cpu_seconds() - used)
    return [
        Record(
            name=f"dagster dev ready: {name}",
            role="ours" if name == "ours" else "floor",
            seconds=median(seconds[name]),
            cpu_seconds=median(cpu[name]),
            peak_mib=median(memory[name]),
            rounds=rounds,
            note=f"CPU until stopped; memory idle after {SETTLE_SECONDS:.0f} s",
        )
        for name in projects
    ]


def measure(place: Path, quick: bool) -> Section:
    """The table's ninth row."""
    projects = make_projects(place)
    folder, variables = projects["ours"]

    bare = make_project(place / "bare", {})
    (bare.defs / "nothing").mkdir()
    (bare.defs / "nothing" / "definitions.py").write_text(EMPTY)

    def python(code: str, project: Project | None = None) -> object:
        where = folder if project is None else project.root
        return run_command([sys.executable, "-c", code], cwd=where, env=environment(project) if project else variables)

    load = "import cooperbench_assets.definitions as it; it.defs()"
    graph = f"{load}.get_repository_def()"
    records = race(
        [
            Contender("import dagster", "floor", lambda: python("import dagster")),
            Contender("the code location without any experiment", "floor", lambda: python(load, bare)),
            Contender("ours: load the code location", "ours", lambda: python(load)),
            Contender("ours: and resolve the graph", "part", lambda: python(graph)),
            Contender("cooperbench-assets --help", "part", lambda: python(HELP)),
        ],
        rounds=2 if quick else 9,
    )
    records += dev(projects, rounds=1 if quick else 5)
    loaded = ratio(records, "ours: load the code location", "import dagster")
    ready = ratio(records, "dagster dev ready: ours", "dagster dev ready: empty project")
    idle = {record.name: record.peak_mib or 0.0 for record in records if record.name.startswith("dagster dev")}
    memory = idle["dagster dev ready: ours"] / idle["dagster dev ready: empty project"]
    return Section(
        name="loading",
        title="Load, start, idle memory",
        records=records,
        targets=[
            Target(
                text=f"load ≤ {TIMES} × import dagster",
                value=f"{loaded:.2f} ×",
                met=loaded <= TIMES,
                why=slow(variables, folder),
            ),
            Target(text=f"dagster dev ready ≤ {TIMES} × an empty project", value=f"{ready:.2f} ×", met=ready <= TIMES),
            Target(text=f"idle memory ≤ {TIMES} × an empty project", value=f"{memory:.2f} ×", met=memory <= TIMES),
        ],
        text=(
            "Two experiments (the demo and the example for a real model), each process anew, files in the page cache. "
            "*Ready* is when the web server says that the code location is loaded; idle memory is that of all its "
            "processes, shared pages counted once."
        ),
    )


HELP = "import sys; sys.argv[1:] = ['--help']; from cooperbench_assets.cli import main; main()"


def slow(variables: dict[str, str], folder: Path) -> str:
    """The packages whose import takes longest, once Dagster's own is over."""
    code = "import dagster, sys; sys.stderr.write('----\\n'); import cooperbench_assets.definitions as it; it.defs()"
    said = run_command([sys.executable, "-X", "importtime", "-c", code], cwd=folder, env=variables).output
    took: dict[str, int] = {}
    for line in said.partition("----")[2].splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[0].strip().isdigit():
            package = parts[2].strip().partition(".")[0]
            took[package] = took.get(package, 0) + int(parts[0])
    longest = sorted(took.items(), key=lambda one: -one[1])[:8]
    figures = ", ".join(f"{name} {value / 1000:.0f} ms" for name, value in longest)
    return f"After `import dagster`, which puts off most of Dagster itself, the imports of: {figures}."
