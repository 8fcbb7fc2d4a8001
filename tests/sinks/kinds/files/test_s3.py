"""S3 as the folder: one PUT replaces a file, throttling is waited out, and what is wrong is named."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.sinks.kinds.files import Files, Options
from refold.sinks.receiver import Change, Misconfigured, Owner, Unavailable
from tests.support.folders import ONE, PURCHASES, TWO, folder, purchases, values
from tests.support.object_store import KEY, SECRET, ObjectStore, object_store
from tests.support.waiting import wait_until

pytest.importorskip("s3fs")

FORMATS = ("parquet", "csv", "jsonl")
URL = "s3://lake/shop/purchases"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectStore]:
    monkeypatch.setenv("LAKE_KEY", KEY)
    monkeypatch.setenv("LAKE_SECRET", SECRET)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with object_store() as store:
        yield store


def lake(store: ObjectStore, url: str = URL, owner: str = "", **options: Any) -> Files:
    return folder(url, owner=owner, storage=store.storage(), **options)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_slice_is_an_object(store: ObjectStore, tmp_path: Path, format: str) -> None:
    files = lake(store, format=format)
    files.replace(ONE, 7, purchases(1, 2))
    files.replace(ONE, 8, purchases(3, note=None))
    assert files.slices() == [7, 8]
    assert list(files.rows(7)) == values(purchases(1, 2))
    assert list(files.rows(8)) == values(purchases(3, note=None))
    assert list(files.rows(9)) == []
    files.replace(TWO, 7, purchases(4))
    files.replace(TWO, 8, [])
    files.replace(TWO, 9, [])
    assert (files.slices(), list(files.rows(7))) == ([7], values(purchases(4)))
    again = Files(Options.model_validate({"url": URL, "format": format, "storage": store.storage()}))
    assert again.open(PURCHASES, Owner("", frozenset())) == TWO
    # The bytes are those of a folder of this host.
    folder(tmp_path / "local", format=format).replace(ONE, 7, purchases(4))
    local = (tmp_path / "local" / f"slice-7.{format}").read_bytes()
    assert store.content(f"shop/purchases/slice-7.{format}") == local
    assert "written and removed" in files.ping()


def test_a_bucket_without_a_prefix(store: ObjectStore) -> None:
    files = lake(store, "s3://lake/")
    files.replace(ONE, 7, purchases(1))
    assert files.slices() == [7]
    assert lake(store, "s3://lake").slices() == [7]


def test_another_program_reads_the_objects(store: ObjectStore) -> None:
    lake(store).replace(ONE, 7, purchases(1, 2))
    fs = importlib.import_module("pyarrow.fs")
    parquet = importlib.import_module("pyarrow.parquet")
    s3 = fs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, endpoint_override=store.url.removeprefix("http://"), scheme="http",
        region="us-east-1",
    )  # fmt: skip
    table = parquet.read_table("lake/shop/purchases", filesystem=s3)
    assert table.column("users").to_pylist() == [1, 2]


def test_one_put_replaces_a_file(store: ObjectStore) -> None:
    files = lake(store)
    store.requests.clear()
    files.replace(ONE, 7, purchases(1))
    puts = [path for method, path in store.requests if method == "PUT"]
    assert puts == ["/lake/shop/purchases/slice-7.parquet", "/lake/shop/purchases/_refold.json"]
    assert "POST" not in {method for method, _ in store.requests}
    store.requests.clear()
    files.replace(ONE, 8, purchases(2))
    assert [path for method, path in store.requests if method == "PUT"] == ["/lake/shop/purchases/slice-8.parquet"]


def test_rows_that_fail_send_nothing(store: ObjectStore, tmp_path: Path) -> None:
    files = lake(store, format="csv")
    files.replace(ONE, 7, purchases(1))
    store.requests.clear()

    def rows() -> Iterator[Change]:
        yield from purchases(2)
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError, match="the database is away"):
        files.replace(TWO, 7, rows())
    assert store.requests == []
    assert list(tmp_path.iterdir()) == []
    assert list(files.rows(7)) == values(purchases(1))


def test_short_throttling_is_waited_out(store: ObjectStore) -> None:
    files = lake(store)
    refusals = iter([(503, "SlowDown")] * 2)
    store.judge = lambda method, path: next(refusals, None) if method == "PUT" else None
    files.replace(ONE, 7, purchases(1))
    assert list(files.rows(7)) == values(purchases(1))


@pytest.mark.slow
@pytest.mark.parametrize("refused", ["PUT", "GET", "DELETE"])
def test_long_throttling_is_tried_again_by_the_sink(store: ObjectStore, refused: str) -> None:
    files = lake(store)
    files.replace(ONE, 7, purchases(1))
    before = store.content("shop/purchases/slice-7.parquet")
    store.judge = lambda method, path: (503, "SlowDown") if method == refused else None
    with pytest.raises(Unavailable, match=r"s3://lake/shop/purchases/.*SlowDown") as told:
        files.replace(TWO, 7, [] if refused == "DELETE" else purchases(2))
    assert told.value.status == "SlowDown"
    assert SECRET not in str(told.value)
    store.judge = lambda method, path: None
    assert store.content("shop/purchases/slice-7.parquet") == before
    files.replace(TWO, 7, purchases(2))
    assert list(files.rows(7)) == values(purchases(2))


def test_a_missing_bucket(store: ObjectStore) -> None:
    with pytest.raises(Misconfigured, match=r"s3://nowhere/lake.*NoSuchBucket") as told:
        lake(store, "s3://nowhere/lake")
    assert told.value.status == "NoSuchBucket"
    assert told.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_denied_access(store: ObjectStore, code: str) -> None:
    files = lake(store)
    files.replace(ONE, 7, purchases(1))
    store.judge = lambda method, path: (403, code) if method == "PUT" else None
    with pytest.raises(Misconfigured, match=code):
        files.replace(TWO, 7, purchases(2))
    store.judge = lambda method, path: (403, code)
    with pytest.raises(Misconfigured, match="403") as told:  # the answer to HEAD has no body
        lake(store)
    assert SECRET not in f"{told.value} {told.value.remedy} {told.value!r} {told.value.__cause__!r}"


def test_a_store_that_is_away(store: ObjectStore) -> None:
    files = lake(store)
    store.close()
    with pytest.raises(Unavailable, match="cannot read s3://lake/shop/purchases"):
        files.replace(ONE, 7, purchases(1))


def test_options_that_the_store_does_not_know(store: ObjectStore) -> None:
    with pytest.raises(Misconfigured, match="no_such_option"):
        folder(URL, storage=store.storage(config_kwargs={"no_such_option": 1}))


_PROGRAM = """
import json, sys
from tests.support.folders import TWO, folder, purchases
folder(**json.loads(sys.argv[1])).replace(TWO, 7, purchases(2))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("at", "time"), [("slice-7.csv", 1), ("_refold.json", 2)])
def test_a_kill_in_the_middle_of_an_upload(store: ObjectStore, tmp_path: Path, at: str, time: int) -> None:
    """The marker is written twice: when the folder is opened, and after the slice."""

    files = lake(store, format="csv")
    files.replace(ONE, 7, purchases(1))
    reached, go_on = threading.Event(), threading.Event()
    puts: list[str] = []

    def judge(method: str, path: str) -> tuple[int, str] | None:
        if method == "PUT" and path.endswith(at):
            puts.append(path)
        if len(puts) == time:
            reached.set()
            go_on.wait(30)
            return 503, "SlowDown"
        return None

    store.judge = judge
    arguments = json.dumps({"path": URL, "format": "csv", "storage": store.storage()})
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, arguments], env=environment(tmp_path)) as process:
        assert reached.wait(30)
        left = [path.name for path in tmp_path.iterdir()]
        process.kill()
    go_on.set()
    store.judge = lambda method, path: None
    assert len(left) == 1, "the process had its file here"
    expected = values(purchases(1 if at == "slice-7.csv" else 2))
    assert list(files.rows(7)) == expected
    again = Files(Options.model_validate({"url": URL, "format": "csv", "storage": store.storage()}))
    assert again.open(PURCHASES, Owner("", frozenset())) == ONE
    assert wait_until(lambda: list(tmp_path.iterdir()) == [])
    again.replace(TWO, 7, purchases(2))
    assert list(again.rows(7)) == values(purchases(2))


def environment(directory: Path) -> dict[str, str]:
    """What the process needs, and where it puts its temporary files."""
    return os.environ | {"TMPDIR": str(directory)}
