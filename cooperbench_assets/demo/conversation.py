"""What two scripted agents say to each other, over the harness's own messaging.

What belongs here: the words, and sending and waiting for them. What does not: what follows from having talked
(``agents``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .assignment import Submissions
from .chance import chance
from .endings import CoopEnding

_POLL_SECONDS = 0.002
_FILE = re.compile(r"^diff --git a/(\S+) ", re.MULTILINE)

Line = tuple[int, str]
"""Who speaks (agent 1 or 2), and what."""


def script(pair: str, seed: int, ending: CoopEnding, submissions: Submissions, *, collide: bool) -> list[Line]:
    """The conversation about a pair, in order.

    Args:
        pair: The pair's name.
        seed: Number of the repetition.
        ending: What the agents agree on.
        submissions: What they work on.
        collide: Whether their work collides if they do not agree on anything.
    """
    files = [", ".join(_FILE.findall(submissions.one(agent, "right"))) for agent in (1, 2)]
    asks = " Do you change the same lines?" if collide or chance("asks", pair, seed) < 0.3 else ""
    lines: list[Line] = [(1, f"My plan: {submissions.title(1)}. I will change {files[0]}.{asks}")]
    mine = f"I am on {submissions.title(2)} and will change {files[1]}."
    if not collide:
        lines.append((2, f"{mine} We do not touch the same lines, go ahead."))
    elif ending.manner == "aside":
        lines.append((2, f"{mine} That is where you work, so I put my lines in another place of the file."))
        lines.append((1, "Thanks, then I leave mine where they are."))
    elif ending.manner == "joint":
        lines.append((2, f"{mine} We collide there. What shall we do?"))
        lines.append((1, "I will put both features into my patch, so that one of us has it all."))
    elif ending.manner == "same":
        lines.append((2, f"{mine} We collide there. Shall we both submit one patch with both features?"))
        lines += [(1, "Yes, the same patch from both of us."), (2, "Done, mine is ready.")]
    else:
        lines.append((2, mine))
    if chance("update", pair, seed) < 0.35:
        lines.append((1, f"Done: {submissions.title(1)}. I am submitting."))
    return lines


@dataclass(slots=True)
class Talk:
    """What one agent sent and heard."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False
    """Whether everything that the other one had to say has arrived."""


@contextmanager
def mailbox(agent_id: str, agents: Sequence[str], url: str) -> Iterator[Any]:
    """The harness's messaging of one agent; others learn when it ends, however it ends."""
    from cooperbench.agents.mini_swe_agent_v2.connectors.messaging import MessagingConnector

    connector = MessagingConnector(agent_id=agent_id, agents=list(agents), url=url)
    try:
        yield connector
    finally:
        connector.mark_exited()
        connector._client.close()


def talk(box: Any, agents: Sequence[str], me: int, lines: Sequence[Line], patience_seconds: float) -> Talk:
    """Go through a conversation: say one's own lines, and wait for each of the other's.

    Waiting ends when the other agent is gone, or after `patience_seconds` in all.
    """
    done, peer, waiting = Talk(), agents[2 - me], list[dict[str, Any]]()
    deadline = time.monotonic() + patience_seconds
    if not _present(box, peer, deadline):
        return done
    for speaker, text in lines:
        if speaker == me:
            if not box.send(peer, text):
                return done
            done.sent.append({"to": peer, "message": text, "timestamp": time.time()})
        elif _arrived(box, peer, waiting, deadline):
            done.heard.append(waiting.pop(0))
        else:
            return done
    done.complete = True
    return done


def _present(box: Any, peer: str, deadline: float) -> bool:
    """Wait until the other agent has opened its mailbox: doing so empties it, and what was sent before is lost."""
    while not box._client.exists(box._alive_key(peer)):
        if box.has_exited(peer) or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _arrived(box: Any, peer: str, waiting: list[dict[str, Any]], deadline: float) -> bool:
    """Wait until a message is there; whether one is."""
    while not waiting:
        # Asked in this order: what the other one sent before it left is still read.
        gone = box.has_exited(peer)
        waiting += box.receive()
        if not waiting and (gone or time.monotonic() > deadline):
            return False
        if not waiting:
            time.sleep(_POLL_SECONDS)
    return True
