"""One message to a webhook, over HTTP.

What belongs here: the request, its longest time, and what of an answer may be told. What does not: what is said, and
how often it is tried (``alerts``).
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage
    from typing import IO

WEBHOOK_SECONDS: Final = 5.0
"""Longest time that one message may take, from the name's look-up to the answer."""


def post(address: str, message: Mapping[str, str], seconds: float = WEBHOOK_SECONDS) -> str | None:
    """Offer a message to a webhook.

    Args:
        address: http or https. It is a secret: what is returned never holds a part of it.
        message: What is sent as JSON.
        seconds: Longest time in all, however slowly the other side answers.

    Returns:
        Why it was not taken; None if it was.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return "the variable is not set to an http(s) address"
    said: list[str | None] = []
    worker = threading.Thread(target=lambda: said.append(_post(address, message, seconds)), daemon=True)
    worker.start()
    worker.join(seconds)
    return said[0] if said else f"no answer within {seconds:g} seconds"


def _post(address: str, message: Mapping[str, str], seconds: float) -> str | None:
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        address, data=msgspec.json.encode(message), headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered {error.code}"
    except Exception as error:
        reason = getattr(error, "reason", error)
        return type(reason).__name__ if isinstance(reason, BaseException) else type(error).__name__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook that sends its callers elsewhere would make a GET of the message."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None
