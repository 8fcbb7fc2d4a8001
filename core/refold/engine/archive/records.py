"""The records of erasures in the archive's store: what a database needs that was restored from an older backup."""

from __future__ import annotations

import json
from collections import defaultdict

from refold.engine.archive.object_store import Store

FOLDER = "erasures"
"""Where the store has them."""


def put(store: Store, name: str, content: bytes) -> None:
    """Put a record in the place of the one with this name, if there is one."""
    store.replace(f"{FOLDER}/{name}.json", content)


def records(store: Store) -> list[bytes]:
    """Return all records."""
    return [content for name in sorted(store.names(FOLDER)) if (content := store.read(name)) is not None]


def successors(store: Store, sha256: bytes) -> set[bytes]:
    """Return the SHA-256 of the files that erasures have put in the place of a file, one after another.

    Args:
        store: the archive.
        sha256: of the file.
    """
    written: dict[str, set[str]] = defaultdict(set)
    for content in records(store):
        for one in _files(content):
            if one.get("former_sha256") and one.get("sha256"):
                written[one["former_sha256"]].add(one["sha256"])
    found: set[str] = set()
    waiting = [sha256.hex()]
    while waiting:
        more = written[waiting.pop()] - found
        found |= more
        waiting += more
    return {bytes.fromhex(one) for one in found}


def _files(content: bytes) -> list[dict[str, str]]:
    """Return what a record says of files; nothing if it is none."""
    try:
        return list(json.loads(content)["proof"]["archive"])
    except (ValueError, KeyError, TypeError):
        return []
