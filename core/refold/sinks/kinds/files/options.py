"""The options of a files sink: its part of the sink's file."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from refold.sinks.secrets import is_reference

Format = Literal["parquet", "csv", "jsonl"]
Compression = Literal["zstd", "snappy", "gzip", "none"]

COMPRESSIONS: dict[Format, tuple[Compression, ...]] = {
    "parquet": ("zstd", "snappy", "gzip", "none"),
    "csv": ("none", "gzip"),
    "jsonl": ("none", "gzip"),
}
"""What each format can be compressed with; the first is the default."""

_SECRET = re.compile(r"secret|passw|token|credential|account_key|private_key|connection_string|sas", re.IGNORECASE)
_NO_SECRETS = ("anon", "cloud", "google_default", "browser", "cache")
"""Words that gcsfs takes as a `token`."""


class Options(BaseModel):
    """Where the files are, and their form.

    Args:
        url: an absolute path, `file:///path`, `s3://bucket/prefix` or another address of an object store; or
            `env:NAME`, the environment variable that holds it.
        format: `parquet`, `csv` or `jsonl`.
        compression: of Parquet `zstd` (default), `snappy`, `gzip` or `none`; of the others `none` (default) or `gzip`.
        storage: options of the fsspec file system, such as `endpoint_url`; a text may be `env:NAME` or `file:/path`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str
    format: Format = "parquet"
    compression: Compression | None = None
    storage: dict[str, Any] = Field(default_factory=dict, repr=False)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return url if url.startswith("env:") else checked_url(url)

    @field_validator("storage")
    @classmethod
    def _holds_no_secret(cls, storage: dict[str, Any]) -> dict[str, Any]:
        _refuse_secrets(storage, "")
        return storage

    @model_validator(mode="after")
    def _fit(self) -> Options:
        if self.compression is not None and self.compression not in COMPRESSIONS[self.format]:
            raise ValueError(
                f"compression: {self.format} is not compressed with {self.compression}; "
                f"write one of {', '.join(COMPRESSIONS[self.format])}"
            )
        return self

    @property
    def compressed(self) -> Compression:
        """Return the compression, which is the format's default if none is given."""
        return self.compression or COMPRESSIONS[self.format][0]


def checked_url(url: str) -> str:
    """Return an address without slashes at its end. Pure.

    Raises:
        ValueError: it is neither an absolute path nor an address, or it holds a user's name or a chain of addresses.
    """
    scheme, mark, rest = url.partition("://")
    if not mark and not url.startswith("/"):
        raise ValueError(
            "write an absolute path such as /srv/metrics, an address such as s3://bucket/metrics, or env:NAME"
        )
    if "::" in url or (mark and not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme)):
        raise ValueError("write one address, such as s3://bucket/metrics")
    if mark and "@" in rest.partition("/")[0]:
        raise ValueError("write no user or password into the address: give them in [files.storage], as env:NAME")
    if (not rest.strip("/") and mark) or not url.strip("/"):
        raise ValueError("write a folder of its own, such as s3://bucket/metrics")
    return url.rstrip("/")


def _refuse_secrets(options: dict[str, Any], path: str) -> None:
    for name, value in options.items():
        if isinstance(value, dict):
            _refuse_secrets(value, f"{path}{name}.")
        elif isinstance(value, str) and _SECRET.search(name) and not is_reference(value) and value not in _NO_SECRETS:
            raise ValueError(f"{path}{name} holds a secret: write env:NAME or file:/path, and put the secret there")


assert set(COMPRESSIONS) == set(get_args(Format))
