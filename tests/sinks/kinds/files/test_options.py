"""Options that cannot work are refused with what to write, and secrets never show."""

import importlib.util
from typing import Any

import pytest
from pydantic import ValidationError

from refold.sinks.kinds.files import Files, Options
from refold.sinks.receiver import Misconfigured, Owner
from tests.support.folders import PURCHASES, folder


def reason(**given: Any) -> str:
    with pytest.raises(ValidationError) as told:
        Options.model_validate(given)
    return str(told.value)


@pytest.mark.parametrize(
    "url",
    ["/srv/lake", "/srv/lake/", "file:///srv/lake", "s3://bucket/lake", "gs://bucket", "az://box/lake", "env:LAKE"],
)
def test_addresses(url: str) -> None:
    assert Options(url=url).url == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("lake", "write an absolute path"),
        ("./lake", "write an absolute path"),
        ("", "write an absolute path"),
        ("/", "write a folder of its own"),
        ("s3://", "write a folder of its own"),
        ("simplecache::s3://bucket/lake", "write one address"),
        ("s3://key:hunter2@bucket/lake", "write no user or password into the address"),
        ("file:/run/url", "write an absolute path"),
    ],
)
def test_what_is_no_address(url: str, remedy: str) -> None:
    told = reason(url=url)
    assert remedy in told
    assert "hunter2" not in told


def test_unknown_keys_and_words() -> None:
    assert "compresion" in reason(url="/srv/lake", compresion="gzip")
    assert "'parquet', 'csv' or 'jsonl'" in reason(url="/srv/lake", format="xml")
    assert "write one of none, gzip" in reason(url="/srv/lake", format="csv", compression="zstd")


def test_the_compression_has_a_default() -> None:
    assert [Options(url="/srv", format=one).compressed for one in ("parquet", "csv", "jsonl")] == [
        "zstd",
        "none",
        "none",
    ]


@pytest.mark.parametrize(
    "storage",
    [
        {"secret": "hunter2"},
        {"password": "hunter2"},
        {"token": "hunter2"},
        {"account_key": "hunter2"},
        {"connection_string": "hunter2"},
        {"client_kwargs": {"aws_secret_access_key": "hunter2"}},
    ],
)
def test_a_literal_secret_is_refused(storage: dict[str, Any]) -> None:
    told = reason(url="s3://bucket/lake", storage=storage)
    assert "holds a secret: write env:NAME or file:/path" in told
    assert "hunter2" not in told


def test_references_and_harmless_words_are_taken() -> None:
    options = Options(
        url="gs://bucket", storage={"secret": "env:S", "token": "anon", "anon": True, "endpoint_url": "http://x"}
    )
    assert "env:S" not in repr(options)


def test_a_secret_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAKE_SECRET", raising=False)
    files = Files(Options(url="s3://bucket", storage={"client_kwargs": {"secret": "env:LAKE_SECRET"}}))
    with pytest.raises(Misconfigured, match=r"storage\.client_kwargs\.secret: .* LAKE_SECRET is not set"):
        files.open(PURCHASES, Owner("", frozenset()))


def test_the_address_can_be_in_the_environment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE", f"file://{tmp_path}/lake/")
    folder("env:LAKE")
    assert (tmp_path / "lake" / "_refold.json").exists()
    monkeypatch.setenv("LAKE", "s3://key:hunter2@bucket")
    with pytest.raises(Misconfigured, match="url: env:LAKE holds no address") as told:
        folder("env:LAKE")
    assert "hunter2" not in f"{told.value} {told.value.remedy}"
    monkeypatch.delenv("LAKE")
    with pytest.raises(Misconfigured, match="LAKE is not set"):
        folder("env:LAKE")


def test_stores_that_cannot_replace_a_file_at_once_are_refused() -> None:
    for url in ("sftp://host/lake", "memory://lake", "nonsense://lake"):
        with pytest.raises(Misconfigured, match="is not known as a store that replaces a file at once") as told:
            folder(url)
        assert "s3://" in (told.value.remedy or "")


def test_a_folder_of_this_host_has_no_options(tmp_path: Any) -> None:
    with pytest.raises(Misconfigured, match="has no options"):
        folder(tmp_path, storage={"anon": True})


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_missing_package_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"gs:// needs a package that is not installed") as told:
        folder("gs://bucket/lake")
    assert told.value.remedy == "Run `pip install gcsfs`."
