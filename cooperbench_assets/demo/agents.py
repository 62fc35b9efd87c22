"""The demo's scripted agents, as the harness's external agent ``scripted``. No model is called.

What belongs here: making an ending come about through the harness's own interface. What does not: which ending it is
(``endings``, ``injected_faults``). Imported by the harness:
``COOPERBENCH_EXTERNAL_AGENTS=cooperbench_assets.demo.agents``, with nothing but the standard library and the harness at
hand.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cooperbench.agents import AgentResult
from cooperbench.agents.registry import register

from . import DEMO_AGENT
from .assignment import Assignment, Submissions
from .conversation import Conversation, explore, finish, last_word, mailbox, reads_last_word, script
from .difficulty import Traits
from .endings import CoopEnding, coop_ending, solo_ending
from .injected_faults import InjectedFault, agent_fault
from .session import SYSTEM, Act, Session, finishing
from .usage import Usage, usage


class InjectedFaultError(RuntimeError):
    """Scripted infrastructure failed in a way that an agent cannot report in its result."""


@dataclass(slots=True)
class _Work:
    """What came of an agent's work."""

    patch: str
    sent: list[dict[str, Any]] = field(default_factory=list)


@register(DEMO_AGENT)
class ScriptedAgent:
    """Does what `endings` and `injected_faults` say, deterministic by pair, setting, seed and number of the try."""

    def run(
        self,
        task: str,
        image: str,
        *,
        agent_id: str = "agent",
        agents: list[str] | None = None,
        comm_url: str | None = None,
        messaging_enabled: bool = True,
        config: dict[str, Any] | None = None,
        log_dir: str | None = None,
        **_rest: Any,
    ) -> AgentResult:
        """Work on a task, as the harness's ``AgentRunner`` protocol says.

        Raises:
            AssignmentError: if the pair, the dataset or the config cannot be made out.
            InjectedFaultError: if a scripted failure of the infrastructure is one that agents die of.
        """
        names = agents or [agent_id]
        url = comm_url if messaging_enabled and len(names) > 1 else None
        job = Assignment.read(log_dir, talking=url is not None, config=config)
        number = names.index(agent_id) + 1
        traits = job.traits()
        fault = agent_fault(job.pair, job.setting, job.seed, job.attempt, job.options.injected_faults)
        if fault is not None and fault.agent == number:
            if url is not None:
                # The other agent learns that this one is gone, and need not wait for it.
                with mailbox(agent_id, names, url):
                    pass
            return _fail(fault, job, traits, agent_id, image)
        status = _status(job, traits, number)
        used = _used(job, traits, number, limited=status == "LimitsExceeded")
        session = Session(task, used, job.options.pace_seconds)
        if job.setting == "solo":
            work = _solo(job, traits, session, used.steps)
        else:
            work = _coop(job, traits, session, used.steps, number, names, url)
        return AgentResult(
            status=status,
            patch=work.patch,
            cost=used.cost,
            steps=used.steps,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=used.cache_read_tokens,
            messages=session.messages,
            sent_messages=work.sent,
        )


def _status(job: Assignment, traits: Traits, me: int) -> str:
    if job.setting == "solo":
        return solo_ending(job.pair, job.seed, traits).status
    return coop_ending(job.pair, job.setting, job.seed, traits).statuses[me - 1]


def _solo(job: Assignment, traits: Traits, session: Session, steps: int) -> _Work:
    ending, submissions = solo_ending(job.pair, job.seed, traits), job.submissions()
    patch = submissions.both(ending.works)
    tail = _tail(patch, f"{submissions.title(1)} and {submissions.title(2)}", steps, ending.status)
    for act in [*islice(job.checkout().looking(patch), steps - len(tail)), *tail]:
        session.act(act)
    session.end(ending.status)
    return _Work(patch)


def _coop(
    job: Assignment, traits: Traits, session: Session, steps: int, me: int, names: list[str], url: str | None
) -> _Work:
    ending, submissions = coop_ending(job.pair, job.setting, job.seed, traits), job.submissions()
    with ExitStack() as stack:
        talk, word = None, None
        if url is not None:
            lines = script(job.pair, job.seed, ending, submissions, collide=traits.conflict)
            box = stack.enter_context(mailbox(names[me - 1], names, url))
            talk = Conversation(box, names, me, lines, job.options.patience_seconds)
            word = last_word(job.pair, job.seed, submissions)
        own = submissions.one(me, ending.works[me - 1])
        status, title = ending.statuses[me - 1], submissions.title(me)
        looking = islice(job.checkout().looking(own), steps - len(_tail(own, title, steps, status)))
        explore(session, list(looking), talk)
        # Who has not talked cannot have agreed on anything.
        patch = _coop_patch(ending, submissions, me) if talk is None or talk.complete else own
        finish(session, _tail(patch, title, steps, status), talk, word, late=reads_last_word(job.pair, job.seed))
        session.end(status)
        if talk is not None and word is not None and me == 2:
            talk.linger()
    return _Work(patch, [] if talk is None else talk.sent)


def _tail(patch: str, title: str, steps: int, status: str) -> list[Act]:
    """The last steps of an agent, with room before them to look around."""
    if not patch:
        return [] if status == "LimitsExceeded" else finishing("", title, 2)[-1:]
    return finishing(patch, title, max(1, min(5, steps - 1)))[: -1 if status == "LimitsExceeded" else None]


def _coop_patch(ending: CoopEnding, submissions: Submissions, me: int) -> str:
    """The patch of one of two agents that have agreed on a manner."""
    if ending.manner == "same" or (ending.manner == "joint" and me == 1):
        return submissions.both(ending.works)
    return submissions.one(me, ending.works[me - 1], aside=ending.manner == "aside" and me == 2)


def _used(job: Assignment, traits: Traits, number: int, *, limited: bool) -> Usage:
    share = 1.0 if job.setting == "solo" else 0.5
    return usage(traits, share, job.pair, job.setting, job.seed, number, limited=limited)


def _fail(fault: InjectedFault, job: Assignment, traits: Traits, agent_id: str, image: str) -> AgentResult:
    """Fail as the fault says: by an exception, or by a result that has an error or does not."""
    text = fault.text.replace("{image}", image)
    if fault.telling == "raised":
        raise InjectedFaultError(text)
    used = _used(job, traits, fault.agent, limited=False)
    steps = max(1, used.steps // 3)
    part = steps / used.steps
    if fault.telling == "silent":
        _write_stream(job.log_dir / f"{agent_id}_stream.jsonl", fault, text, steps)
    return AgentResult(
        status="Error",
        patch="",
        cost=round(used.cost * part, 6),
        steps=steps,
        input_tokens=round(used.input_tokens * part),
        output_tokens=round(used.output_tokens * part),
        cache_read_tokens=round(used.cache_read_tokens * part),
        messages=[{"role": "system", "content": SYSTEM}],
        error=None if fault.telling == "silent" else text,
    )


def _write_stream(path: Path, fault: InjectedFault, text: str, steps: int) -> None:
    """The event stream of an agent that died, which is the only place that says why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events = [
        {"type": "system", "subtype": "init", "model": "scripted/demo"},
        {
            "type": "result",
            "subtype": "success",
            "is_error": True,
            "api_error_status": fault.status,
            "num_turns": steps,
            "result": text,
        },
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
