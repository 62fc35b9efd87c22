from __future__ import annotations

import base64
import html
import json
import re
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cooperbench_assets.redaction import (
    SHAPES,
    SHORTEST_VALUE,
    Redactor,
    clean_error,
    redact,
    secret_variables,
    secrets_of,
)

LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF"
SECRETS = {
    "api_key": [
        f"sk-{LETTERS}", f"sk-ant-api03-{LETTERS}_x-y", f"sk-proj-{LETTERS}", f"AIza{LETTERS}xyz",
        "AKIAIOSFODNN7EXAMPLE", f"gsk_{LETTERS}", f"hf_{LETTERS}",
    ],
    "token": [f"ghp_{LETTERS}abcd", f"github_pat_{LETTERS}", f"glpat-{LETTERS[:20]}", f"xoxb-{LETTERS}"],
    "jwt": [f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "secret"), [(kind, text) for kind, texts in SECRETS.items() for text in texts])
def test_keys_and_tokens_are_taken_out_by_their_shape(kind: str, secret: str) -> None:
    clean = redact(f"before {secret} after")
    assert clean == f"before [redacted:{kind}] after"


@pytest.mark.parametrize("before", ["\n", "\t", "é", "密钥是", "%3D", "\x1b[32m", "("])
@pytest.mark.parametrize("write", [str, json.dumps, lambda text: json.dumps(json.dumps(text))])
def test_a_key_is_taken_out_whatever_stands_before_it_and_however_that_is_written(
    before: str, write: Callable[[str], str]
) -> None:
    for secret in [*(one for kinds in SECRETS.values() for one in kinds), f"Bearer {LETTERS}"]:
        assert LETTERS[:10] not in redact(write(f"key{before}{secret}是"))
        assert secret not in redact(write(f"key{before}{secret}是"))
    personal = Redactor().personal()
    for name in ("alice@example.org", "/home/alice", r"C:\Users\alice"):
        assert "alice" not in personal.text(write(f"x{before}{name} y"))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("OPENAI_API_KEY=abcdefgh12", "OPENAI_API_KEY=[redacted:named]"),
        ('{"api_key": "abcdefgh12"}', '{"api_key": "[redacted:named]"}'),
        (r'"{\"api_key\": \"abcdefgh12\"}"', r'"{\"api_key\": \"[redacted:named]\"}"'),
        ("password: hunter2hunter2,", "password: [redacted:named],"),
        (f"Authorization: Bearer {LETTERS}=", "Authorization: Bearer [redacted:bearer]"),
        ("https://me:s3cr3t@host/x", "https://me:[redacted:url_password]@host/x"),
        ("redis://:s3cr3t@host:1", "redis://:[redacted:url_password]@host:1"),
        ("https://hooks.slack.com/services/T0000/B0000/XXXXXXXX", "https://hooks.slack.com/[redacted:webhook]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[redacted:private_key]"),
    ],
)
def test_named_secrets_are_taken_out_and_their_names_stay(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        '"input_tokens": 1000, "cache_read_tokens": 5000',
        "run_id: 0f0f0f0f, sha256 " + "ab" * 32,
        "token = tokens.pop()",
        "task-2068 risk-assessment-of-everything",
        "https://host/path?x=1",
        "def password(self): return 1",
        json.dumps({"text": "APIKEY= \x1f000"}),
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("dash", ["_", "-", ""])
def test_code_that_only_names_a_secret_stays(dash: str) -> None:
    for text in (f"auth{dash}token = kwargs.pop('x')", f"self.api{dash}key = headers[0]"):
        assert redact(text) == text


def test_known_values_are_taken_out_whatever_they_look_like_and_counted() -> None:
    redactor = Redactor({"MINE": "plain-and-long", "TOO_SHORT": "short", "EMPTY": ""})
    clean = redactor.text("a plain-and-long b short plain-and-long")
    assert clean == "a [redacted:MINE] b short [redacted:MINE]"
    assert dict(redactor.found) == {"MINE": 2}


def test_a_value_that_is_part_of_another_leaves_nothing_of_it() -> None:
    redactor = Redactor({"OUTER": "abc-secret-def", "INNER": "c-secret", "NEXT": "def-and-more"})
    assert redactor.text("x abc-secret-def y") == "x [redacted:OUTER] y"
    assert redactor.text("x abc-secret-def-and-more y") == "x [redacted:OUTER] y"


def test_each_long_line_of_a_secret_is_one() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
    clean = redact("+MIIEvQIBADANBgkq\n+ hkiG9w0BAQEFAASC", {"PEM": key})
    assert clean == "+[redacted:PEM]\n+ [redacted:PEM]"


def test_files_lose_known_values_only_and_are_the_same_object_without_one() -> None:
    redactor = Redactor({"MINE": "plain-and-long"})
    for data in (b"", b"\xff\x00", f"sk-{LETTERS}".encode(), b"password=hunter2hunter2"):
        assert redactor.values(data) is data
    assert redactor.values(b"\xff plain-and-long \x00") == b"\xff [redacted:MINE] \x00"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("OPENAI_API_KEY", "anything-at-all", "anything-at-all"),
        ("cohere_key", "anything-at-all", "anything-at-all"),
        ("PGPASSWORD", "anything-at-all", "anything-at-all"),
        ("AWS_SECRET_ACCESS_KEY", "/does/not+exist", "/does/not+exist"),
        ("HTTPS_PROXY", "http://me:pass%20word@host:1/", "pass%20word"),
        ("PIP_EXTRA_INDEX_URL", "https://a:first-one@h/s https://second-one@h/s", "first-one\nsecond-one"),
        ("DATABASE_URL", "postgres://me:long-enough@host/db", "long-enough"),
        ("REDIS", "redis://:long-enough@host:1", "long-enough"),
        ("SSH_AUTH_SOCK", "/tmp", None),
        ("AUTH_MODE", "disabled", None),
        ("TOKEN_LIMIT", "100000000", None),
        ("MAX_TOKENS", "some-thing-else", None),
        ("GIT_AUTHOR_NAME", "Ada L. Byron", None),
        ("TOKENIZERS_PARALLELISM", "not-at-all", None),
        ("MONKEY_BUSINESS", "some-thing-else", None),
        ("DOCKER_HOST", "ssh://some-user@host", None),
        ("PATH", "/usr/bin:/bin", None),
    ],
)
def test_variables_hold_secrets_by_their_names_and_their_addresses(name: str, value: str, secret: str | None) -> None:
    assert secret_variables({name: value}) == ({} if secret is None else {name: secret})


def test_a_variable_that_is_named_is_a_secret_whatever_it_is_called() -> None:
    assert secret_variables({"COHERE": "abc", "OTHER": "abc"}, ["COHERE", "NOT_SET"]) == {"COHERE": "abc"}


def test_entries_of_a_config_are_secrets_by_their_names_and_their_addresses() -> None:
    config = {
        "model": {
            "model_kwargs": {"api_key": "k1", "api_base": "https://u:k2@h/v1", "max_tokens": 4096, "eos_token": "</s>"},
            "extra_headers": [{"Authorization": "Bearer k3", "x-api-key": "k4"}],
        },
        "sort_key": "created_at",
        "token": "k5",
    }
    assert secrets_of(config, "agent_config") == {
        "agent_config.model.model_kwargs.api_key": "k1",
        "agent_config.model.model_kwargs.api_base": "k2",
        "agent_config.model.extra_headers.0.Authorization": "Bearer k3",
        "agent_config.model.extra_headers.0.x-api-key": "k4",
        "agent_config.token": "k5",
    }


MARKS = " ".join(f"[redacted:{name}]" for name in ("SECRET_0", "SECRET_1", "SECRET_2", *SHAPES))
"""A value that is part of one is a word, and stays."""

VALUES = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=SHORTEST_VALUE, max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    .map(str.strip)
    .filter(lambda text: len(text) >= SHORTEST_VALUE),
)
WRITTEN: list[Callable[[str], str]] = [
    str,
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False),
    lambda value: json.dumps(json.dumps({"arguments": value})),
    repr,
    html.escape,
    quote,
    quote_plus,
    lambda value: quote(value, safe=""),
    lambda value: f"https://me:{quote(value, safe='')}@host/",
    lambda value: base64.b64encode(value.encode()).decode(),
    lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    lambda value: f"Basic {base64.b64encode(f'user:{value}'.encode()).decode()}",
    lambda value: f"Basic {base64.b64encode(f'u:{value}'.encode()).decode()}",
    lambda value: value.encode().hex(),
]


@given(
    values=st.lists(VALUES, min_size=1, max_size=3, unique=True),
    ways=st.lists(st.tuples(st.sampled_from(range(len(WRITTEN))), st.integers(0, 2)), min_size=1, max_size=6),
    between=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
def test_no_value_survives_however_it_is_written(values: list[str], ways: list[tuple[int, int]], between: str) -> None:
    known = {f"SECRET_{n}": value for n, value in enumerate(values)}
    written = [WRITTEN[way](values[which % len(values)]) for way, which in ways]
    redactor = Redactor(known)
    text = between.join(written)
    clean = redactor.values(text.encode()).decode()
    assert not [value for value in values if value in clean and value not in MARKS]
    assert redactor.values(clean.encode()).decode() == clean
    assert redactor.text(redactor.text(text)) == redactor.text(text)
    for (way, which), form in zip(ways, written, strict=True):
        value = values[which % len(values)]
        if form not in MARKS and value not in MARKS:
            assert form not in clean, WRITTEN[way]


@given(VALUES, st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.booleans())
@example("n-secret-x", "\n-secret-x", False)
@example("00ab-secret", "\u00ab-secret", True)
@example("tail-secret\\", "", False)
def test_json_with_a_value_in_it_stays_json(value: str, beside: str, as_ascii: bool) -> None:
    written = json.dumps([beside + value + beside, beside], ensure_ascii=as_ascii)
    clean = Redactor({"MINE": value}).values(written.encode()).decode()
    assert all(value not in text or value in MARKS + "[redacted:MINE]" for text in json.loads(clean))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(VALUES, max_size=3))
def test_text_without_a_known_value_is_left_alone(text: str, values: list[str]) -> None:
    assume(not any(value[:4] in text for value in values))
    assume(not re.search(r"[A-Za-z0-9+/_=-]{8}|[\\\\%&]", text))
    data = text.encode()
    assert Redactor({f"S{n}": value for n, value in enumerate(values)}).values(data) is data


_PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from([secret for texts in SECRETS.values() for secret in texts]),
    st.sampled_from(["me@example.org", "/home/me/x", r"C:\Users\me"]),
    st.sampled_from(["api_key=", '"api_key": "abcdefgh12"', "Bearer " + LETTERS, "https://u:passw0rd@h", "password='"]),
)


_BETWEEN = st.sampled_from([" ", "\n", "\t", "é", "\\"])


@given(
    st.dictionaries(st.text(max_size=8), st.tuples(_BETWEEN, st.lists(_PIECES, max_size=4)), max_size=4),
    st.sampled_from([Redactor(), Redactor().personal()]),
)
@example({"a": ("\n", ["", "me@example.org"])}, Redactor().personal())
def test_json_stays_json_and_a_second_time_changes_nothing(
    value: dict[str, tuple[str, list[str]]], redactor: Redactor
) -> None:
    once = redactor.text(json.dumps({key: between.join(pieces) for key, (between, pieces) in value.items()}))
    assert isinstance(json.loads(once), dict)
    assert redactor.text(once) == once


@given(st.binary(max_size=200))
def test_bytes_without_a_secret_come_back_as_they_were(data: bytes) -> None:
    redactor = Redactor()
    clean = redactor.data(data)
    assert (clean == data) == (not redactor.found)


class Told(Exception):
    """One that makes its text from more than its arguments."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def __str__(self) -> str:
        return f"the key is {self.key}"


def test_an_exception_keeps_its_kind_and_loses_its_secrets_and_so_do_those_it_came_from() -> None:
    key = "plain-and-long"
    redactor = Redactor({"MINE": key})
    inner, middle = Told(key), KeyError(key)
    outer = ValueError(f"no {key}", 3)
    outer.add_note(f"it was {key}")
    outer.__cause__, middle.__context__, inner.__context__ = middle, inner, outer
    clean = clean_error(outer, redactor)
    assert clean is outer
    assert clean.args == ("no [redacted:MINE]", 3)
    text = "".join(traceback.format_exception(clean))
    assert key not in text
    for part in ("KeyError: '[redacted:MINE]'", "it was [redacted:MINE]", "Told: the key is [redacted:MINE]"):
        assert part in text


def test_an_exception_without_a_secret_stays_as_it_is() -> None:
    def go_wrong() -> None:
        try:
            int("x")
        except ValueError as error:
            raise KeyError("y") from error

    with pytest.raises(KeyError) as caught:
        go_wrong()
    before = traceback.format_exception(caught.value)
    assert traceback.format_exception(clean_error(caught.value, Redactor({"MINE": "plain-and-long"}))) == before
