"""References to secrets are resolved, and messages have the reference, never the value."""

from pathlib import Path

import pytest

from refold.sinks.receiver import Misconfigured
from refold.sinks.secrets import LARGEST_BYTES, checked_reference, is_reference, resolve, resolve_optional


def test_a_reference_names_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_KEY", "from the environment")
    (tmp_path / "key").write_text("from a file\n\n")
    assert resolve("env:LAKE_KEY", "key") == "from the environment"
    assert resolve(f"file:{tmp_path}/key", "key") == "from a file\n"


def test_other_texts_are_values_where_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_KEY", "secret")
    assert resolve_optional("http://store:9000", "endpoint_url") == "http://store:9000"
    assert resolve_optional("env:LAKE_KEY", "key") == "secret"
    assert (is_reference("env:X"), is_reference("file:/x"), is_reference("environment")) == (True, True, False)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAKE_KEY", raising=False)
    with pytest.raises(Misconfigured, match=r"^storage\.key: the environment variable LAKE_KEY is not set$") as told:
        resolve("env:LAKE_KEY", "storage.key")
    assert told.value.remedy == "Set LAKE_KEY for the process that delivers."
    monkeypatch.setenv("LAKE_KEY", "")
    with pytest.raises(Misconfigured, match=r"^storage\.key: env:LAKE_KEY is empty$"):
        resolve("env:LAKE_KEY", "storage.key")
    with pytest.raises(Misconfigured, match="cannot read file:/nowhere/key: No such file or directory"):
        resolve("file:/nowhere/key", "storage.key")
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match="it is not UTF-8 text"):
        resolve(f"file:{tmp_path}/key", "storage.key")
    (tmp_path / "key").write_text("\n")
    with pytest.raises(Misconfigured, match="is empty"):
        resolve(f"file:{tmp_path}/key", "storage.key")


def test_a_file_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * LARGEST_BYTES)
    assert len(resolve(f"file:{tmp_path}/key", "key")) == LARGEST_BYTES
    with pytest.raises(Misconfigured, match="it has more than 65,536 bytes"):
        resolve("file:/dev/zero", "key")


@pytest.mark.parametrize(
    "text", ["hunter2", "env:", "env:hunter2=x", "env:hunter2/", "file:hunter2", "file:", "vault:hunter2"]
)
def test_what_is_no_reference_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="write ") as wrong:
        checked_reference(text)
    with pytest.raises(Misconfigured, match=r"^storage\.key: ") as told:
        resolve(text, "storage.key")
    assert "hunter2" not in f"{wrong.value} {told.value} {told.value.remedy}"


def test_a_literal_secret_is_refused_without_being_shown() -> None:
    with pytest.raises(Misconfigured, match="is neither env:NAME nor file:/path") as told:
        resolve("hunter2", "storage.key")
    assert "hunter2" not in f"{told.value} {told.value.remedy}"


def test_a_secret_that_was_changed_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    assert resolve(f"file:{tmp_path}/key", "key") == "old"
    (tmp_path / "key").write_text("new")
    assert resolve(f"file:{tmp_path}/key", "key") == "new"
