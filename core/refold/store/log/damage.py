"""Incidents about damage to the log: one for each segment, with its slices, so that they are verified again.

A scrub that finds damage opens the incident; a duty resolves it when the slices are intact again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

import psycopg

from refold.model.stream.slices import POSITION_BITS, multirange, runs
from refold.store import incidents
from refold.store.incidents import Incident
from refold.store.log.cold_ledger import TABLE, ColdLook
from refold.store.log.integrity import Damage, LogDamaged, look, portions
from refold.store.log.seal import segments

EVIDENCE = 20
"""Most events that an incident names."""


def leave(
    conn: psycopg.Connection,
    damage: Sequence[Damage],
    slices: Collection[int],
    *,
    by: str,
    not_healed: str | None = None,
    not_promoted: Sequence[str] = (),
) -> None:
    """Open an incident for each damaged segment, or update the open one.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        damage: damage that was found.
        slices: damaged slices.
        by: duty or command that found it.
        not_healed: projection that is not healed because of the damage.
        not_promoted: tables of builds that are not promoted because of it.
    """
    spans = {segment.name: segment for segment in segments(conn)} if damage else {}
    for name in dict.fromkeys(one.segment for one in damage):
        found = [asdict(one) for one in damage if one.segment == name]
        own = {(one.position or 0) >> POSITION_BITS for one in damage if one.segment == name}
        if name in spans:
            first, last = spans[name].lower >> POSITION_BITS, (spans[name].upper - 1) >> POSITION_BITS
            own |= {number for number in slices if first <= number <= last}
        own |= _open(conn, name)
        evidence: dict[str, object] = {
            "damage": found[:EVIDENCE],
            "found": len(found),
            "slices": multirange(runs(own)),
        }
        named = {"not_healed": [] if not_healed is None else [not_healed], "not_promoted": not_promoted}
        for incident in incidents.open_incidents(conn, "log_damage", subject=name):
            named = {what: [*incident.evidence.get(what, []), *names] for what, names in named.items()}
        evidence |= {what: sorted(set(names)) for what, names in named.items() if names}
        incidents.detect(conn, "log_damage", name, by=by, evidence=evidence)


def leave_cold(conn: psycopg.Connection, found: ColdLook, *, by: str, whole: bool) -> None:
    """Open the incident of the cold ledger if it is damaged; resolve it after a look at all that found nothing.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        found: what was found.
        by: duty or command that looked.
        whole: whether it looked at all buckets.
    """
    if not found.intact:
        evidence = {"buckets": list(found.damaged[:EVIDENCE]), "found": str(found)}
        incidents.detect(conn, "log_damage", TABLE, by=by, evidence=evidence)
    elif whole:
        incidents.resolve(conn, "log_damage", TABLE, by=by, outcome=AS_IT_WAS)


def resolve_others(conn: psycopg.Connection, damage: Sequence[Damage], *, by: str) -> None:
    """Resolve the incidents of segments that are not damaged, after a scrub of all segments."""
    damaged = {TABLE, *(one.segment for one in damage)}
    for incident in incidents.open_incidents(conn, "log_damage"):
        if incident.subject not in damaged:
            incidents.resolve(conn, "log_damage", incident.subject, by=by, outcome=AS_IT_WAS)


AS_IT_WAS = {"found": "intact"}


def look_again(conn: psycopg.Connection, *, by: str) -> None:
    """Verify the slices that are known to be damaged, and resolve the incidents of segments that are intact again.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        by: duty or command, for the incidents.
    """
    for incident in incidents.open_incidents(conn, "log_damage"):
        with conn.transaction():
            # An incident without slices is an older version's: `refold scrub` looks at all there is.
            if "slices" in incident.evidence and not damage_of(conn, incident):
                incidents.resolve(conn, "log_damage", incident.subject, by=by, outcome=AS_IT_WAS)


def damage_of(conn: psycopg.Connection, incident: Incident) -> list[Damage]:
    """Return the present damage in the slices of an open incident."""
    return [
        one
        for part in portions(_slices(conn, incident))
        for one in look(conn, part).damage
        if one.segment == incident.subject
    ]


def refuse_known(conn: psycopg.Connection) -> None:
    """Raise an error if known damage still exists, which is faster than a search for damage.

    Args:
        conn: the caller's transaction.

    Raises:
        LogDamaged: the damage still exists.
    """
    for incident in incidents.open_incidents(conn, "log_damage"):
        found = damage_of(conn, incident)
        if found:
            raise LogDamaged(found, _slices(conn, incident))


def _open(conn: psycopg.Connection, segment: str) -> set[int]:
    """Return the slices that the open incident of a segment names."""
    for incident in incidents.open_incidents(conn, "log_damage", subject=segment):
        return _slices(conn, incident)
    return set()


def _slices(conn: psycopg.Connection, incident: Incident) -> set[int]:
    rows = conn.execute(
        "SELECT generate_series(lower(r), upper(r) - 1) FROM unnest(%s::int4multirange) AS r",
        (incident.evidence.get("slices", "{}"),),
    ).fetchall()
    return {int(number) for (number,) in rows}
