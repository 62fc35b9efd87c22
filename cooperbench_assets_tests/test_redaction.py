from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.redaction import Redactor, redact

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


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("OPENAI_API_KEY=abcdefgh12", "OPENAI_API_KEY=[redacted:named]"),
        ('{"api_key": "abcdefgh12"}', '{"api_key": "[redacted:named]"}'),
        (r'"{\"api_key\": \"abcdefgh12\"}"', r'"{\"api_key\": \"[redacted:named]\"}"'),
        ("password: hunter2hunter2,", "password: [redacted:named],"),
        (f"Authorization: Bearer {LETTERS}=", "Authorization: Bearer [redacted:bearer]"),
        ("https://me:s3cr3t@host/x", "https://me:[redacted:url_password]@host/x"),
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
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_known_values_are_taken_out_whatever_they_look_like_and_counted() -> None:
    redactor = Redactor(["plain-and-long", "short", ""])
    assert redactor.text("a plain-and-long b short plain-and-long") == "a [redacted:known] b short [redacted:known]"
    assert dict(redactor.found) == {"known": 2}


_PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from([secret for texts in SECRETS.values() for secret in texts]),
    st.sampled_from(["api_key=", '"api_key": "abcdefgh12"', "Bearer " + LETTERS, "https://u:passw0rd@h", "password='"]),
)


@given(st.dictionaries(st.text(max_size=8), st.lists(_PIECES, max_size=4).map(" ".join), max_size=4))
def test_json_stays_json_and_a_second_time_changes_nothing(value: dict[str, str]) -> None:
    once = redact(json.dumps(value))
    assert isinstance(json.loads(once), dict)
    assert redact(once) == once


@given(st.binary(max_size=200))
def test_bytes_without_a_secret_come_back_as_they_were(data: bytes) -> None:
    redactor = Redactor()
    clean = redactor.data(data)
    assert (clean == data) == (not redactor.found)
