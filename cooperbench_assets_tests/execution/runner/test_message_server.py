from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.runner.message_server import answers, message_server
from cooperbench_assets.execution.runner.redis_password_proxy import guarded

TALK = """
import sys, redis
client = redis.from_url(sys.argv[1])
client.rpush("run:1:inbox", sys.argv[2])
"""


def test_two_processes_talk_over_the_embedded_server() -> None:
    with message_server(None) as url:
        for word in ("one", "two"):
            subprocess.run([sys.executable, "-c", TALK, url, word], check=True)
        client = redis.from_url(url)
        assert client.lrange("run:1:inbox", 0, -1) == [b"one", b"two"]
        client.close()
    assert not answers(url)


def test_a_server_that_is_named_and_answers_is_used() -> None:
    with message_server(None) as url, message_server(url) as again:
        assert again == url


def test_a_named_server_that_does_not_answer_is_replaced_by_the_embedded_one() -> None:
    dead = "redis://127.0.0.1:1"
    with message_server(dead) as url:
        assert url != dead
        assert answers(url)


def test_the_server_ends_although_a_client_never_says_goodbye() -> None:
    hang = (
        "import redis, sys, time; c = redis.from_url(sys.argv[1]); c.ping(); print('on', flush=True); time.sleep(999)"
    )
    with message_server(None) as url:
        client = subprocess.Popen([sys.executable, "-c", hang, url], stdout=subprocess.PIPE)
        assert client.stdout is not None
        assert client.stdout.readline() == b"on\n"
    assert client.poll() is None
    client.kill()
    client.wait()
    client.stdout.close()


def test_what_is_no_redis_address_is_an_error_that_says_so() -> None:
    with pytest.raises(LaunchError, match=r"no Redis URL.*redis://HOST:PORT"):
        answers("http://localhost:6379")


@pytest.fixture
def door() -> Iterator[tuple[str, int]]:
    """A guarded server that holds one message, as its address and its port."""
    with message_server(None) as inner:
        client = redis.from_url(inner)
        client.set("message", "secret")
        client.close()
        where = urlsplit(inner)
        with guarded("127.0.0.1", (str(where.hostname), int(where.port or 0)), "right") as port:
            yield "127.0.0.1", port


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_with_the_password_is_served_in_either_protocol(door: tuple[str, int], protocol: int) -> None:
    client = redis.from_url(f"redis://:right@{door[0]}:{door[1]}", protocol=protocol)
    assert client.get("message") == b"secret"
    client.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET message\r\n",
        b"*2\r\n$3\r\nGET\r\n$7\r\nmessage\r\n",
        b"*1\r\n$7\r\nFLUSHDB\r\n",
        b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
        b"AUTH wrong\r\nGET message\r\n",
        b"*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$5\r\nwrong\r\n*2\r\n$3\r\nGET\r\n$7\r\nmessage\r\n",
        b"*1\r\n$99999999\r\n",
        b"*x\r\n",
        b"\r\n\r\nGET message\r\n",
    ],
)
def test_without_the_password_no_command_is_heard(door: tuple[str, int], sent: bytes) -> None:
    said = b""
    with socket.create_connection(door, 20) as stranger, contextlib.suppress(ConnectionResetError):
        stranger.sendall(sent)
        while piece := stranger.recv(4096):
            said += piece
    assert said in (b"", b"-NOAUTH Authentication required.\r\n", b"-WRONGPASS invalid username-password pair.\r\n")
    client = redis.from_url(f"redis://:right@{door[0]}:{door[1]}")
    assert client.get("message") == b"secret"
    client.close()
