"""Bundles that are refused whole, with one clear error: damaged, of another version, or made to do harm."""

from __future__ import annotations

import gzip
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.sharing.bundle import BundleError, export_bundle
from cooperbench_assets.sharing.bundle_import import import_bundle
from cooperbench_assets.store.gold import GOLD_BASELINE
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.units import Unit
from cooperbench_assets_tests.sharing.machines import blank, machine, repacked


@pytest.mark.parametrize("name", ["../out", "/etc/out", "tables/../../out", "a\\..\\out", "./tables/x", "tables//x"])
def test_a_path_that_leads_out_of_the_archive_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    def add(files: dict[str, bytes]) -> None:
        files[name] = b"x"

    there = blank(tmp_path / "b")
    with pytest.raises(BundleError, match="no plain file within it"):
        import_bundle(there, repacked(bundle, tmp_path / "y.tar.gz", add))
    assert not there.tables.exists()
    assert not (tmp_path / "out").exists()


def test_a_link_in_an_archive_is_refused(bundle: Path, tmp_path: Path) -> None:
    evil = tmp_path / "y.tar.gz"
    with tarfile.open(evil, "w:gz") as archive:
        member = tarfile.TarInfo("tables/x")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(BundleError, match="no plain file within it"):
        import_bundle(blank(tmp_path / "b"), evil)


def _changed(bundle: Path, target: Path, **changes: Any) -> Path:
    def change(files: dict[str, bytes]) -> None:
        files["bundle.json"] = json.dumps(json.loads(files["bundle.json"]) | changes).encode()

    return repacked(bundle, target, change)


@pytest.mark.parametrize("name", ["format", "schema_version"])
def test_a_bundle_of_another_version_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=rf"{name} 99, this is \d+.*use the same version"):
        import_bundle(blank(tmp_path / "b"), _changed(bundle, tmp_path / "y.tar.gz", **{name: 99}))


@pytest.mark.parametrize(
    "name", ["made/cells/../x/0", "../cells/solo/0", "other/cells/solo/0", "made/analysis/w", "made"]
)
def test_a_unit_of_another_name_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    with tarfile.open(bundle) as archive:
        stream = archive.extractfile("bundle.json")
        assert stream is not None
        units = json.loads(stream.read())["units"]
    there = blank(tmp_path / "b")
    with pytest.raises(BundleError, match="names a unit"):
        import_bundle(there, _changed(bundle, tmp_path / "y.tar.gz", units=[units[0] | {"name": name}]))
    assert not there.tables.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "name"),
    [
        ({"seed": 1}, "made/cells/solo/0"),
        ({}, "made/cells/solo/1"),
        ({}, "made/aaa/solo/0"),
        ({}, "made/gold_baseline/x"),
    ],
)
def test_a_unit_that_would_take_the_rows_of_another_is_refused(
    bundle: Path, tmp_path: Path, key: dict[str, Any], name: str
) -> None:
    def change(files: dict[str, bytes]) -> None:
        contents = json.loads(files["bundle.json"])
        unit = next(one for one in contents["units"] if one["name"] == "made/cells/solo/0")
        unit["key"] |= key
        unit["name"] = name
        files["bundle.json"] = json.dumps(contents).encode()

    there = blank(tmp_path / "b")
    with pytest.raises(BundleError, match=r"has the key of another one|names a unit"):
        import_bundle(there, repacked(bundle, tmp_path / "y.tar.gz", change))
    assert not there.tables.exists()


def test_tables_of_an_earlier_layout_are_one_clear_error(tmp_path: Path) -> None:
    experiment = machine(tmp_path / "a", (("solo", 0),))
    earlier = replace(GOLD_BASELINE, columns=GOLD_BASELINE.columns[:-1])
    unit = Unit.of("made", GOLD_BASELINE.name, "all", key={"experiment": "made"})
    frames = {GOLD_BASELINE.name: earlier.frame([{"experiment": "made"}])}
    write_unit(experiment.project.tables, unit, frames, declared=[earlier])
    with pytest.raises(
        BundleError, match=r"gold_baseline/all: .* lacks evidence: another version wrote it.*materialize"
    ):
        export_bundle(experiment.project, "made", tmp_path / "x.tar.gz")


def test_a_damaged_table_is_refused(bundle: Path, tmp_path: Path) -> None:
    def damage(files: dict[str, bytes]) -> None:
        name = next(name for name in files if name.endswith("pairs.parquet"))
        files[name] = files[name][:-1] + b"x"

    with pytest.raises(BundleError, match="table pairs of made/cells/solo/0 is missing or damaged"):
        import_bundle(blank(tmp_path / "b"), repacked(bundle, tmp_path / "y.tar.gz", damage))


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"cut", mtime=0)], ids=["empty", "text", "gzip"])
def test_a_file_that_is_no_bundle_says_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.tar.gz"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"no bundle|no bundle\.json"):
        import_bundle(blank(tmp_path / "b"), file)


def test_a_cut_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.tar.gz"
    file.write_bytes(bundle.read_bytes()[:-200])
    with pytest.raises(BundleError, match=r"export it again|was cut"):
        import_bundle(blank(tmp_path / "b"), file)
