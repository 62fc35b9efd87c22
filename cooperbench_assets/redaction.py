"""Taking secrets out of text that is given away: keys, tokens and passwords, by their shapes and by their values.

What belongs here: patterns, and replacing what they find. What does not: which files are given away (``bundle``).

A shape is no proof: what looks like a key in a test's output is taken out too, and a secret of an unknown shape stays
in unless its value is known. Every pattern is one that JSON's quotes and escapes cannot run through, so that a JSON
file stays one.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORTEST_VALUE: Final = 8
"""Characters from which a known value is looked for; a shorter one would be found everywhere."""

_NAMED: Final = (
    r"(?:api[_-]?key|apikey|access[_-]?key|access[_-]?token|auth[_-]?token|bearer[_-]?token|refresh[_-]?token"
    r"|secret[_-]?key|client[_-]?secret|password|passwd|private[_-]?key)"
)
PATTERNS: Final = {
    "private_key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^\"]*?-----END [A-Z ]*PRIVATE KEY-----",
    "jwt": r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "api_key": (
        r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}|\bAIza[0-9A-Za-z_-]{35}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgsk_[A-Za-z0-9]{20,}"
        r"|\bxai-[A-Za-z0-9]{20,}|\bhf_[A-Za-z0-9]{20,}|\bco_[A-Za-z0-9]{30,}"
    ),
    "token": (
        r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{20,}"
        r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bpypi-[A-Za-z0-9_-]{40,}|\bnpm_[A-Za-z0-9]{30,}"
    ),
    "bearer": r"(?i:(?<=\bbearer )|(?<=\bbasic ))(?!\[redacted:)[A-Za-z0-9._~+/-]{16,}={0,2}",
    "url_password": r"(?<=://)(?P<user>[^\s:/@\"'\\]{1,100}):(?!\[redacted:)[^\s:/@\"'\\]{3,200}(?=@)",
    "named": (
        rf"(?P<name>(?i:{_NAMED})\\?[\"']?\s{{0,3}}[:=]\s{{0,3}}\\?[\"']?)(?!\[redacted:)[^\s\"'\\,;}}\])<>]{{8,}}"
    ),
}
"""Kind → regular expression of a secret; the group `name` or `user` stands before it and is kept."""

_COMPILED: Final = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in PATTERNS.items()}


class Redactor:
    """Takes secrets out of texts, and counts them."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        """`known` are values that are secrets whatever they look like; short ones are left alone."""
        self._known = sorted({value for value in known if len(value) >= SHORTEST_VALUE}, key=len, reverse=True)
        self.found: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """`text` with every secret replaced by ``[redacted:<kind>]``; doing it again changes nothing."""
        for value in self._known:
            if times := text.count(value):
                self.found["known"] += times
                text = text.replace(value, "[redacted:known]")
        for kind, pattern in _COMPILED.items():
            text, times = pattern.subn(lambda match, kind=kind: _replacement(match, kind), text)  # type: ignore[misc]
            if times:
                self.found[kind] += times
        return text

    def data(self, data: bytes) -> bytes:
        """The same for bytes of any encoding that writes ASCII as it is."""
        text = data.decode("utf-8", "surrogateescape")
        clean = self.text(text)
        return data if clean == text else clean.encode("utf-8", "surrogateescape")


def _replacement(match: re.Match[str], kind: str) -> str:
    kept = match.groupdict()
    if kept.get("user") is not None:
        return f"{kept['user']}:[redacted:{kind}]"
    return f"{kept.get('name') or ''}[redacted:{kind}]"


def redact(text: str, known: Iterable[str] = ()) -> str:
    """`text` without secrets, as `Redactor.text` says."""
    return Redactor(known).text(text)
