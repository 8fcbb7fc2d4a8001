"""Accepting damage: a person declares the present log correct, which is recorded with user, time, reason and losses.

The ledger keeps the ids of missing events, so that no other event takes them. It takes over the content of changed
events and the ids of unknown ones. The checksums of sealed slices are computed again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from refold.errors import BuildError
from refold.model.stream.slices import POSITION_BITS, Range
from refold.postgres.rows import one_row
from refold.postgres.session import plan_freely
from refold.store import archives, incidents
from refold.store.log.guards import GUARDS, guards_disabled, require_owner
from refold.store.log.integrity import WHOLE_LOG, Damage, look, portions
from refold.store.log.seal import DIFFERS, PAIRED, TOGETHER, SliceChecksum, segments, standing

DETAILS = 1_000
"""Most events that a row of `refold.acceptances` names."""


@dataclass(slots=True)
class Accepted:
    """The damage that was accepted, or would be.

    Args:
        segment: qualified name of the segment.
        missing: events that are no longer in the log; their ids stay in the ledger.
        changed: events whose content differs from the ledger's digest.
        unknown: events that were not in the ledger.
        slices: sealed slices whose checksums are computed again.
        damage: the first findings.
    """

    segment: str
    missing: int = 0
    changed: int = 0
    unknown: int = 0
    slices: list[int] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


def damaged(conn: psycopg.Connection) -> list[str]:
    """Return the segments with an open incident of damage."""
    open_ones = incidents.open_incidents(conn, "log_damage")
    return sorted(incident.subject for incident in open_ones)


def would_accept(conn: psycopg.Connection, segment: str) -> Accepted:
    """Return the damage of a segment that `accept` would accept.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        segment: its qualified name.
    """
    result = Accepted(segment)
    for part in _parts(conn, segment):
        with conn.transaction():
            found = [one for one in look(conn, part, ledger=True).damage if one.segment == segment]
            counts = _counts(conn, segment, part) if found else {}
        result.damage += found[: max(0, DETAILS - len(result.damage))]
        result.slices += [(one.position or 0) >> POSITION_BITS for one in found if one.fault == "checksums"]
        result.missing += counts.get("missing", 0)
        result.changed += counts.get("changed", 0)
        result.unknown += counts.get("unknown", 0)
    return result


def accept(conn: psycopg.Connection, segment: str, reason: str, *, by: str = "refold scrub accept") -> Accepted:
    """Accept all present damage of a segment, in one transaction, and return it.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        segment: its qualified name.
        reason: the reason, which is recorded.
        by: name of the command, for the incident.

    Raises:
        DatabaseError: the login may not act as the owner.
        BuildError: an event is in the log twice, which cannot be accepted; or a transaction holds the ledger.
    """
    require_owner(conn)
    found = would_accept(conn, segment)
    if found.damage:
        guards_disabled(conn, "refold.event_ids", GUARDS, lambda: record(conn, found, reason, by=by))
    return found


def record(conn: psycopg.Connection, found: Accepted, reason: str, *, by: str) -> None:
    """Record accepted damage, and update ledger and checksums to the present log.

    Args:
        conn: acts as refold_owner, in a transaction in which the ledger's guards are disabled.
        found: the damage to accept.
        reason: the reason, which is recorded.
        by: name of the command, for the incident.
    """
    row = one_row(
        conn,
        "INSERT INTO refold.acceptances (segment, reason, missing, changed, unknown, details)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING acceptance",
        (found.segment, reason, found.missing, found.changed, found.unknown, Jsonb(_details(conn, found))),
    )
    for part in _parts(conn, found.segment):
        plan_freely(conn)
        bounds = _bounds(conn, found.segment, part)
        for statement in (_ADOPT, _CORRECT, _CORRECT_ERASED, _LOSE):
            conn.execute(statement.encode(), bounds | {"acceptance": row[0]})
    for number in found.slices:
        _reseal(conn, number)
    archives.outdate(conn, found.slices)
    for part in portions({(one.position or 0) >> POSITION_BITS for one in found.damage}):
        for one in look(conn, part, ledger=True).damage:
            if one.segment == found.segment:
                raise BuildError(
                    f"{one.event_id or one.detail} of {found.segment} is still {one.fault}: {one.detail}",
                    remedy="If two events have the same id, remove one of them: `refold scrub` names them.",
                )
    outcome: dict[str, Any] = {"accepted": reason, "missing": found.missing, "changed": found.changed}
    incidents.resolve(conn, "log_damage", found.segment, by=by, outcome=outcome | {"unknown": found.unknown})


_OWN = f"SELECT k.* FROM ({PAIRED}) AS k WHERE {DIFFERS}"
"""Pairs of log and ledger between two positions, where they differ."""
_LOSE = f"""
    INSERT INTO refold.lost_events (event_id, acceptance)
    SELECT known, %(acceptance)s FROM ({_OWN}) AS o WHERE standing IS NULL
    ON CONFLICT DO NOTHING
"""
_CORRECT = f"""
    UPDATE refold.event_ids AS i SET digest = o.content
    FROM ({_OWN}) AS o WHERE o.known = i.event_id AND o.standing IS NOT NULL AND o.digest NOT IN (0, o.content)
"""
# Of an erased event the ledger says nothing, so that every retry is a duplicate.
_CORRECT_ERASED = f"""
    UPDATE refold.erased_events AS x SET digest = o.content
    FROM ({_OWN}) AS o WHERE x.position = o.was AND x.done AND o.digest = 0 AND o.standing IS NOT NULL
"""
# The ledger knows a moved event under its old position.
_ADOPT = f"""
    INSERT INTO refold.event_ids AS i (event_id, digest, position)
    SELECT standing, content, stands FROM ({_OWN}) AS o WHERE known IS NULL AND times = 1 ORDER BY standing
    ON CONFLICT (event_id) DO UPDATE SET digest = excluded.digest, position = excluded.position
    WHERE NOT EXISTS (SELECT FROM refold.events AS e WHERE e.event_id = i.event_id AND e.position = i.position)
"""


def _reseal(conn: psycopg.Connection, number: int) -> None:
    now = standing(conn, number << POSITION_BITS, (number + 1) << POSITION_BITS).get(number, SliceChecksum())
    conn.execute(
        """
        INSERT INTO refold.sealed_slices AS s (slice, passed, sealed_at, events, upto, ids, hash, scrubbed_at)
        VALUES (%s, pg_current_xact_id(), clock_timestamp(), %s, %s::text::xid8, %s, %s, clock_timestamp())
        ON CONFLICT (slice) DO UPDATE SET
            events = excluded.events, ids = excluded.ids, hash = excluded.hash, scrubbed_at = excluded.scrubbed_at,
            upto = greatest(s.upto, excluded.upto)
        """,
        (number, now.events, str(now.upto), now.ids, now.hash),
    )


def _details(conn: psycopg.Connection, found: Accepted) -> dict[str, Any]:
    kept = conn.execute(
        "SELECT slice, events, ids::text, hash::text FROM refold.sealed_slices WHERE slice = ANY (%s) ORDER BY slice",
        (found.slices,),
    ).fetchall()
    return {
        "damage": [asdict(one) for one in found.damage],
        "sealed": [dict(zip(("slice", "events", "ids", "hash"), one, strict=True)) for one in kept],
    }


def _counts(conn: psycopg.Connection, segment: str, part: Range) -> dict[str, int]:
    rows = conn.execute(
        f"""
        SELECT CASE WHEN standing IS NULL THEN 'missing' WHEN known IS NULL OR times > 1 THEN 'unknown'
                    ELSE 'changed' END, count(*)
        FROM ({_OWN}) AS o GROUP BY 1
        """.encode(),
        _bounds(conn, segment, part),
    ).fetchall()
    return {str(fault): int(number) for fault, number in rows}


def _span(conn: psycopg.Connection, segment: str) -> tuple[int, int]:
    """Return the bounds of a segment's positions; a missing segment ends where the next begins."""
    if segment == WHOLE_LOG:
        return 0, 1
    known = segments(conn)
    for one in known:
        if one.name == segment:
            return one.lower, one.upper
    lower = int(segment.rsplit("_", 1)[1])
    row = one_row(conn, "SELECT last_value + 1 FROM refold.events_position")
    return lower, min((one.lower for one in known if one.lower > lower), default=max(int(row[0]), lower + 1))


def _parts(conn: psycopg.Connection, segment: str) -> list[Range]:
    lower, upper = _span(conn, segment)
    last = (upper - 1) >> POSITION_BITS
    return [(low, min(low + TOGETHER - 1, last)) for low in range(lower >> POSITION_BITS, last + 1, TOGETHER)]


def _bounds(conn: psycopg.Connection, segment: str, part: Range) -> dict[str, int]:
    """Return the bounds of the positions of a range of slices within a segment."""
    lower, upper = _span(conn, segment)
    low, high = part
    assert low is not None and high is not None
    return {"lower": max(lower, low << POSITION_BITS), "upper": min(upper, (high + 1) << POSITION_BITS)}
