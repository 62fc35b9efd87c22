"""The server of the pages: loopback only, for nobody but the pages themselves.

What belongs here: addresses, headers, who is answered. What does not: what is answered (``library``).

Data are JSON and never scripts: another web page can have a script of ours run, and cannot read an answer of ours.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cooperbench_assets.errors import UserError
from cooperbench_assets.viewer.library import NotThere
from cooperbench_assets.viewer.pages import POLICY, STATIC, TYPES, page_html

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cooperbench_assets.viewer.library import Library

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
HEADERS: Final = {
    "content-security-policy": f"{POLICY}; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
REPORT_POLICY: Final = (
    "sandbox allow-scripts allow-downloads allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'none'"
)
"""The report is one file with its script in it: it runs in an origin of its own, and can ask for nothing here."""

REPORT_TYPES: Final = {"html": "text/html", "svg": "image/svg+xml", "png": "image/png", "json": "application/json"}


class ViewerError(UserError):
    """The viewer cannot be started; says why and what to do."""


class Guard:
    """Answers only requests that were meant for this server, and puts the same headers on every answer.

    A web page whose name was made to lead to this machine (DNS rebinding) sends its own name as the host.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                there = message.get("headers")
                own = list(there) if isinstance(there, list) else []
                names = {name for name, _ in own}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*own, *(header for header in more if header[0] not in names)]
            await send(message)

        problem = self._problem(dict(scope["headers"]), scope["method"])
        app = self.app if problem is None else PlainTextResponse(problem, 403)
        await app(scope, receive, with_headers)  # type: ignore[arg-type]

    def _problem(self, headers: dict[bytes, bytes], method: str) -> str | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if _name_of(host) not in self.hosts:
            return (
                f"This viewer does not answer to the host name {host[:100]!r}; use {' or '.join(sorted(self.hosts))}."
            )
        if method not in ("GET", "HEAD"):
            # A form of another page can post here; it cannot say that it is us.
            origin = headers.get(b"origin", b"").decode("latin-1")
            if urlsplit(origin).netloc != host or headers.get(b"content-type") != b"application/json":
                return "Only pages of this viewer may write here."
        return None


def _name_of(host: str) -> str:
    """A host without its port, in lower case."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def make_app(library: Library, hosts: Collection[str] = ()) -> ASGIApp:
    """The application.

    Args:
        library: What is shown.
        hosts: Names of this server beside those of loopback.
    """
    files = {file.name: file for file in STATIC.iterdir() if file.suffix in TYPES}
    index = page_html("server")

    async def not_there(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 404)

    async def page(_: Request) -> Response:
        return HTMLResponse(index)

    async def static(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        if file is None:
            raise NotThere("There is no such file.")
        return Response(file.read_bytes(), media_type=TYPES[file.suffix])

    async def data(request: Request) -> Response:
        answer = await run_in_threadpool(library.data, request.path_params["key"], dict(request.query_params))
        return Response(answer, media_type="application/json")

    async def raw(request: Request) -> Response:
        parts = await run_in_threadpool(library.raw, request.path_params["key"])
        return StreamingResponse(parts, media_type="text/plain")

    async def write_note(request: Request) -> Response:
        await run_in_threadpool(library.write_note, request.path_params["key"], await request.body())
        return Response(b"{}", media_type="application/json")

    async def report(request: Request) -> Response:
        content = await run_in_threadpool(library.report_file, request.path_params["key"])
        kind = REPORT_TYPES.get(request.path_params["key"].rpartition(".")[2], "text/plain")
        return Response(content, media_type=kind, headers={"content-security-policy": REPORT_POLICY})

    async def icon(_: Request) -> Response:
        return Response(status_code=204)

    routes = [
        Route("/", page),
        Route("/index.html", page),
        Route("/static/{name}", static),
        Route("/data/{key:path}", data),
        Route("/raw/{key:path}", raw),
        Route("/notes/{key:path}", write_note, methods=["POST"]),
        Route("/report/{key:path}", report),
        Route("/favicon.ico", icon),
    ]
    app = Starlette(routes=routes, exception_handlers={NotThere: not_there, UserError: not_there})
    return Guard(app, {*LOOPBACK, *hosts})


def listen(address: str) -> socket.socket:
    """A socket at an address such as http://127.0.0.1:3001.

    Raises:
        ViewerError: if the address is no loopback one, or is taken.
    """
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or 80
    if parts.scheme != "http" or host not in ("127.0.0.1", "localhost", "::1"):
        raise ViewerError(f"{address}: the viewer listens on loopback only; use http://127.0.0.1:PORT")
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ViewerError(
            f"the viewer cannot listen at {address} ({error.strerror}): another program, or another viewer, does; "
            "end it, or choose another port: view --port PORT, or make ui VIEWER_PORT=PORT"
        ) from error
    return listener


def server_of(app: ASGIApp) -> uvicorn.Server:
    """A server of an application, to be run on a socket."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False)
    )


def serve(library: Library, address: str, ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C; `ready` is called when the address is taken.

    Raises:
        ViewerError: as `listen` does.
    """
    listener = listen(address)
    with listener:
        ready()
        server_of(make_app(library)).run(sockets=[listener])
