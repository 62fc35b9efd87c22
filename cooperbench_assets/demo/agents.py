"""The demo's scripted agents, as the harness's external agent ``scripted``. No model is called.

What belongs here: making an ending come about through the harness's own interface. What does not: which ending it is
(``endings``, ``injected_faults``). Imported by the harness:
``COOPERBENCH_EXTERNAL_AGENTS=cooperbench_assets.demo.agents``, with nothing but the standard library and the harness at
hand.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cooperbench.agents import AgentResult
from cooperbench.agents.registry import register

from . import DEMO_AGENT
from .assignment import Assignment, Submissions
from .conversation import Talk, mailbox, script, talk
from .difficulty import Traits
from .endings import CoopEnding, coop_ending, solo_ending
from .injected_faults import InjectedFault, agent_fault
from .usage import Usage, usage

_SYSTEM = "This is a scripted agent of the demo of cooperbench-assets. No model is behind it; its results are made up."


class InjectedFaultError(RuntimeError):
    """Scripted infrastructure failed in a way that an agent cannot report in its result."""


@dataclass(slots=True)
class _Work:
    """What an agent did, as far as it came."""

    patch: str
    status: str
    talk: Talk = field(default_factory=Talk)


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
        submissions = job.submissions()
        if job.setting == "solo":
            work = _solo(job, traits, submissions)
        else:
            work = _coop(job, traits, submissions, number, names, url)
        used = _used(job, traits, number, limited=work.status == "LimitsExceeded")
        time.sleep(used.steps * job.options.pace_seconds)
        return AgentResult(
            status=work.status,
            patch=work.patch,
            cost=used.cost,
            steps=used.steps,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=used.cache_read_tokens,
            messages=_trajectory(task, work, names, used.steps),
            sent_messages=work.talk.sent,
        )


def _solo(job: Assignment, traits: Traits, submissions: Submissions) -> _Work:
    ending = solo_ending(job.pair, job.seed, traits)
    return _Work(submissions.both(ending.works), ending.status)


def _coop(
    job: Assignment, traits: Traits, submissions: Submissions, me: int, names: list[str], url: str | None
) -> _Work:
    ending = coop_ending(job.pair, job.setting, job.seed, traits)
    done = Talk()
    if url is not None:
        lines = script(job.pair, job.seed, ending, submissions, collide=traits.conflict)
        with mailbox(names[me - 1], names, url) as box:
            done = talk(box, names, me, lines, job.options.patience_seconds)
    # Who has not talked cannot have agreed on anything.
    patch = _coop_patch(ending, submissions, me) if done.complete else submissions.one(me, ending.works[me - 1])
    return _Work(patch, ending.statuses[me - 1], done)


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
        messages=[{"role": "system", "content": _SYSTEM}],
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


def _trajectory(task: str, work: _Work, names: list[str], steps: int) -> list[dict[str, Any]]:
    """What the agent read, heard and did, as messages of a chat: one reply for every step that it says it made."""
    told = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": task}]
    heard = [
        {"role": "user", "content": f"[Message from {message['from']}]: {message['content']}"}
        for message in work.talk.heard
    ]
    alone = len(names) > 1 and not work.talk.complete
    did = f"I submit a patch of {len(work.patch.splitlines())} lines." if work.patch else "I have no patch to submit."
    said = "I have not talked to the other agent. " if alone else ""
    replies = ["I go on with my work."] * (steps - 1) + [said + did]
    for number, message in enumerate(work.talk.sent):
        # Spread over the work, the first one at once. The harness would read other quotes as a second message.
        place = number * max(1, (steps - 1) // len(work.talk.sent))
        command = f"send_message {message['to']} <<'MSG'\n{message['message']}\nMSG"
        if place < steps - 1:
            replies[place] = command
    return [*told, *heard, *({"role": "assistant", "content": reply} for reply in replies)]
