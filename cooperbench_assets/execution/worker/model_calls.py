"""What agents have asked of their model so far, and what it cost: counted as it happens, in a file that stays.

What belongs here: counting by agent in the child, through litellm's own callbacks, and writing the counts down at
once, because whoever is killed writes no result. What does not: agents that ask from inside their containers
(``agent_streams``), and what follows from the counts (``attempts.deadlines``).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from cooperbench_assets.execution.worker.deferred_import import once_imported
from cooperbench_assets.files import write_atomically

FILE = "calls.json"
"""File in the staging folder with the counts of every agent."""

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")

_agent: ContextVar[str] = ContextVar("agent", default="")
"""Which agent runs here; each has a thread of its own."""


@dataclass(slots=True)
class AgentCalls:
    """One agent's calls of its model. Times are seconds since 1970."""

    asked: int = 0
    replies: int = 0
    unpriced: int = 0
    """Replies whose cost nothing tells."""

    cost_usd: float = 0.0
    """Of the other replies."""

    tokens: dict[str, int] = field(default_factory=dict)
    """By upstream's names, as far as replies tell them."""

    last_reply: float | None = None
    waiting: float | None = None
    """When it asked first of what no reply has come to; None while it does something else, such as a command."""

    longest_wait: float = 0.0
    """Seconds that a reply took at most."""

    problem: str | None = None
    """Kind of the last error that came in place of a reply."""

    status: str | None = None
    """How upstream's adapter says that it ended; None while it runs."""

    error: str | None = None
    result_cost: float | None = None
    """USD, as upstream's adapter says."""


class Calls:
    """The counts of all agents of a child. Safe in every thread."""

    def __init__(self, folder: Path, clean: Callable[[str], str]) -> None:
        """Begin with nothing asked.

        Args:
            folder: Where the file goes, and what agents hand in.
            clean: Takes out of a text what must be in no file.
        """
        self._folder = folder.absolute()
        self._clean = clean
        self._lock = threading.Lock()
        self._agents: dict[str, AgentCalls] = {}
        self._open: dict[str, str] = {}
        with self._changed():
            pass

    def begin(self, agent: str) -> None:
        """An agent starts."""
        with self._changed():
            self._agents.setdefault(agent, AgentCalls())

    def asked(self, agent: str, call: str | None = None) -> None:
        """An agent asks its model something, or asks again."""
        with self._changed():
            one = self._agents.setdefault(agent, AgentCalls())
            one.asked += 1
            one.waiting = one.waiting or time.time()
            if call is not None:
                self._open[call] = agent

    def replied(
        self,
        agent: str,
        call: str | None = None,
        cost: float | None = None,
        tokens: Mapping[str, int] | None = None,
        *,
        goes_on: bool = False,
    ) -> None:
        """The model answered.

        Args:
            agent: Whom.
            call: Which call, where that is known.
            cost: USD; None, or 0 for what is not free, where the price is not known.
            tokens: By upstream's names.
            goes_on: There is more to come before the agent does anything else.
        """
        with self._changed():
            self._open.pop(call or "", None)
            one, now = self._agents.setdefault(agent, AgentCalls()), time.time()
            one.replies += 1
            one.unpriced += not cost
            one.cost_usd += cost or 0.0
            for name, count in (tokens or {}).items():
                one.tokens[name] = one.tokens.get(name, 0) + count
            one.longest_wait = max(one.longest_wait, now - (one.waiting or now))
            one.last_reply, one.problem = now, None
            one.waiting = now if goes_on or agent in self._open.values() else None

    def failed(self, agent: str, problem: str, call: str | None = None) -> None:
        """An error came in place of a reply; the agent waits for one all the same."""
        with self._changed():
            self._open.pop(call or "", None)
            one = self._agents.setdefault(agent, AgentCalls())
            one.waiting = one.waiting or time.time()
            one.problem = problem

    def ended(self, agent: str, result: Any) -> None:
        """An agent's adapter returned, or raised: what it handed in is kept, for another agent may be killed."""
        lost = None if isinstance(result, Exception) else self._keep(f"{agent}.patch", str(result.patch or ""))
        with self._changed():
            one = self._agents.setdefault(agent, AgentCalls())
            one.waiting = None
            if isinstance(result, Exception):
                one.status, one.error = "Error", self._clean(str(result))
                return
            one.status, one.result_cost = "Error" if lost else str(result.status), float(result.cost or 0.0)
            one.error = lost or (None if result.error is None else self._clean(str(result.error)))
            told = {name: int(getattr(result, name, 0) or 0) for name in TOKENS}
            one.tokens |= {name: count for name, count in told.items() if count}

    def _keep(self, name: str, text: str) -> str | None:
        """Keep what an agent handed in; the error that stands for it where that fails."""
        try:
            write_atomically(self._folder / name, text.encode(errors="surrogateescape"), durable=False)
        except OSError as error:
            return f"[infra:disk] what the agent handed in could not be kept: {error.strerror}"
        return None

    def is_over(self, agent: str) -> bool:
        """Whether an agent has ended."""
        with self._lock:
            return agent in self._agents and self._agents[agent].status is not None

    def whose(self, call: str | None) -> str:
        """The agent that made a call, or that runs here; the only one there is, where neither is known."""
        with self._lock:
            known = self._open.get(call or "") or _agent.get()
            return known or (next(iter(self._agents)) if len(self._agents) == 1 else "unknown")

    @contextlib.contextmanager
    def _changed(self) -> Iterator[None]:
        with self._lock:
            yield
            content = {name: asdict(one) for name, one in self._agents.items()}
            with contextlib.suppress(OSError):
                # A full disk is no reason to end an agent.
                write_atomically(self._folder / FILE, json.dumps({"agents": content}).encode(), durable=False)


def watch_runners(runner: ModuleType, calls: Calls) -> None:
    """Hear of each agent's start and end.

    Args:
        runner: Upstream's module for a mode; it looks its agents up by a name of its own.
        calls: Where it is noted.
    """
    find: Callable[..., Any] | None = getattr(runner, "get_runner", None)
    if find is not None:
        vars(runner)["get_runner"] = lambda *args, **kwargs: _Watched(find(*args, **kwargs), calls)


class _Watched:
    """An agent's adapter whose start and end are noted."""

    def __init__(self, adapter: Any, calls: Calls) -> None:
        self._adapter = adapter
        self._calls = calls

    def run(self, *args: Any, **kwargs: Any) -> Any:
        agent = str(kwargs.get("agent_id") or "agent")
        before = _agent.set(agent)
        self._calls.begin(agent)
        try:
            result = self._adapter.run(*args, **kwargs)
        except Exception as error:
            self._calls.ended(agent, error)
            raise
        finally:
            _agent.reset(before)
        self._calls.ended(agent, result)
        return result


def present_agent() -> str:
    """The agent that runs in this thread; empty where none does."""
    return _agent.get()


def listen(calls: Calls) -> None:
    """Have litellm tell of every call in this process: also of asynchronous and streamed ones.

    It tells of a call's beginning and of its failure in the thread that makes it, and of its success in one of its
    own, a moment later. Agents that do without litellm need not wait for its import, which takes seconds.
    """
    once_imported("litellm", lambda: _listen(calls))


def _listen(calls: Calls) -> None:
    try:
        litellm: Any = importlib.import_module("litellm")
        base: Any = importlib.import_module("litellm.integrations.custom_logger").CustomLogger
    except (ImportError, AttributeError):
        return
    heard = _Listener(calls)

    async def success(_logger: Any, *event: Any, **named: Any) -> None:
        heard.success(*event, **named)

    async def failure(_logger: Any, *event: Any, **named: Any) -> None:
        heard.failure(*event, **named)

    methods = {
        "log_pre_api_call": lambda _logger, *event, **named: heard.begin(*event, **named),
        "log_success_event": lambda _logger, *event, **named: heard.success(*event, **named),
        "log_failure_event": lambda _logger, *event, **named: heard.failure(*event, **named),
        "async_log_success_event": success,
        "async_log_failure_event": failure,
    }
    # litellm calls only what is derived from its own class.
    litellm.callbacks.append(type("CallsListener", (base,), methods)())


class _Listener:
    """litellm's events as counts. Some versions tell of one end twice."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._ends: set[str] = set()

    def begin(self, model: str, messages: Any, kwargs: Mapping[str, Any]) -> None:
        call = kwargs.get("litellm_call_id")
        self._ends.discard(call or "")
        self._calls.asked(self._calls.whose(None), call)

    def success(self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        call = kwargs.get("litellm_call_id")
        if self._is_new(call):
            usage = tokens_of(getattr(response_obj, "usage", None))
            self._calls.replied(self._calls.whose(call), call, kwargs.get("response_cost"), usage)

    def failure(self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        call = kwargs.get("litellm_call_id")
        if self._is_new(call):
            self._calls.failed(self._calls.whose(call), type(kwargs.get("exception")).__name__, call)

    def _is_new(self, call: str | None) -> bool:
        if call is None:
            return True
        known = call in self._ends
        self._ends.add(call)
        return not known


def tokens_of(usage: Any) -> dict[str, int]:
    """An OpenAI-shaped usage by upstream's names; what it does not tell is left out."""
    details = getattr(usage, "prompt_tokens_details", None)
    told = {
        "input_tokens": getattr(usage, "prompt_tokens", None),
        "output_tokens": getattr(usage, "completion_tokens", None),
        "cache_read_tokens": getattr(details, "cached_tokens", None),
        "cache_write_tokens": getattr(details, "cache_creation_tokens", None),
    }
    return {name: count for name, count in told.items() if isinstance(count, int)}
