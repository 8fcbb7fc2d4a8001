"""The proof of an erasure: what was counted, changed and removed, and what nobody can prove yet. It names nobody."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import psycopg

from refold.engine.erasure import not_provable
from refold.engine.erasure.again import export
from refold.engine.erasure.archive import record
from refold.model.erasure import Person
from refold.model.sql_text import ident
from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row
from refold.store import erasures
from refold.store.erasures import Erasure
from refold.store.schema.settings import read_settings


def count_in_builds(conn: psycopg.Connection, person: Person) -> dict[str, int]:
    """Return the rows of metrics in which a column is the user id, or a field of metadata the person, by table."""
    found: dict[str, int] = {}
    columns = conn.execute(
        """
        SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'refold_builds'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
          AND format_type(a.atttypid, NULL) IN ('text', 'character varying', 'jsonb', 'text[]')
        ORDER BY 1, a.attnum
        """
    ).fetchall()
    for table in dict.fromkeys(name for name, _, _ in columns):
        tests = [_TESTS[kind].format(ident(name)) for of, name, kind in columns if of == table]
        (rows,) = one_row(
            conn,
            f"SELECT count(*) FROM refold_builds.{ident(table)} WHERE {' OR '.join(tests)}".encode(),
            {"values": list(person.values)},
        )
        if rows:
            found[f"refold_builds.{ident(table)}"] = int(rows)
    return found


_TESTS = {
    "text": "{} = ANY (%(values)s)",
    "character varying": "{} = ANY (%(values)s)",
    "text[]": "{} && %(values)s::text[]",
    "jsonb": "jsonb_path_exists({}, '$.** ? (@ == $v[*])', jsonb_build_object('v', to_jsonb(%(values)s::text[])))",
}


def prove(conn: psycopg.Connection, erasure: Erasure) -> Erasure:
    """Write the proof of an erasure, and finish it; return it as it is then.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        erasure: the erasure, whose other steps are done.
    """
    with conn.transaction():
        # A worker and a command may have come here: one of them writes the proof.
        conn.execute("SELECT FROM refold.erasures WHERE erasure_id = %s FOR UPDATE", (erasure.erasure_id,))
        erasure = erasures.by_id(conn, erasure.erasure_id)
        if erasure.step == "proof":
            proof = proof_of(conn, erasure)
            record(conn, erasure, {**export(conn, [erasure]), "proof": proof})
            failpoint("erasure_recorded")
            erasure = erasures.move(conn, erasure, "done", {**erasure.evidence, "proof": proof})
    return erasure


def proof_of(conn: psycopg.Connection, erasure: Erasure) -> dict[str, Any]:
    """Return the proof as JSON; `sha256` is of the rest of it, as compact JSON with sorted names."""
    told = erasure.evidence
    own, mentions = one_row(
        conn,
        "SELECT count(*) FILTER (WHERE NOT mention), count(*) FILTER (WHERE mention) FROM refold.erased_events"
        " WHERE erasure_id = %s AND done",
        (erasure.erasure_id,),
    )
    (now,) = one_row(conn, "SELECT clock_timestamp()")
    proof: dict[str, Any] = {
        "refold": 1,
        "erasure": str(erasure.name),
        "subject": erasure.subject.hex(),
        "mode": erasure.mode,
        "reason": erasure.reason,
        "requested_by": erasure.requested_by,
        "requested_at": erasure.requested_at.isoformat(),
        "proved_at": now.isoformat(),
        "events": own,
        "mentions": mentions,
        "places": {
            table: {"before": rows, "after": told.get("after", {}).get(table, 0)}
            for table, rows in sorted({**dict.fromkeys(told.get("after", {}), 0), **told.get("before", {})}.items())
        },
        "slices": len(told.get("slices", ())),
        "sealed_slices_proved": len(told.get("resealed", ())),
        "dead_letters_dropped": told.get("dead_letters", 0),
        "metrics": told.get("metrics", {}),
        "archive": told.get("archive", []),
        "vacuum": told.get("vacuum", {}),
        "receivers": _receivers(conn),
        "waits_for_receivers": told.get("waiting", {}),
        "not_provable": [not_provable.backups(read_settings(conn)), *told.get("not_provable", [])],
    }
    return proof | {"sha256": sha256_of(proof)}


def sha256_of(proof: dict[str, Any]) -> str:
    """Return the SHA-256 of a proof without its own. Pure."""
    kept = {name: value for name, value in proof.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _receivers(conn: psycopg.Connection) -> list[dict[str, str]]:
    """Return the sinks, and how the person leaves what they have delivered."""
    rows = conn.execute("SELECT name, kind, grain FROM refold.sinks ORDER BY name").fetchall()
    return [
        {"sink": name, "kind": kind, "how": _HOW[grain if kind != "webhook" else "webhook"]}
        for name, kind, grain in rows
    ]


_HOW = {
    "rows": "it gets the keys that changed or went, by the ordinary delivery",
    "events": "it gets the changed events by the ordinary delivery; files that it has written hold the former ones, and"
    " refold cannot change them",
    "webhook": "it gets the keys that changed or went, once each, and then one notice; refold does not know what it did"
    " with former ones",
}
