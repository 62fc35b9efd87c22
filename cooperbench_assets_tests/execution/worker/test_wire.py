"""Messages between the harness server and its parent: frames on a socket, with descriptors."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.worker import wire

if TYPE_CHECKING:
    from pathlib import Path

messages = st.lists(
    st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=40) | st.none(), max_size=4), max_size=6
)


@given(messages=messages, cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_messages_arrive_whole_however_they_are_cut(messages: list[dict[str, Any]], cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in messages:
            wire.send(ours, message)
        ours.close()
        stream = b""
        while piece := theirs.recv(2**16):
            stream += piece
    inbox, got, at = wire.Inbox(), [], 0
    for step in [*cuts, len(stream) + 1]:
        got += list(inbox.feed(stream[at : at + step]))
        at += step
    assert got == messages


@given(messages=messages)
def test_messages_are_received_one_by_one_until_the_other_side_is_gone(messages: list[dict[str, Any]]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in messages:
            wire.send(ours, message)
        ours.close()
        for message in messages:
            assert wire.receive(theirs) == (message, [])
        assert wire.receive(theirs) is None


def test_descriptors_stay_with_their_message(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    paths = [tmp_path / "a", tmp_path / "b"]
    with ours, theirs:
        wire.send(ours, {"n": 0})
        for n, path in enumerate(paths):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
            wire.send(ours, {"n": n + 1}, [descriptor])
            os.close(descriptor)
        assert wire.receive(theirs) == ({"n": 0}, [])
        for n, path in enumerate(paths):
            received = wire.receive(theirs)
            assert received is not None
            message, (descriptor,) = received
            assert message == {"n": n + 1}
            assert os.path.sameopenfile(descriptor, os.open(path, os.O_RDONLY))
            assert not os.get_inheritable(descriptor)
            os.close(descriptor)


def test_a_message_cut_short_is_the_end_of_the_other_side() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\0\0\0\x10{")
        ours.close()
        assert wire.receive(theirs) is None


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(wire.WireError):
        list(wire.Inbox().feed(b"HTTP/1.1 200 OK"))
