"""Staging folders that travel: nothing but regular files, and nothing outside the folder."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooperbench_assets.execution.fleet.archive import LEFT_OUT, ArchiveError, pack, unpack

NAMES = st.from_regex(r"[A-Za-zä0-9_.][A-Za-zä0-9_. -]{0,8}", fullmatch=True).filter(
    lambda name: name not in (".", "..")
)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/".join(parts)), st.binary(max_size=50)
)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@settings(max_examples=30)
@given(tree=TREES)
def test_what_is_packed_is_what_is_unpacked(tree: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    written: dict[str, bytes] = {}
    for name, content in tree.items():
        parents = {str(parent) for parent in PurePosixPath(name).parents}
        if parents & written.keys() or (source / name).is_dir():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
        written[name] = content
    unpack(pack(source), target)
    assert files(target) == written


def test_links_and_pipes_stay_behind(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "plain").write_text("plain")
    (tmp_path / "from" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "from" / "pipe")
    unpack(pack(tmp_path / "from"), tmp_path / "to")
    assert files(tmp_path / "to") == {"plain": b"plain"}


def test_of_too_much_the_largest_file_stays_behind_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "small").write_bytes(b"s" * 10)
    (tmp_path / "from" / "large").write_bytes(b"l" * 1000)
    unpack(pack(tmp_path / "from", largest=500), tmp_path / "to")
    assert files(tmp_path / "to").keys() == {"small", LEFT_OUT}
    assert "large: too large" in (tmp_path / "to" / LEFT_OUT).read_text()


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_a_member_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="out"):
        unpack(archive_of(tarfile.TarInfo(name)), tmp_path / "to")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_regular_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("member")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(ArchiveError, match="member"):
        unpack(archive_of(member), tmp_path / "to")


def test_an_archive_of_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "large").write_bytes(b"l" * 1000)
    with pytest.raises(ArchiveError, match="500"):
        unpack(pack(tmp_path / "from"), tmp_path / "to", largest=500)


def archive_of(member: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(b""))
    return buffer.getvalue()
