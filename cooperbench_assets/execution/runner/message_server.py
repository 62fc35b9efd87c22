"""A Redis for agents that talk: the one that is named if it answers, else one inside this process.

What belongs here: finding or starting it. What does not: what is said over it; upstream keeps the pairs' messages
apart by names of its own.

The one inside this process listens on loopback, where containers cannot reach it; most agents talk from this machine.
On Docker's bridge every container of the machine would reach it: there it asks for a password of its launch.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.runner.redis_password_proxy import guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS: Final = 2.0
"""How long a named Redis may take to answer."""

ON_BRIDGE: Final = "docker-bridge"
"""In place of a Redis's URL: the one inside this process, on this machine's address on Docker's bridge and no other."""

_LOOPBACK: Final = "127.0.0.1"


@contextlib.contextmanager
def message_server(redis_url: str | None) -> Iterator[str]:
    """The URL of a Redis that answers, for as long as the context lasts.

    Args:
        redis_url: A Redis to use if it answers; or `ON_BRIDGE`, for one that containers reach, and programs of this
            machine as well.

    Raises:
        LaunchError: if none answers and none can be started.
    """
    if redis_url == ON_BRIDGE:
        address, password = bridge_address(), secrets.token_hex(16)
        with _embedded(None) as inner, guarded(address, _where(inner), password) as port:
            yield f"redis://:{password}@{address}:{port}"
        return
    if redis_url is not None and answers(redis_url):
        yield redis_url
        return
    with _embedded(redis_url) as url:
        yield url


def _where(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def bridge_address() -> str:
    """This machine's address on Docker's bridge, which containers reach and other machines do not.

    Raises:
        LaunchError: if there is none.
    """
    from cooperbench_assets.execution.sandboxes.docker.engine import Engine

    try:
        with Engine.connect() as engine:
            address = engine.gateway()
    except InfrastructureError as error:
        raise LaunchError(f"redis_url: {ON_BRIDGE}: {error.text}") from error
    if address is None:
        raise LaunchError(
            f"redis_url: {ON_BRIDGE}: this machine has no address on the engine's bridge (it runs elsewhere, or in a "
            "virtual machine of its own); start a Redis that containers reach, and name it in redis_url"
        )
    return address


def answers(redis_url: str) -> bool:
    """Whether a Redis at this URL answers a ping."""
    try:
        import redis
    except ImportError:
        return False
    try:
        client = redis.from_url(redis_url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=ANSWER_SECONDS)
    except ValueError as error:
        raise LaunchError(f"redis_url {redis_url!r} is no Redis URL: {error}; write redis://HOST:PORT") from error
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False


@contextlib.contextmanager
def _embedded(named: str | None) -> Iterator[str]:
    """A server of a library on a free port of loopback, in threads of this process."""
    try:
        from fakeredis import TcpFakeServer
    except ImportError as error:
        tried = f"the Redis at {named} does not answer" if named else "no redis_url is given"
        raise LaunchError(
            f"agents that talk need a Redis: {tried}, and the embedded one is not installed; "
            "start one and set redis_url, or install cooperbench-assets[harness]"
        ) from error
    server = TcpFakeServer((_LOOPBACK, 0))
    # A killed child's connection must not keep this process from ending.
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="redis", daemon=True)
    thread.start()
    try:
        yield f"redis://{_LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
