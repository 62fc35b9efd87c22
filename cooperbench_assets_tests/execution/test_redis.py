from __future__ import annotations

import subprocess
import sys
import time

import pytest
import redis

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.redis import answers, message_server

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


def test_the_server_ends_at_once_although_a_killed_client_never_said_goodbye() -> None:
    hang = "import redis, sys, time; c = redis.from_url(sys.argv[1]); c.ping(); print('on', flush=True); time.sleep(60)"
    with message_server(None) as url:
        client = subprocess.Popen([sys.executable, "-c", hang, url], stdout=subprocess.PIPE)
        assert client.stdout is not None
        assert client.stdout.readline() == b"on\n"
        began = time.monotonic()
    assert time.monotonic() - began < 2
    client.kill()
    client.wait()
    client.stdout.close()


def test_what_is_no_redis_address_is_an_error_that_says_so() -> None:
    with pytest.raises(LaunchError, match=r"no Redis URL.*redis://HOST:PORT"):
        answers("http://localhost:6379")
