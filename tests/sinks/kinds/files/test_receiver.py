"""A folder holds one file for each slice with rows, whole, of the version that its marker names or a newer one."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.sinks.kinds.files import Files, Options
from refold.sinks.receiver import (
    ANY,
    Change,
    Damaged,
    Misconfigured,
    NotOwner,
    Owner,
    Refused,
    SlicedReceiver,
    Unavailable,
    Version,
)
from tests.support.folders import ONE, PURCHASES, TWO, change, folder, names, purchases, shape, values

FORMATS = ("parquet", "csv", "jsonl")


def reopened(path: Path, owner: str = "", **options: object) -> Version | None:
    return Files(Options.model_validate({"url": str(path)} | options)).open(PURCHASES, Owner(owner, frozenset()))


def test_it_is_a_receiver_of_slices(tmp_path: Path) -> None:
    receiver: SlicedReceiver = Files(Options(url=str(tmp_path)))
    assert receiver.open(PURCHASES, Owner("", frozenset())) == Version(0, 0)


def test_only_what_is_used_is_imported(tmp_path: Path) -> None:
    program = f"""
import sys
from tests.support.folders import ONE, folder, purchases
folder({str(tmp_path)!r}, format="csv").replace(ONE, 1, purchases(1))
print([name for name in ("pyarrow", "fsspec", "psycopg") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("format", FORMATS)
def test_a_slice_is_a_file(tmp_path: Path, format: str) -> None:
    files = folder(tmp_path / "lake", format=format)
    files.replace(ONE, 7, purchases(1, 2))
    files.replace(ONE, 8, purchases(3, note=None))
    assert names(tmp_path / "lake") == ["_refold.json", f"slice-7.{format}", f"slice-8.{format}"]
    assert files.slices() == [7, 8]
    assert list(files.rows(7)) == values(purchases(1, 2))
    assert list(files.rows(8)) == values(purchases(3, note=None))
    assert list(files.rows(9)) == []


@pytest.mark.parametrize("format", FORMATS)
def test_without_rows_the_file_is_removed(tmp_path: Path, format: str) -> None:
    files = folder(tmp_path, format=format)
    files.replace(ONE, 7, purchases(1))
    files.replace(TWO, 7, [])
    files.replace(TWO, 8, [])
    assert names(tmp_path) == ["_refold.json"]
    assert reopened(tmp_path, format=format) == TWO


def test_rows_that_are_gone_are_no_rows(tmp_path: Path) -> None:
    files = folder(tmp_path)
    gone = Change('{"day": "2026-03-02"}', 1, None)
    files.replace(ONE, 1, [gone, *purchases(1), gone])
    assert list(files.rows(1)) == values(purchases(1))
    files.replace(TWO, 1, [gone])
    assert files.slices() == []


def test_slices_have_any_number(tmp_path: Path) -> None:
    files = folder(tmp_path, format="csv", compression="gzip")
    for number in (-5, 0, 2**62):
        files.replace(ONE, number, purchases(1))
    assert files.slices() == [-5, 0, 2**62]


def test_the_marker_says_what_the_folder_is(tmp_path: Path) -> None:
    folder(tmp_path, owner="token", format="csv").replace(Version(3, 14), 7, purchases(1))
    assert json.loads((tmp_path / "_refold.json").read_text()) == {
        "refold": 1,
        "sink": "lake",
        "projection": "purchases",
        "owner": "token",
        "format": "csv",
        "compression": "none",
        "columns": [{"name": column.name, "type": column.type} for column in PURCHASES.columns],
        "key": ["day"],
        "version": [3, 14],
    }


def test_opening_tells_the_version_that_was_given_last(tmp_path: Path) -> None:
    files = Files(Options(url=str(tmp_path)))
    assert files.open(PURCHASES, Owner("", frozenset())) == Version(0, 0)
    assert reopened(tmp_path) == Version(0, 0)
    for version in (ONE, TWO, Version(2, 1)):
        files.replace(version, 1, purchases(1))
        assert reopened(tmp_path) == version


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_the_same_rows_are_the_same_bytes(tmp_path: Path, format: str, compression: str | None) -> None:
    made = []
    for name in ("a", "b"):
        files = folder(tmp_path / name, format=format, compression=compression)
        files.replace(ONE, 7, iter(purchases(*range(1, 31))))
        (path,) = (tmp_path / name).glob("slice-*")
        made.append(path.read_bytes())
        files.replace(TWO, 7, purchases(1))
        files.replace(Version(2, 1), 7, purchases(*range(1, 31)))
        made.append(path.read_bytes())
    assert len(set(made)) == 1
    if path.suffix == ".gz":
        assert made[0][3:8] == bytes(5), "neither a name nor a time is in the header of gzip"


@pytest.mark.parametrize("format", FORMATS)
def test_rows_that_fail_leave_the_old_file(tmp_path: Path, format: str) -> None:
    files = folder(tmp_path, format=format)
    files.replace(ONE, 7, purchases(1))
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def rows() -> Iterator[Change]:
        yield from purchases(2, 3)
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError, match="the database is away"):
        files.replace(TWO, 7, rows())
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_a_value_that_is_refused_leaves_the_old_file(tmp_path: Path) -> None:
    files = folder(tmp_path)
    files.replace(ONE, 7, purchases(1))
    wrong = change(PURCHASES, "infinity", "1", "1.00", "x")
    with pytest.raises(Refused, match=r"the column 'day' holds 'infinity', which a Parquet date cannot hold") as told:
        files.replace(TWO, 7, [*purchases(2), wrong])
    assert '{"day": "infinity"}' in str(told.value)
    assert "csv" in (told.value.remedy or "")
    assert list(files.rows(7)) == values(purchases(1))
    assert names(tmp_path) == ["_refold.json", "slice-7.parquet"]
    assert reopened(tmp_path) == ONE


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    folder(tmp_path).replace(ONE, 7, purchases(1))
    (tmp_path / ".refold-slice-7.parquet.0a1b2c3d").write_bytes(b"PAR1 half")
    assert reopened(tmp_path) == ONE
    assert names(tmp_path) == ["_refold.json", "slice-7.parquet"]


def test_another_process_may_open_the_folder_meanwhile(tmp_path: Path) -> None:
    files = folder(tmp_path)

    def rows() -> Iterator[Change]:
        yield from purchases(1)
        assert len(names(tmp_path)) == 2, "the unfinished file is there"
        folder(tmp_path).ping()
        yield from purchases(2)

    files.replace(ONE, 7, rows())
    assert list(files.rows(7)) == values(purchases(1, 2))


def test_an_unfinished_file_that_a_person_removed(tmp_path: Path) -> None:
    files = folder(tmp_path)

    def rows() -> Iterator[Change]:
        yield from purchases(1)
        next(tmp_path.glob(".refold-*")).unlink()

    with pytest.raises(Unavailable, match="was removed"):
        files.replace(ONE, 7, rows())
    files.replace(ONE, 7, purchases(1))
    assert list(files.rows(7)) == values(purchases(1))


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("ours")
    files = folder(tmp_path)
    files.replace(ONE, 7, purchases(1))
    assert files.slices() == [7]
    assert (tmp_path / "readme.txt").read_text() == "ours"


def test_a_folder_of_another_sink_is_refused(tmp_path: Path) -> None:
    folder(tmp_path).replace(ONE, 7, purchases(1))
    other = shape(*PURCHASES.columns, sink="archive")
    with pytest.raises(Misconfigured, match="holds purchases of the sink lake") as told:
        folder(tmp_path, other)
    assert "folder of its own" in (told.value.remedy or "")
    with pytest.raises(Misconfigured, match="holds purchases of the sink lake"):
        folder(tmp_path, shape(*PURCHASES.columns, projection="refunds"))
    assert reopened(tmp_path) == ONE


def test_a_folder_of_another_database_is_refused(tmp_path: Path) -> None:
    files = folder(tmp_path, owner="ours")
    files.replace(ONE, 7, purchases(1))
    with pytest.raises(NotOwner, match="another database delivers the sink lake") as told:
        folder(tmp_path, owner="theirs")
    assert "refold sinks claim lake" in (told.value.remedy or "")
    assert "ours" not in f"{told.value} {told.value.remedy}".replace("yours", "")
    # As the remedy says.
    claimed = Files(Options.model_validate({"url": str(tmp_path)}))
    assert claimed.open(PURCHASES, Owner("theirs", frozenset({ANY}))) == ONE
    with pytest.raises(NotOwner):
        files.replace(TWO, 7, purchases(2))


def test_a_file_in_the_markers_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_refold.json").write_text('{"name": "not ours"}')
    with pytest.raises(Misconfigured, match="is not a file of refold"):
        folder(tmp_path)


def test_an_older_version_never_replaces_a_newer_one(tmp_path: Path) -> None:
    frozen = folder(tmp_path)
    frozen.replace(ONE, 7, purchases(1))
    folder(tmp_path).replace(Version(1, 5), 7, purchases(2))
    for rows in (purchases(1), []):
        with pytest.raises(Unavailable, match=r"was given version 1\.5, and this delivery is of 1\.2"):
            frozen.replace(TWO, 7, rows)
    assert list(frozen.rows(7)) == values(purchases(2))
    assert names(tmp_path) == ["_refold.json", "slice-7.parquet"]


def test_a_version_that_arrives_while_rows_are_written_wins(tmp_path: Path) -> None:
    slow, quick = folder(tmp_path), folder(tmp_path)

    def rows() -> Iterator[Change]:
        yield from purchases(1)
        quick.replace(TWO, 7, purchases(2))

    with pytest.raises(Unavailable):
        slow.replace(ONE, 7, rows())
    assert list(slow.rows(7)) == values(purchases(2))


def test_the_same_version_may_be_given_again(tmp_path: Path) -> None:
    files = folder(tmp_path)
    for _ in range(2):
        files.replace(ONE, 7, purchases(1))
        files.replace(ONE, 8, purchases(2))
    assert reopened(tmp_path) == ONE
    assert files.slices() == [7, 8]


def test_a_folder_that_was_emptied_is_opened_again_first(tmp_path: Path) -> None:
    files = folder(tmp_path)
    files.replace(ONE, 7, purchases(1))
    for name in names(tmp_path):
        (tmp_path / name).unlink()
    with pytest.raises(Unavailable, match=r"_refold\.json was removed"):
        files.replace(TWO, 8, purchases(2))
    assert reopened(tmp_path) == Version(0, 0)


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(FORMATS, 2)))
def test_another_format_takes_the_place_of_the_old_one(tmp_path: Path, before: str, after: str) -> None:
    old = folder(tmp_path, format=before)
    old.replace(ONE, 7, purchases(1))
    old.replace(ONE, 8, purchases(2))
    assert reopened(tmp_path, format=after) == Version(0, 0)
    files = folder(tmp_path, format=after)
    with pytest.raises(Unavailable, match="files of another form"):
        old.replace(TWO, 7, purchases(3))
    for slice_ in (7, 8):
        with pytest.raises(Damaged, match="in another format"):
            list(files.rows(slice_))
    files.replace(ONE, 7, purchases(1))
    files.replace(ONE, 8, [])
    assert names(tmp_path) == ["_refold.json", f"slice-7.{after}"]
    assert list(files.rows(7)) == values(purchases(1))


@pytest.mark.parametrize("format", FORMATS)
def test_files_with_other_columns_have_to_be_delivered_again(tmp_path: Path, format: str) -> None:
    folder(tmp_path, format=format).replace(ONE, 7, purchases(1))
    wider = shape(*PURCHASES.columns, ("visits", "integer"))
    files = Files(Options.model_validate({"url": str(tmp_path), "format": format}))
    assert files.open(wider, Owner("", frozenset())) == Version(0, 0)
    with pytest.raises(Damaged, match=rf"slice-7\.{format} is not what was delivered"):
        list(files.rows(7))


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_cut_anywhere_is_seen(tmp_path: Path, format: str, compression: str | None) -> None:
    files = folder(tmp_path, format=format, compression=compression)
    files.replace(ONE, 7, purchases(1, 2, 3))
    (path,) = tmp_path.glob("slice-*")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 97)):
        path.write_bytes(whole[:length])
        try:
            assert list(files.rows(7)) != values(purchases(1, 2, 3))
        except Damaged:
            continue


def test_ping_changes_nothing(tmp_path: Path) -> None:
    files = folder(tmp_path)
    files.replace(ONE, 7, purchases(1))
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)}
    assert "written and removed in" in files.ping()
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)} == before
    files.close()
