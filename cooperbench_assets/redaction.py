"""Taking secrets out of text: the one rule for every file, event, table and page that is written here.

What belongs here: which values are secrets, how else they may be written, what has the shape of a key, and replacing
all of these. What does not: which texts pass through it (``execution.secret_values``,
``store.redacted_frames``, ``sharing.bundle``).
Standard library only: it also runs in the harness's environment.

What is known for sure are values: of variables that are named as secrets or whose names say so, of keys in an agent
config, and of passwords in addresses. They are taken out of everything, raw files included, and nothing else of those
files changes. Shapes are for texts that are read by people or given away: they also take out what only looks like a
key, and a secret of an unknown shape stays in unless its value is known. Whoever wants to can write a key so that
nobody finds it again; this is for accidents.

Every pattern is one that JSON's quotes and escapes cannot run through, so that a JSON file stays one.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import traceback
from collections import Counter
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, quote_plus, unquote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from mmap import mmap

SHORTEST_VALUE: Final = 8
"""Characters from which a known value is looked for.

Fewer are found in ordinary text by chance; no provider gives out keys of fewer than 20, and a password of fewer than
8 characters is refused everywhere.
"""

_KEYS, _TOKENS, _PASSWORDS = "api|access|secret|private", "access|auth|bearer|refresh", "password|passwd"
_BEFORE_A_SECRET: Final = rf"(?:{_KEYS})[_-]?key|(?:{_TOKENS})[_-]?token|client[_-]?secret|{_PASSWORDS}"
_ANCHORS: Final = "|".join(
    [f"{kind}{dash}key" for kind in _KEYS.split("|") for dash in ("_", "-", "")]
    + [f"{kind}{dash}token" for kind in _TOKENS.split("|") for dash in ("_", "-", "")]
    + [f"client{dash}secret" for dash in ("_", "-", "")]
    + [_PASSWORDS]
)
_VARIABLE: Final = re.compile(
    r"(?:^|[_-])(?:(?:api|auth|access|private|secret)?keys?|(?:api|auth|access)?token|(?:client)?secrets?|[a-z]*password"
    r"|passwd|passphrase|pass|pwd|credentials?|auth|authorization|pat|webhook)(?:$|[_-])",
    re.IGNORECASE,
)
"""Names of variables that hold a secret: MY_API_KEY, but neither MAX_TOKENS nor GIT_AUTHOR_NAME."""

_ENTRY: Final = re.compile(
    r"(?:^|[_-])(?:(?:api|auth|access|private|secret)[_-]?keys?|(?:api|auth|access|bearer|refresh|session)[_-]?token"
    r"|(?:client[_-]?)?secret|password|passwd|credentials?|authorization)$|^token$|_api_token$",
    re.IGNORECASE,
)
"""Names of entries of a config that hold a secret: api_key, but neither sort_key nor eos_token."""

_WORD: Final = re.compile(r"\d+|[A-Za-z]{1,12}")
"""What is no secret although the name of its variable says so: a number, or one word."""

_AFTER_SCHEME: Final = re.compile(r"(?i:bearer|basic|token)\s+(\S+)")
_ESCAPE: Final = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)\Z")
_USER_IN_ADDRESS: Final = re.compile(r"(?P<scheme>\w+)://(?P<user>[^\s:/@\"']*)(?::(?P<password>[^\s/@\"']+))?@")


# The last letter of an escape is none of the word behind it: a key on a line of its own is `\nsk-…` in JSON, `%3Dsk-…`
# in an address, and `\x1b[32msk-…` where it is green. Letters that are none in ASCII end a word as a space does.
# A lookahead stands before it wherever it can: at nearly every character it is much faster.
_AFTER_ESCAPE: Final = r"(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4})|(?<=%[0-9a-fA-F]{2})|(?<=[\[;0-9]m)"
_START: Final = rf"(?:(?<![A-Za-z0-9_])|{_AFTER_ESCAPE})"
_END: Final = r"(?![A-Za-z0-9_])"


class _Shape(NamedTuple):
    anchors: tuple[bytes, ...]
    """Lower-case bytes, one of which is in every text that holds one: looking for these is fast."""

    pattern: re.Pattern[str]
    """The group `name` stands before the secret, and is kept."""


def _shape(anchors: str, pattern: str) -> _Shape:
    return _Shape(tuple(anchors.encode().split(b"|")), re.compile(pattern, re.DOTALL))


SHAPES: Final = {
    "private_key": _shape(
        "private key-----", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^\"]*?-----END [A-Z ]*PRIVATE KEY-----"
    ),
    "jwt": _shape("eyj", r"(?=eyJ)" + _START + r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "api_key": _shape(
        "sk-|pk-|rk-|aiza|akia|asia|gsk_|xai-|hf_|co_",
        r"(?=[spr]k-|A[IKS]|gsk_|xai-|hf_|co_)" + _START +
        rf"(?:(?:sk|pk|rk)-[A-Za-z0-9_-]{{16,}}|AIza[0-9A-Za-z_-]{{35}}|(?:AKIA|ASIA)[0-9A-Z]{{16}}{_END}"
        r"|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|co_[A-Za-z0-9]{30,})",
    ),
    "token": _shape(
        "ghp_|gho_|ghu_|ghs_|ghr_|github_pat_|glpat-|xox|pypi-|npm_",
        r"(?=gh[pousr]_|github_|glpat-|xox|pypi-|npm_)" + _START +
        r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}"
        r"|xox[abeprs]-[A-Za-z0-9-]{10,}|pypi-[A-Za-z0-9_-]{40,}|npm_[A-Za-z0-9]{30,})",
    ),
    "webhook": _shape("hooks.slack.com/", r"(?P<name>hooks\.slack\.com/)(?:services|workflows)/[A-Za-z0-9/]{16,}"),
    "bearer": _shape(
        "bearer |basic ",
        r"(?=[Bb])" + _START + r"(?P<name>(?i:bearer|basic) )(?!\[redacted:)[A-Za-z0-9._~+/-]{16,}={0,2}",
    ),
    "url_password": _shape(
        "://", r"(?P<name>://[^\s:/@\"'\\]{0,100}:)(?!\[redacted:)[^\s:/@\"'\\]{1,200}(?=@)"
    ),
    "named": _shape(
        _ANCHORS,
        rf"(?P<name>(?i:{_BEFORE_A_SECRET})(?:\\?[\"'])?\s{{0,3}}[:=]\s{{0,3}}(?:\\?[\"'])?)(?!\[redacted:|[\w.]+[(\[])"
        r"[^\s\"'\\,;}\])<>]{8,}",
    ),
}  # fmt: skip
"""Kind → shape of a secret."""

PERSONAL: Final = {
    "email": _shape(
        "@",
        r"(?:(?<![A-Za-z0-9._%+\\-])|(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4}))"
        r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])",
    ),
    "home": _shape(
        "/home/|/users/|\\users\\",
        r"(?=/[hU]|[A-Za-z]:\\)"
        rf"(?P<name>(?:(?<![A-Za-z0-9_.-])|{_AFTER_ESCAPE})/(?:home|Users)/|{_START}[A-Za-z]:\\{{1,4}}Users\\{{1,4}})"
        r"(?!\[redacted:)[\w.-]{1,64}",
    ),
}  # fmt: skip
"""Kind → shape of what names a person: taken out of what is shown to others, and of nothing that is computed with."""


class Redactor:
    """Takes secrets out of texts, and counts them."""

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        """Look for these values as well, whatever they look like, in all their usual encodings.

        Args:
            known: Name → value; what replaces a value says its name. One of fewer than `SHORTEST_VALUE` characters
                is left alone.
        """
        self._shapes = SHAPES
        names = {form: _mark(name) for name, value in sorted((known or {}).items()) for form in _forms(value)}
        marks = [*names.values(), *(_mark(kind) for kind in (*SHAPES, *PERSONAL))]
        # What is part of a mark is a word and no secret; taking it out of marks would never end.
        self._known = {form: mark for form, mark in names.items() if not any(form in mark for mark in marks)}
        self._known_bytes = [form.encode("utf-8", "surrogateescape") for form in self._known]
        # A value with a bracket may come about where a mark meets the text beside it.
        self._again = any("[" in form or "]" in form for form in self._known)
        self.found: Counter[str] = Counter()

    def personal(self) -> Redactor:
        """One that also takes e-mail addresses, and users' names in home paths, out of texts."""
        other = copy(self)
        other._shapes, other.found = SHAPES | PERSONAL, Counter()
        return other

    @property
    def known_marks(self) -> Mapping[str, str]:
        """What is looked for as it is → what takes its place."""
        return self._known

    def knows(self, data: bytes | mmap) -> bool:
        """Whether a known value is in these bytes of any encoding that writes ASCII as it is."""
        return any(data.find(form) >= 0 for form in self._known_bytes)

    def values(self, data: bytes) -> bytes:
        """`data` without known values; the same object if it holds none."""
        if not self.knows(data):
            return data
        return self._without_values(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def text(self, text: str) -> str:
        """`text` without known values and without what has the shape of a secret; doing it again changes nothing."""
        text = self._without_values(text)
        folded = text.encode("utf-8", "surrogatepass").lower()
        for kind, shape in self._shapes.items():
            if any(anchor in folded for anchor in shape.anchors):
                text, times = shape.pattern.subn(lambda match, kind=kind: _replacement(match, kind), text)  # type: ignore[misc]
                if times:
                    self.found[kind] += times
        return text

    def is_clean(self, text: str) -> bool:
        """Whether `text` would leave this as it is; counts nothing."""
        before = self.found.copy()
        clean = self.text(text)
        self.found = before
        return clean == text

    def data(self, data: bytes) -> bytes:
        """What `text` does, for bytes of any encoding that writes ASCII as it is."""
        text = data.decode("utf-8", "surrogateescape")
        clean = self.text(text)
        return data if clean == text else clean.encode("utf-8", "surrogateescape")

    def _without_values(self, text: str) -> str:
        clean = self._replace(text)
        for _ in range(len(text)):
            if not self._again or clean == text:
                break
            text, clean = clean, self._replace(clean)
        return clean

    def _replace(self, text: str) -> str:
        """Replace every stretch that known values cover, whether or not they overlap."""
        spans = ((*span, mark) for form, mark in self._known.items() for span in _spans(text, form))
        pieces, done = [], 0
        for start, end, mark in sorted(spans, key=lambda span: (span[0], -span[1])):
            if start >= done:
                pieces += [text[done:start], mark]
                self.found[mark[len(_MARK) : -1]] += 1
            done = max(done, end)
        return "".join((*pieces, text[done:]))


def redact(text: str, known: Mapping[str, str] | None = None) -> str:
    """`text` without secrets, as `Redactor.text` says."""
    return Redactor(known).text(text)


def secret_variables(variables: Mapping[str, str], named: Collection[str] = ()) -> dict[str, str]:
    """The variables that hold a secret: name → the secret; of several, one a line.

    Args:
        variables: Name → value.
        named: Those that hold one whatever they are called. Of the others, those whose names say so (a number, a
            single word or the path of a file is none) and those with a password in an address.
    """
    found: dict[str, str] = {}
    for name, value in variables.items():
        whole = name in named or (_VARIABLE.search(name) and not _is_plain(value.strip()))
        if secrets := [one for one in (value if whole else "", _in_addresses(value)) if one]:
            found[name] = "\n".join(secrets)
    return found


def secrets_of(content: Any, name: str) -> dict[str, str]:
    """The secrets in a config of nested maps and lists: path below `name` → the secret."""
    if isinstance(content, str):
        return {name: passwords} if (passwords := _in_addresses(content)) else {}
    if isinstance(content, dict):
        entries: Iterable[tuple[Any, Any]] = content.items()
    else:
        entries = enumerate(content) if isinstance(content, list) else ()
    found: dict[str, str] = {}
    for key, inner in entries:
        if isinstance(inner, str) and _ENTRY.search(str(key)):
            found[f"{name}.{key}"] = inner
        else:
            found |= secrets_of(inner, f"{name}.{key}")
    return found


def blanked(content: Any, name: str) -> Any:
    """A config with its secret entries replaced, however short; `name` as for `secrets_of`."""
    if isinstance(content, list):
        return [blanked(inner, f"{name}.{place}") for place, inner in enumerate(content)]
    if not isinstance(content, dict):
        return content
    return {
        key: _mark(f"{name}.{key}")
        if isinstance(inner, str) and _ENTRY.search(str(key))
        else blanked(inner, f"{name}.{key}")
        for key, inner in content.items()
    }


def clean_error(error: BaseException, redactor: Redactor) -> BaseException:
    """The exception without secrets in its text, and so those that it came from.

    One that makes its text from more than its arguments is replaced by a RuntimeError with that text.
    """
    error.args = tuple(redactor.text(one) if isinstance(one, str) else one for one in error.args)
    if notes := getattr(error, "__notes__", None):
        notes[:] = [redactor.text(str(note)) for note in notes]
    said = "".join(traceback.format_exception_only(error)).strip()
    if (clean := redactor.text(said)) != said:
        return RuntimeError(clean).with_traceback(error.__traceback__)
    cause, context, hidden = error.__cause__, error.__context__, error.__suppress_context__
    error.__cause__ = error.__context__ = None  # Whoever comes back to this one on a circle finds its end.
    error.__cause__ = None if cause is None else clean_error(cause, redactor)
    error.__context__ = None if context is None or hidden else clean_error(context, redactor)
    error.__suppress_context__ = hidden
    return error


_MARK: Final = "[redacted:"


def _mark(name: str) -> str:
    return f"{_MARK}{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:80]}]"


def _replacement(match: re.Match[str], kind: str) -> str:
    return f"{match.groupdict().get('name') or ''}{_mark(kind)}"


def _spans(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Where a form stands; with the escape before it whose letters are its first ones, so that no half of one stays."""
    start = text.find(form)
    while start >= 0:
        escape = _ESCAPE.search(text, max(0, start - 100), start)
        yield start if escape is None else escape.start(1), start + len(form)
        start = text.find(form, start + 1)


def _is_plain(value: str) -> bool:
    if value.startswith(("/", "~", ".")):
        return os.path.exists(os.path.expanduser(value))  # noqa: PTH110, PTH111 - these raise nothing, whatever it is
    return bool(_WORD.fullmatch(value))


def _in_addresses(text: str) -> str:
    """The passwords in addresses; where an http address has a user and no password, that is a token."""
    if "://" not in text:
        return ""
    found = _USER_IN_ADDRESS.finditer(text)
    passwords = (one["password"] or (one["user"] if one["scheme"].startswith("http") else "") for one in found)
    return "\n".join(filter(None, passwords))


def _forms(value: str) -> set[str]:
    """A value as it is, as it may stand in an address, in JSON, in a page or in base64; a long line of it alone."""
    value = value.strip()
    several = {line.strip() for line in value.splitlines()} if "\n" in value else set()
    several |= {match[1]} if (match := _AFTER_SCHEME.fullmatch(value)) else set()
    plain = {value, unquote(value), *(line for line in several if not line.startswith("-----"))}
    forms: set[str] = set()
    for one in plain:
        if len(one) >= SHORTEST_VALUE:
            forms |= {one, *_escaped(one), *_encoded(one.encode("utf-8", "surrogateescape"))}
    return {form for form in forms if len(form) >= SHORTEST_VALUE}


def _escaped(value: str) -> Iterator[str]:
    once = json.dumps(value)[1:-1]
    yield from (once, json.dumps(once)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    yield from (html.escape(value), html.escape(once))
    for quoted in (
        quote(value, safe="", errors="replace"),
        quote(value, errors="replace"),
        quote_plus(value, errors="replace"),
    ):
        yield quoted
        yield re.sub(r"%..", lambda match: match[0].lower(), quoted)


def _encoded(value: bytes) -> Iterator[str]:
    """What base64 makes of the value wherever it begins in what is encoded, as far as nothing beside it has a say."""
    yield value.hex()
    for skipped in (0, 2, 1):
        whole = value[skipped : skipped + (len(value) - skipped) // 3 * 3]
        yield base64.b64encode(whole).decode()
        yield base64.urlsafe_b64encode(whole).decode()
