"""What nobody can prove of an erasure yet, and from which date on."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from refold.prose import counted
from refold.store.schema.settings import Settings


def backups(settings: Settings) -> str:
    """Return what the proof says of backups.

    Args:
        settings: say how long they are kept.
    """
    told = (
        "Earlier versions of the rows are in the write-ahead log, on replicas until they have replayed it, and in every"
        " base backup and dump from before, until these are removed."
    )
    kept = settings.backups_kept
    if kept is None:
        return f"{told} refold does not know when you remove them (refold.settings.backups_kept)."
    return f"{told} They are kept for {counted(kept.days, 'day')}: not provable before {_first_day(kept)}."


def versions(settings: Settings) -> list[str]:
    """Return what the proof says of former versions of removed objects; nothing if the bucket keeps none.

    Args:
        settings: say how long it keeps them.
    """
    kept = settings.versions_kept
    if kept is None:
        return [
            "refold cannot see whether the bucket keeps former versions of objects, or locks them. Then what was"
            " removed is there, and its absence not provable, until the date on which the rules of the bucket remove"
            " these versions (refold.settings.versions_kept)."
        ]
    if not kept:
        return []
    return [
        f"The bucket keeps former versions of removed objects for {counted(kept.days, 'day')}: their absence is not"
        f" provable before {_first_day(kept)}."
    ]


def _first_day(kept: timedelta) -> date:
    """Return the first day (UTC) on which nothing from before today is kept any more."""
    return (datetime.now(UTC) + kept).date() + timedelta(days=1)
