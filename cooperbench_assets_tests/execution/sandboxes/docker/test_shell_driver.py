from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.sandboxes.docker.shell_driver import Frames, Output, request

TOKEN = "0123456789abcdef"
PIECES = st.lists(st.binary(max_size=60), max_size=12)


def cut(content: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(content)) for place in places} | {len(content)})
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))), st.lists(st.integers(0, 600)))
def test_frames_come_out_whole_however_the_connection_cuts_them(
    frames: list[tuple[int, bytes]], places: list[int]
) -> None:
    sent = b"".join(struct.pack(">BxxxI", stream, len(content)) + content for stream, content in frames)
    reader = Frames()
    assert [frame for piece in cut(sent, places) for frame in reader.feed(piece)] == frames


@given(st.binary(max_size=200), st.integers(0, 255), st.lists(st.integers(0, 300)), st.binary(max_size=20))
def test_an_end_mark_is_found_wherever_it_is_cut_and_what_follows_is_dropped(
    content: bytes, code: int, places: list[int], late: bytes
) -> None:
    output = Output(TOKEN, 10_000)
    for piece in cut(content + b"\0" + TOKEN.encode() + b" %d 0\0" % code + late, places):
        output.feed(piece)
    assert output.said == [code, 0]
    assert output.text() == content.decode("utf-8", "replace")


@given(PIECES)
def test_output_that_holds_another_commands_end_mark_ends_nothing(pieces: list[bytes]) -> None:
    output = Output(TOKEN, 10_000)
    forged = [b"\0fedcba9876543210 0 0\0", b"\0" + TOKEN[:-1].encode() + b" 0 0\0", TOKEN.encode() + b" 0 0"]
    for piece in [*pieces, *forged]:
        output.feed(b"x" + piece)
    assert output.said is None


@given(st.integers(100, 2000), st.lists(st.integers(1, 900), min_size=1, max_size=40))
def test_long_output_keeps_its_beginning_and_its_end(limit: int, lengths: list[int]) -> None:
    output = Output(TOKEN, limit)
    whole = "".join(chr(97 + n % 26) * length for n, length in enumerate(lengths))
    start = 0
    for length in lengths:
        output.feed(whole[start : start + length].encode())
        start += length
    output.feed(b"\0" + TOKEN.encode() + b" 0 0\0")
    text = output.text()
    assert output.said == [0, 0]
    if "left out" in text:
        beginning, _, rest = text.partition("\n[… ")
        number, _, end = rest.partition(" bytes of output left out …]\n")
        assert whole.startswith(beginning)
        assert whole.endswith(end)
        assert len(beginning) + int(number) + len(end) == len(whole)
        assert min(len(beginning), len(end)) >= min(limit // 2, 40)
    else:
        assert text == whole
    assert len(text) <= 2 * limit + 200


def test_a_request_is_words_that_end_with_a_nul() -> None:
    assert request("t", ["echo", "", "ü\n"], together=True) == "t\x001\x003\0echo\0\0ü\n\0".encode()


def test_an_argument_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        request("t", ["echo", "a\0b"], together=False)
