"""What one child does: run upstream's own function for one pair, in its staging folder, and say what went wrong.

What belongs here: the call into upstream and the words for its failures. What does not: forking and reaping
(``server``), and whether the pair succeeded, which is read from the files. Standard library and the harness only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from cooperbench_assets.execution.infra_errors import InfrastructureError, from_exception
from cooperbench_assets.execution.processes import (
    MARK,
    adopt_orphans,
    die_with_parent,
    mark_of,
    process_identity,
)
from cooperbench_assets.execution.sandboxes.base import WITHOUT_CONTAINERS, Backend
from cooperbench_assets.execution.sandboxes.monitored import Progress, Watched
from cooperbench_assets.execution.worker import harness
from cooperbench_assets.execution.worker.agent_monitor import watch_agents
from cooperbench_assets.execution.worker.backends import open_backend
from cooperbench_assets.execution.worker.model_probe import ask_model
from cooperbench_assets.execution.worker.protocol import LOG, PROGRESS, REPORT, ChildRequest
from cooperbench_assets.redaction import Redactor, secret_variables

_LONGEST_TEXT = 8000


class Terminated(BaseException):
    """SIGTERM, as an exception, so that upstream's own clean-up runs."""


class Report:
    """What a child tells of its end."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.isolation: str | None = None

    def content(self) -> dict[str, Any]:
        """As it is written and sent."""
        return {"error": self.error, "isolation": self.isolation}


def live(request: ChildRequest, *, server: int, report_fd: int, slot_fd: int | None) -> NoReturn:
    """Be the child: everything from the fork to the end of the process."""
    report = Report()
    threads: list[BaseException] = []
    ended = 1
    try:
        os.setsid()
        _take_signals()
        die_with_parent(server)
        adopt_orphans()
        request = _enter(request)
        threading.excepthook = lambda args: threads.append(args.exc_value or args.exc_type())
        # Until now there was nothing to clean up, and SIGTERM ended the process: an exception might be lost on the way.
        signal.signal(signal.SIGTERM, _terminate)
        _work(request, report, slot_fd)
        ended = 0
    except Terminated:
        _die_by_sigterm()
    except BaseException as error:
        redactor = Redactor(secret_variables(os.environ, request.secrets))
        report.error = shorten(redactor.text(describe(error, threads)))
        with contextlib.suppress(OSError):
            # A full disk is no reason to lose the error.
            print(shorten(redactor.text(traceback.format_exc())), file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _leave(request, report, report_fd)
        os._exit(ended)


def describe(error: BaseException, threads: list[BaseException]) -> str:
    """One clear text for what escaped upstream's function; typed where it is known to be infrastructure."""
    if typed := from_exception(error):
        return str(typed)
    if isinstance(error, KeyError) and threads:
        # Upstream looks for the result of each agent's thread, and finds none where it raised SystemExit.
        told = "; ".join(sorted({_named(one) for one in threads}))
        return f"{error.args[0]} ended by {told} and left no result, so upstream could write none"
    return _named(error)


def shorten(text: str) -> str:
    """The text, cut to a fair length; without secrets already, because half of one would not be found."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …"


def fit(function: Callable[..., Any], arguments: Mapping[str, Any], droppable: frozenset[str]) -> dict[str, Any]:
    """The arguments that this version of `function` takes.

    Args:
        function: Of the harness, of any version.
        arguments: What it is to be told.
        droppable: Arguments that say what an older version does anyway.

    Raises:
        InfrastructureError: family ``configuration``, if it would not hear of something that matters, or wants to
            know something more.
    """
    parameters = inspect.signature(function).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return dict(arguments)
    lost = sorted(set(arguments) - set(parameters) - droppable)
    wanted = sorted(
        name
        for name, one in parameters.items()
        if one.default is inspect.Parameter.empty and one.kind is not one.VAR_POSITIONAL and name not in arguments
    )
    if lost or wanted:
        problem = f"cannot be told {', '.join(lost)}" if lost else f"wants {', '.join(wanted)}, which we do not know"
        raise InfrastructureError(
            "configuration",
            f"harness {harness.version()}: {function.__name__} {problem}; use another version of the harness",
        )
    return {name: value for name, value in arguments.items() if name in parameters}


def _enter(request: ChildRequest) -> ChildRequest:
    """Furnish the process; the request with the paths that it has now."""
    staging = Path(request.staging)
    try:
        os.chdir(staging)
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise from_exception(error) or InfrastructureError(
            "configuration", f"the staging folder {staging} cannot be used: {error.strerror}"
        ) from error
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    os.close(log)
    os.close(nothing)
    identity = process_identity(os.getpid()) or ""
    os.environ.update(request.environment)
    os.environ.update(request.secrets)
    os.environ |= {"TZ": "UTC", MARK: mark_of(os.getpid(), identity), "TMPDIR": _own_tmp(staging)}
    time.tzset()
    gc.enable()
    return _with_own_config(request)


def _with_own_config(request: ChildRequest) -> ChildRequest:
    if request.agent_config_text is None:
        return request
    # In the log tree it has no secrets.
    file = Path(os.environ["TMPDIR"], "agent_config.yaml")
    file.touch(mode=0o600)
    file.write_text(request.agent_config_text)
    return replace(request, agent_config=str(file))


def _own_tmp(staging: Path) -> str:
    # Below staging, so that what a killed child leaves there goes with the folder.
    folder = staging / "tmp"
    folder.mkdir(exist_ok=True)
    import tempfile

    tempfile.tempdir = str(folder)
    return str(folder)


def _leave(request: ChildRequest, report: Report, report_fd: int) -> None:
    content = json.dumps(report.content() | {"key": request.key, "stage": request.stage, "pid": os.getpid()})
    with contextlib.suppress(OSError):
        (Path(request.staging) / REPORT).write_text(content)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    with contextlib.suppress(OSError):
        os.write(report_fd, content.encode())


def _work(request: ChildRequest, report: Report, slot_fd: int | None) -> None:
    if request.stage == "ask":
        ask_model(request)
        return
    task = Path(request.dataset) / request.repo / f"task{request.task_id}"
    if not task.is_dir():
        raise InfrastructureError("configuration", f"the dataset has no such task: {task} is missing")
    if request.stage == "agent":
        _run_agents(request)
    else:
        _evaluate(request, report, slot_fd)


def _run_agents(request: ChildRequest) -> None:
    _check_agents(request)
    _see_to_git(request)
    function = _agents_function(request.mode)
    arguments: dict[str, Any] = {
        "repo_name": request.repo,
        "task_id": request.task_id,
        "features": list(request.features),
        "run_name": request.run_name,
        "agent_name": request.agent,
        "model_name": request.model_name,
        "force": True,
        "quiet": True,
        "backend": request.backend,
        "dataset_dir": request.dataset,
        "logs_dir": "logs",
    }
    # An older harness looks for these in its working folder, which is ours to furnish.
    droppable = {"quiet", "logs_dir", "dataset_dir"}
    if request.agent_config is not None:
        arguments["agent_config"] = request.agent_config
    if request.mode != "solo":
        arguments |= {"messaging_enabled": request.messaging, "git_enabled": request.git}
        droppable |= set() if request.git else {"git_enabled"}
        droppable |= {"messaging_enabled"} if request.messaging else set()
        if request.redis_url is not None:
            arguments["redis_url"] = request.redis_url
    redactor = Redactor(secret_variables(os.environ, request.secrets))
    containers = watch_agents(function, lambda text: shorten(redactor.text(text)))
    _call(function, arguments, frozenset(droppable), request)
    containers.raise_if_untold(_log_dir(request) / "result.json")


def _check_agents(request: ChildRequest) -> None:
    known = harness.agents()
    if request.agent not in known:
        problem = f"agent {request.agent!r} is unknown to harness {harness.version()}; it knows {', '.join(known)}"
    elif request.backend in WITHOUT_CONTAINERS and harness.is_upstreams_own(request.agent):
        problem = (
            f"agent {request.agent!r} works in containers, which execution: {request.backend} has none of; "
            f"use docker, modal or gcp"
        )
    elif request.agent_config is not None and not Path(request.agent_config).is_file():
        problem = f"the agent config {request.agent_config} is missing"
    elif request.redis_url is None and (request.mode == "team" or (request.mode == "coop" and request.messaging)):
        problem = "agents that talk need a Redis, and none is named"
    else:
        return
    raise InfrastructureError("configuration", problem)


def _see_to_git(request: ChildRequest) -> None:
    if request.backend == "docker" and request.git and request.mode != "solo":
        from cooperbench_assets.execution.sandboxes.docker.git_server import own_git_server
        from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions

        own_git_server(DockerOptions.read(request.sandbox))


def _agents_function(mode: str) -> Callable[..., Any]:
    if mode not in ("solo", "coop", "team"):
        raise InfrastructureError("configuration", f"mode {mode!r} is unknown; there are solo, coop and team")
    try:
        module = importlib.import_module(f"cooperbench.runner.{mode}")
    except ModuleNotFoundError as error:
        raise InfrastructureError("configuration", f"harness {harness.version()} has no mode {mode}") from error
    found: Callable[..., Any] = getattr(module, f"execute_{mode}")
    return found


def _evaluate(request: ChildRequest, report: Report, slot_fd: int | None) -> None:
    evaluation = importlib.import_module("cooperbench.eval.evaluate")
    own = open_backend(request, slot_fd)
    report.isolation = request.backend if own is None else own.isolation
    _watch(request, own)
    log_dir = _log_dir(request)
    if not (log_dir / "result.json").is_file():
        raise InfrastructureError("configuration", f"there is nothing to evaluate: {log_dir}/result.json is missing")
    run_info = {
        "repo": request.repo,
        "task_id": request.task_id,
        "features": list(request.features),
        "log_dir": str(log_dir),
        "setting": request.mode,
    }
    arguments = {"run_info": run_info, "force": True, "backend": request.backend, "dataset_dir": request.dataset}
    _call(evaluation._evaluate_single, arguments, frozenset({"dataset_dir"}), request)


def _log_dir(request: ChildRequest) -> Path:
    """The pair's folder in the log tree below staging."""
    a, b = request.features
    return Path("logs", request.run_name, request.mode, request.repo, str(request.task_id), f"f{a}_f{b}")


def _watch(request: ChildRequest, own: Backend | None) -> None:
    """Have upstream's functions use a backend that says what it is doing: ours, or upstream's of the same name."""
    # Upstream's functions take a backend by its name alone, and have no argument for one that is made already. This is
    # the function by which they look it up; without it a child ends with AttributeError, and no test is run unseen.
    module: Any = importlib.import_module("cooperbench.eval.sandbox")
    upstreams = module.get_backend
    progress = Progress(Path(request.staging) / PROGRESS)
    seconds = request.sandbox.get("test_timeout_seconds") or 600

    def get_backend(name: str = "docker") -> Watched:
        if own is not None:
            return Watched(own, progress)
        return Watched(upstreams(name), progress, request.backend, seconds)

    module.get_backend = get_backend


def _call(
    function: Callable[..., Any], arguments: dict[str, Any], droppable: frozenset[str], request: ChildRequest
) -> None:
    fitting = fit(function, arguments, droppable)
    if "dataset_dir" not in fitting:
        Path("dataset").symlink_to(request.dataset)
    function(**fitting)


def _named(error: BaseException) -> str:
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _take_signals() -> None:
    for number, handler in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGCHLD, signal.SIG_DFL),
    ):
        signal.signal(number, handler)
    # The server forks with SIGTERM held back, so that none is lost to its own handler.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _terminate(_number: int, _frame: FrameType | None) -> None:
    # Once: a second SIGTERM must not cut the clean-up short; SIGKILL follows anyway.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _die_by_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    # Python delivers it between two instructions; the kernel may take a moment.
    time.sleep(1)
