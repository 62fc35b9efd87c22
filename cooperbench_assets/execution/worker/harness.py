"""The upstream harness as the server finds it: importing it once, and saying what was imported.

What belongs here: the import with its errors, and the harness's identity for provenance. What does not: calling it
(``child``), and how an import is put off (``deferred_import``). Standard library only: it runs in the harness's
environment, which may have nothing of ours.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from cooperbench_assets.execution.sandboxes.base import OWN_BACKENDS
from cooperbench_assets.execution.sandboxes.process.backend import choose_isolation
from cooperbench_assets.execution.worker.deferred_import import deferred, standing_in
from cooperbench_assets.execution.worker.protocol import EXTERNAL_AGENTS, WANTED_AGENT, ChildRequest, HarnessInfo

_MODULES = (
    "cooperbench.runner.solo",
    "cooperbench.runner.coop",
    "cooperbench.eval.evaluate",
    "cooperbench.eval.sandbox",
)

UPSTREAM_BACKENDS = {
    "modal": {"modal": "modal"},
    "gcp": {"google.cloud.batch_v1": "google-cloud-batch", "google.cloud.storage": "google-cloud-storage"},
}
"""Executions that upstream's own backends serve: the modules that they import, late, and the packages of these."""


_OWN_AGENTS = re.compile(r"cooperbench\.agents\.\w+\.adapter")
"""The modules that register upstream's own agents; litellm comes with the first."""


_OF_FEW = {"modal": ("App", "Image", "Sandbox"), "docker": (), "redis": ()}
"""What upstream imports for all and uses for some pairs: half of what is left then; with what annotations name."""

_OPENHANDS = ("cooperbench.agents.openhands_agent_sdk",)
"""Upstream's package that imports its adapter itself, and so uses Modal."""

_AT_FIRST_CALL = ("litellm.responses.mcp.chat_completions_handler", "litellm.proxy._types", "openai.resources.chat")
"""What litellm and its client of OpenAI's import when they are first called: 700 modules, a second of a core."""


class HarnessImportError(RuntimeError):
    """The harness cannot be used; the text is one sentence with the remedy."""


def import_harness() -> HarnessInfo:
    """Import the harness and the external agents that the environment names.

    Upstream imports its own agents, and so litellm, with whatever else is asked of it: nine tenths of the time. Here
    only the one that is wanted is imported, and what few pairs need waits for these.

    Raises:
        HarnessImportError: if anything of it cannot be imported.
    """
    # Half a gigabyte of classes and no garbage: the collector would take a quarter of the time.
    gc.disable()
    # Upstream would import these too: it only warns of one that is missing, and names none that raises.
    external = os.environ.pop(EXTERNAL_AGENTS, "")
    wanted = os.environ.pop(WANTED_AGENT, "")
    with _import_failures(), only_what_all_need():
        for name in _MODULES:
            importlib.import_module(name)
        with contextlib.suppress(ImportError):
            # Older harnesses have no teams.
            importlib.import_module("cooperbench.runner.team")
    _import_external_agents(external)
    if wanted and wanted not in agents():
        with _import_failures():
            _import_own_agent(wanted)
    os.environ[EXTERNAL_AGENTS] = external
    # What is there now is shared with every child as long as nobody writes to it: the collector must not.
    gc.collect()
    gc.freeze()
    return _describe()


def _import_own_agent(name: str) -> None:
    """Import an agent of upstream's own; all of them, if none has a module of its name."""
    with contextlib.suppress(ImportError):
        importlib.import_module(f"cooperbench.agents.{name}.adapter")
    if name not in agents():
        # Which of them may be missing is upstream's to say.
        importlib.import_module("cooperbench.agents.registry")._auto_register()


@contextlib.contextmanager
def only_what_all_need() -> Iterator[None]:
    """Have imports of upstream put off its own agents and what it uses for few pairs until they are used."""
    with standing_in(_OF_FEW, _OPENHANDS), deferred(_OWN_AGENTS):
        yield


def import_for_children_like(request: ChildRequest, watched: Iterable[str]) -> None:
    """Import what a child and others of its kind need: once, and not in each of them.

    Args:
        request: The child's.
        watched: Modules of upstream's that are watched while agents run.
    """
    if request.backend == "modal":
        _import_once(("modal",))
    if request.stage == "eval":
        return
    if request.redis_url is not None:
        _import_once(("redis",))
    if request.git and request.backend == "docker":
        _import_once(("docker",))
    import_what_agents_need(watched)


def import_what_agents_need(watched: Iterable[str]) -> None:
    """Import what every process of agents needs.

    What this version of the harness has not is left out. litellm's own follow only where somebody has imported litellm.

    Args:
        watched: Modules of upstream's that are watched while agents run.
    """
    _import_once(tuple(watched))
    if "litellm" in sys.modules:
        _import_once(_AT_FIRST_CALL)


@functools.cache
def _import_once(names: tuple[str, ...]) -> None:
    for name in names:
        # What cannot be imported is found again by whoever needs it, and named there.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def version() -> str:
    """The version of the imported harness."""
    return str(getattr(sys.modules.get("cooperbench"), "__version__", "unknown"))


def agents() -> tuple[str, ...]:
    """Names of the agents that are registered."""
    return tuple(importlib.import_module("cooperbench.agents").list_agents())


def is_upstreams_own(agent: str) -> bool:
    """Whether the agent comes with the harness, and so needs a container to work in."""
    registry: dict[str, type] = getattr(importlib.import_module("cooperbench.agents.registry"), "_REGISTRY", {})
    found = registry.get(agent)
    return found is not None and found.__module__.partition(".")[0] == "cooperbench"


@contextlib.contextmanager
def _import_failures() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise HarnessImportError(_import_failure(error)) from error
    except Exception as error:
        raise HarnessImportError(
            f"importing the harness failed in {sys.executable}: {type(error).__name__}: {error}"
        ) from error


def _import_failure(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "cooperbench":
        return (
            f"the harness is not installed in {sys.executable}: install the package cooperbench there, "
            f"or name an interpreter that has it (harness: {{python: …}})"
        )
    missing = getattr(error, "name", None)
    what = f"the module {missing!r} is missing" if isinstance(error, ModuleNotFoundError) else str(error)
    return (
        f"the harness in {sys.executable} cannot be imported: {what}; "
        f"install what it needs there (for our own environment: cooperbench-assets[harness])"
    )


def _import_external_agents(modules: str) -> None:
    for name in filter(None, (part.strip() for part in modules.split(","))):
        try:
            importlib.import_module(name)
        except Exception as error:
            remedy = "correct the name, or set PYTHONPATH in the experiment's environment"
            if isinstance(error, KeyError):  # As os.environ raises it.
                remedy = "read keys when an agent runs: none is in the environment before that"
            raise HarnessImportError(
                f"external agent module {name!r} cannot be imported in {sys.executable}: "
                f"{type(error).__name__}: {error}; {remedy}"
            ) from error


def _describe() -> HarnessInfo:
    commit, dirty = _checkout()
    isolation, reason = choose_isolation()
    return HarnessInfo(
        version=version(),
        python=sys.executable,
        python_version=sys.version.partition(" ")[0],
        commit=commit,
        dirty=dirty,
        packages=_packages(),
        agents=agents(),
        backends=(*OWN_BACKENDS, *(name for name, needs in UPSTREAM_BACKENDS.items() if all(map(_is_there, needs)))),
        isolation=isolation,
        isolation_reason=reason,
        warnings=tuple(_thread_warnings()),
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _thread_warnings() -> list[str]:
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if not threads:
        return []
    warning = (
        f"importing the harness or its agents started threads ({', '.join(sorted(threads))}); "
        f"children are forked without them, and one that waits for such a thread would hang until its deadline"
    )
    return [warning]


def _packages() -> dict[str, str]:
    # The folders' names say it; reading 170 metadata files would take a tenth of a second.
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder or "."):
                if entry.name.endswith(".dist-info"):
                    name, _, number = entry.name.removesuffix(".dist-info").rpartition("-")
                    found.setdefault(name.replace("_", "-").lower(), number)
    return dict(sorted(found.items()))


def _checkout() -> tuple[str | None, bool | None]:
    """Commit and dirty state of the checkout that the harness comes from; None where it is a plain package."""
    try:
        written = metadata.distribution("cooperbench").read_text("direct_url.json")
        origin: dict[str, Any] = json.loads(written) if written else {}
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return str(commit), False
    folder = Path(str(sys.modules["cooperbench"].__file__)).parent
    if {"site-packages", "dist-packages"} & set(folder.parts):
        return None, None
    return _git(folder, "rev-parse", "HEAD"), _is_dirty(folder)


def _is_dirty(folder: Path) -> bool | None:
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return None if changes is None else bool(changes)


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-c", f"safe.directory={folder}", "-C", str(folder), *args],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def to_message(info: HarnessInfo) -> dict[str, Any]:
    """The record as a message carries it."""
    return {"type": "ready", "info": asdict(info)}
