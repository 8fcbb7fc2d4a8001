"""Failures of file systems become what the sink does: try again, or wait for a person."""

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.sinks.kinds.files.failures import failure
from refold.sinks.receiver import DeliveryError, Misconfigured, Unavailable
from tests.support.folders import ONE, TWO, folder, names, purchases, values


class Answer(Exception):
    """What botocore raises, as far as it is looked at."""

    def __init__(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"An error occurred ({code})")
        meta = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
        self.response = {"Error": {"Code": code}, "ResponseMetadata": meta}


class StatusOf(Exception):
    """What Azure's and Google's libraries raise, as far as it is looked at."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__("no")
        setattr(self, name, status)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Unavailable, ""),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Unavailable, ""),
        (OSError(errno.EIO, "Input/output error"), Unavailable, ""),
        (OSError(errno.ESTALE, "Stale file handle"), Unavailable, ""),
        (TimeoutError("timed out"), Unavailable, ""),
        (OSError(errno.EROFS, "Read-only file system"), Misconfigured, ""),
        (PermissionError(errno.EACCES, "Permission denied"), Misconfigured, ""),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), Misconfigured, ""),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), Misconfigured, ""),
        (caused(OSError(errno.EBUSY, "Slow down"), Answer(503, "SlowDown")), Unavailable, "SlowDown"),
        (Answer(429, "TooManyRequests"), Unavailable, "TooManyRequests"),
        (Answer(500, "InternalError"), Unavailable, "InternalError"),
        (caused(TimeoutError("…"), Answer(400, "RequestTimeout")), Unavailable, "RequestTimeout"),
        (Answer(409, "OperationAborted"), Unavailable, "OperationAborted"),
        (caused(FileNotFoundError("…"), Answer(404, "NoSuchBucket")), Misconfigured, "NoSuchBucket"),
        (caused(PermissionError("…"), Answer(403, "AccessDenied")), Misconfigured, "AccessDenied"),
        (Answer(403, "403"), Misconfigured, "403"),
        (Answer(400, "ExpiredToken"), Misconfigured, "ExpiredToken"),
        (Answer(301, "PermanentRedirect"), Misconfigured, "PermanentRedirect"),
        (StatusOf("status_code", 503), Unavailable, "503"),
        (StatusOf("code", 403), Misconfigured, "403"),
        (StatusOf("status", 429), Unavailable, "429"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), Misconfigured, ""),
        (TypeError("unexpected keyword argument"), Misconfigured, ""),
        (ValueError("Invalid endpoint"), Misconfigured, ""),
        (RuntimeError("anything else"), Unavailable, ""),
    ],
)
def test_classes(error: Exception, kind: type[DeliveryError], status: str) -> None:
    told = failure(error, "cannot write s3://bucket/lake")
    assert type(told) is kind
    assert told.status == status
    assert str(told).startswith("cannot write s3://bucket/lake: ")
    assert kind is Unavailable or told.remedy


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("999999999", 3600.0), ("-1", None), ("soon", None), ("", None)]
)
def test_the_store_may_ask_to_wait(header: str, seconds: float | None) -> None:
    told = failure(Answer(503, "SlowDown", {"retry-after": header}), "cannot write")
    assert isinstance(told, Unavailable)
    assert told.retry_after == seconds


def test_messages_are_one_short_line_without_secrets() -> None:
    error = RuntimeError("bad key hunter2\r\n\x1b[31mfor hunter2-long " + "x" * 500)
    told = str(failure(error, "cannot write", ["hunter2", "hunter2-long", ""]))
    assert told.startswith("cannot write: bad key … [31mfor … xxx")
    assert len(told) < 250


def test_the_folder_above_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file or directory") as told:
        folder(tmp_path / "mount" / "lake")
    assert "create the folder" in (told.value.remedy or "")
    assert not (tmp_path / "mount").exists()


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("x")
    with pytest.raises(Misconfigured, match="File exists"):
        folder(tmp_path / "lake")


def test_a_folder_that_vanished(tmp_path: Path) -> None:
    files = folder(tmp_path / "lake")
    (tmp_path / "lake" / "_refold.json").unlink()
    (tmp_path / "lake").rmdir()
    with pytest.raises(Misconfigured, match="No such file or directory"):
        files.replace(ONE, 1, purchases(1))


def test_a_folder_without_permission(tmp_path: Path) -> None:
    files = folder(tmp_path)
    files.replace(ONE, 1, purchases(1))
    if os.geteuid() == 0:
        immutable = subprocess.run(["chattr", "+i", str(tmp_path)], capture_output=True)
        if immutable.returncode:
            pytest.skip("root may write everywhere here")
    else:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(Misconfigured, match=r"Permission denied|not permitted") as told:
            files.replace(TWO, 1, purchases(2))
        with pytest.raises(Misconfigured):
            files.replace(TWO, 1, [])
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", str(tmp_path)], check=True)
        else:
            tmp_path.chmod(stat.S_IRWXU)
    assert "Allow the process" in (told.value.remedy or "")
    assert list(files.rows(1)) == values(purchases(1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_full_disk_leaves_the_old_file_and_room_for_another_attempt(small_disk: Path, format: str) -> None:
    files = folder(small_disk, format=format)
    files.replace(ONE, 1, purchases(1))
    before = names(small_disk)
    noise = os.urandom(400_000).hex()
    for _ in range(2):
        with pytest.raises(Unavailable, match="No space left on device") as told:
            files.replace(TWO, 1, purchases(2, note=noise))
        assert names(small_disk) == before
    assert "Free space" in (told.value.remedy or "")
    assert list(files.rows(1)) == values(purchases(1))
    files.replace(TWO, 1, purchases(3))
    assert list(files.rows(1)) == values(purchases(3))
