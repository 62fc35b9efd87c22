"""The connection to a Docker engine: opening it, calling it, and saying what went wrong in our families' words.

What belongs here: one place where the SDK's errors become `InfrastructureError`. What does not: what is asked of the
engine. Standard library and the Docker SDK only.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import RequestException, Timeout
from urllib3.exceptions import HTTPError

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.contexts import resolved

ANSWER_SECONDS = 20
"""How long an engine may take to say that it is there."""

CALL_SECONDS = 120
"""How long one call may take; an engine that starts many containers is slow to answer."""

TRIES = 3
PAUSE_SECONDS = 1.0
"""Before the second try of a call; doubled before each further one."""

TROUBLE = (DockerException, RequestException, HTTPError, HTTPException, OSError)
"""What the SDK lets out when a call fails; it does not wrap its transport's errors."""

T = TypeVar("T")

_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_IMAGE = re.compile(
    r"no such image|manifest (?:unknown|for .* not found)|pull access denied|repository .* not found", re.IGNORECASE
)
_DEAD = re.compile(
    r"no such container|is not running|cannot exec in a stopped|is dead or marked for removal", re.IGNORECASE
)
_BAD_LIMIT = re.compile(r"(?:memory|cpus?|pids?)\b.*\b(?:limit|range|available|less than|minimum)", re.IGNORECASE)
_LOCAL = "unix:///var/run/docker.sock" if sys.platform != "win32" else ""
_OVERLOADED = frozenset({429, 502, 503, 504})


class Engine:
    """An engine that has answered. One connection belongs to one process: open it after a fork."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.api = client.api

    @classmethod
    def connect(cls, environment: Mapping[str, str] | None = None) -> Engine:
        """The engine that the docker command line means (`DOCKER_HOST`, a context), else the local one.

        Raises:
            InfrastructureError: family ``engine``, if none answers.
        """
        given = resolved(os.environ if environment is None else environment)
        try:
            _knock(given.get("DOCKER_HOST") or _LOCAL)
            client = docker.from_env(timeout=ANSWER_SECONDS, environment=given)
        except TROUBLE as error:
            raise InfrastructureError(
                "engine", f"no Docker engine answers: {innermost(error)}; start it, or set DOCKER_HOST"
            ) from error
        client.api.timeout = CALL_SECONDS
        return cls(client)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_local(self) -> bool:
        """Whether it is reached over a socket of this machine, so that it may see this machine's files."""
        return str(self.api.base_url).startswith("http+docker:")

    def identity(self) -> str:
        """What tells it from every other engine, now and after a restart.

        Raises:
            InfrastructureError: family ``engine``, if it cannot be asked.
        """
        said = self.call("ask for its id", self.client.info)
        return identity_of(said, self.call("ask for its version", self.client.version))

    def answers(self) -> bool:
        """Whether it is still there."""
        patience = self.api.timeout
        self.api.timeout = ANSWER_SECONDS
        try:
            return bool(self.client.ping())
        except TROUBLE:
            return False
        finally:
            self.api.timeout = patience

    def call(
        self,
        doing: str,
        function: Callable[..., T],
        *args: Any,
        tries: int = TRIES,
        family: str = "engine",
        **kwargs: Any,
    ) -> T:
        """Call the engine; again, after a pause, where it was too busy to answer.

        Args:
            doing: What is done, for the error: "start the container".
            function: The SDK's function. It must do no harm if it is done twice, or `tries` be 1.
            args: Its arguments.
            tries: How often at most.
            family: The family where the error names none itself.
            kwargs: Its arguments.

        Raises:
            InfrastructureError: of the family that the last error belongs to.
        """
        for n in range(1, tries):
            try:
                return function(*args, **kwargs)
            except TROUBLE as error:
                if not is_passing(error):
                    raise translated(error, doing, family) from error
            time.sleep(PAUSE_SECONDS * 2 ** (n - 1))
        try:
            return function(*args, **kwargs)
        except TROUBLE as error:
            raise translated(error, doing, family) from error

    def gateway(self) -> str | None:
        """This machine's own address on the network that containers are on by default; None where it has none there.

        An engine on another machine, or in a virtual machine of its own (Docker Desktop), has its bridge there.
        """
        found = self.call("look at its network", self.api.inspect_network, "bridge")
        addresses = [_gateway(one) for one in (found.get("IPAM") or {}).get("Config") or []]
        address = next((one for one in addresses if one and ":" not in one), None)
        return address if self.is_local and address is not None and _is_ours(address) else None

    def data_root(self) -> Path | None:
        """The folder that images lie in, if it can be seen from here."""
        root = Path(str(self.call("ask for its data root", self.client.info).get("DockerRootDir") or "/nonexistent"))
        return root if self.is_local and root.is_dir() else None

    def free_disk(self) -> int | None:
        """Free bytes where images lie; None where that cannot be seen from here."""
        root = self.data_root()
        return None if root is None else shutil.disk_usage(root).free


def identity_of(info: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    """The id that an engine gives itself, or what is lasting of Podman, which makes up another id for each question.

    Args:
        info: The engine's answer to ``GET /info``.
        version: Its answer to ``GET /version``.
    """
    is_podman = any("podman" in str(part.get("Name")).lower() for part in version.get("Components") or ())
    if info.get("ID") and not is_podman:
        return str(info["ID"])
    return f"{info.get('Name')}:{info.get('DockerRootDir')}"


def _gateway(config: Mapping[str, str]) -> str | None:
    """The address that an engine has on a network; where it was not told one, it takes the first."""
    if config.get("Gateway") or not config.get("Subnet"):
        return config.get("Gateway")
    return str(next(ipaddress.ip_network(config["Subnet"]).hosts()))


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine, so that a server can listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
    return True


def _knock(host: str) -> None:
    """Connect to a local socket and hang up: the SDK would leave one that does not answer open."""
    if host.startswith("unix://") and hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(ANSWER_SECONDS)
            knocking.connect("/" + host.removeprefix("unix://").lstrip("/"))


def is_passing(error: BaseException) -> bool:
    """Whether the same call may well succeed a moment later: the engine was busy, or the connection was cut."""
    if isinstance(error, APIError):
        return error.response is not None and error.response.status_code in _OVERLOADED
    if isinstance(error, Timeout | RequestsConnectionError | HTTPError | HTTPException | OSError):
        return not isinstance(_root_of(error), FileNotFoundError | PermissionError)
    return False


def translated(error: BaseException, doing: str, family: str = "engine") -> InfrastructureError:
    """The typed error for one of the SDK's.

    Args:
        error: What was raised.
        doing: What was being done.
        family: The family where the error's text names none itself.
    """
    if isinstance(error, InfrastructureError):
        return error
    said = innermost(error)
    text = f"could not {doing}: {said}"
    if _NO_SPACE.search(said) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return InfrastructureError("disk", text)
    if isinstance(error, ImageNotFound) or _NO_IMAGE.search(said):
        return InfrastructureError("image_missing", text)
    if isinstance(error, NotFound) or _DEAD.search(said):
        return InfrastructureError("container_died", text)
    if isinstance(error, APIError) and error.response is not None and error.response.status_code == 400:
        return InfrastructureError("configuration" if _BAD_LIMIT.search(said) else family, text)
    if isinstance(error, APIError) and not is_passing(error):
        return InfrastructureError(family, text)
    return InfrastructureError("engine", text)


def innermost(error: BaseException) -> str:
    """The reason that the wrapping errors only repeat, in one line."""
    if isinstance(error, APIError) and error.explanation:
        return " ".join(str(error.explanation).split())
    root = _root_of(error)
    return " ".join(str(root).split()) or type(root).__name__


def _root_of(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
