"""What two scripted agents say to each other, over the harness's own messaging.

What belongs here: the words, and sending and waiting for them. What does not: what follows from having talked
(``agents``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from .assignment import Submissions
from .chance import chance
from .endings import CoopEnding
from .session import Act, Session

_POLL_SECONDS = 0.002
_FILE = re.compile(r"^diff --git a/(\S+) ", re.MULTILINE)

Line = tuple[int, str]
"""Who speaks (agent 1 or 2), and what."""

Send = tuple[str, bool]
"""What is sent, and whether its sender waits for an answer."""


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
    return lines


def last_word(pair: str, seed: int, submissions: Submissions) -> str | None:
    """What the first agent says as it hands in, if anything; the second one reads it late, or never."""
    return f"Done: {submissions.title(1)}. I am submitting." if chance("update", pair, seed) < 0.35 else None


def reads_last_word(pair: str, seed: int) -> bool:
    """Whether the second agent waits for it before it hands in."""
    return chance("reads", pair, seed) < 0.5


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


class Conversation:
    """One agent's part in a conversation: its own lines, each when what comes before it was heard."""

    def __init__(
        self, box: Any, agents: Sequence[str], me: int, lines: Sequence[Line], patience_seconds: float
    ) -> None:
        """Wait for the other agent to be there, at most `patience_seconds`, as long as for all its lines together."""
        self.box, self.me, self.peer = box, me, agents[2 - me]
        self.sent: list[dict[str, Any]] = []
        self._ahead = list(lines)
        self._deadline = time.monotonic() + patience_seconds
        self._lost = not _present(box, self.peer, self._deadline)

    @property
    def complete(self) -> bool:
        """Everything was said and heard."""
        return not self._lost and not self._ahead

    @property
    def silent(self) -> bool:
        """Nothing more can be said or heard."""
        return self._lost or not self._ahead

    @property
    def speaks(self) -> bool:
        """The next line is this agent's."""
        return not self.silent and self._ahead[0][0] == self.me

    def heard(self) -> list[dict[str, Any]]:
        """What has arrived since."""
        found: list[dict[str, Any]] = self.box.receive()
        for _ in found:
            if self._ahead and self._ahead[0][0] != self.me:
                self._ahead.pop(0)
        return found

    def wait(self) -> list[dict[str, Any]]:
        """What arrives next; nothing if the other agent is gone, or patience is."""
        found: list[dict[str, Any]] = []
        while not found:
            # Asked in this order: what the other one sent before it left is still read.
            gone = self.box.has_exited(self.peer)
            found = self.heard()
            if not found and (gone or time.monotonic() > self._deadline):
                self._lost = True
                break
            if not found:
                time.sleep(_POLL_SECONDS)
        return found

    def own(self, *, everything: bool) -> list[Send]:
        """The lines that are this agent's turn, or all that it has left: text, and whether it waits for an answer."""
        found: list[Send] = []
        for (speaker, text), (following, _) in pairwise([*self._ahead, (self.me, "")]):
            if speaker == self.me:
                found.append((text, following != self.me and (everything or text.endswith("?"))))
            elif not everything:
                break
        return found

    def say(self, text: str) -> bool:
        """Send a text; whether somebody takes it."""
        if self._ahead and self._ahead[0] == (self.me, text):
            self._ahead.pop(0)
        now = time.time()  # Before it can be read.
        if not self.box.send(self.peer, text):
            self._lost = True
            return False
        self.sent.append({"to": self.peer, "message": text, "timestamp": now})
        return True

    def wait_until_taken(self) -> None:
        """Wait until the other agent has taken everything that was sent."""
        inbox = f"{self.box._prefix}{self.peer}:inbox"
        while self.box._client.llen(inbox) and not self.box.has_exited(self.peer) and time.monotonic() < self._deadline:
            time.sleep(_POLL_SECONDS)

    def linger(self) -> None:
        """Wait until something has arrived, and leave it unread."""
        while not (
            self._lost or self.box.peek() or self.box.has_exited(self.peer) or time.monotonic() > self._deadline
        ):
            time.sleep(_POLL_SECONDS)


def _present(box: Any, peer: str, deadline: float) -> bool:
    """Wait until the other agent has opened its mailbox: doing so empties it, and what was sent before is lost."""
    while not box._client.exists(box._alive_key(peer)):
        if box.has_exited(peer) or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def explore(session: Session, looking: Sequence[Act], talk: Conversation | None) -> None:
    """Look around and talk; with the last of these steps the conversation is over, in one way or the other."""
    for place, act in enumerate(looking):
        last = place == len(looking) - 1
        heard = [] if talk is None or talk.silent else talk.heard()
        while talk is not None and last and not (talk.speaks or talk.silent):
            heard += talk.wait()
        session.hear(heard)
        if talk is not None and talk.speaks:
            _speak(session, "I tell the other agent.", talk, talk.own(everything=last))
        else:
            session.act(act)


def finish(session: Session, tail: Sequence[Act], talk: Conversation | None, word: str | None, *, late: bool) -> None:
    """Do the last steps, without an eye on the mailbox; the first agent has a last word as it hands in.

    Args:
        session: The agent's work.
        tail: The steps.
        talk: Its conversation.
        word: What the first agent says at last.
        late: Whether the second one waits for that before its last step.
    """
    for place, act in enumerate(tail):
        if talk is None or word is None or not talk.complete or place < len(tail) - 1:
            session.act(act)
        elif talk.me == 1:
            # Else the other one might take it together with what it waits for.
            talk.wait_until_taken()
            _speak(session, act[0], talk, [(word, False)], act)
        else:
            session.hear(talk.wait() if late else [])
            session.act(act)


def _speak(session: Session, thought: str, talk: Conversation, lines: Sequence[Send], act: Act | None = None) -> None:
    """A step that sends, and does something after that; it prints what the harness does."""
    sends = [f"send_message {'--wait ' if waits else ''}{talk.peer} <<'MSG'\n{text}\nMSG" for text, waits in lines]
    session.reply(thought, "\n".join([*sends, *([] if act is None else [act[1]])]))
    printed, code = [], 0
    for text, waits in lines:
        if not talk.say(text):
            printed.append(f"{talk.peer} has already completed their work and exited. Your message was NOT delivered.")
            code = 1
            break
        replies = talk.wait() if waits else []
        answers = "".join(f"\n\n[Reply from {one['from']}]: {one['content']}" for one in replies)
        printed.append(f"Message sent to {talk.peer}{answers}")
    session.output("\n".join([*printed, *([] if act is None else [act[2]])]), code)
