"""The answers that the records of a backfill would get from the log, found for all of them at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg

from refold.model.backfill.effect import ANSWERS
from refold.store.file_backfills import FileBackfill

NAMED = 20
"""Most conflicts that are named, most records that are no events, and most that contracts refuse."""
TOO_MANY = 0.01
"""Part of the records that conflict from which a backfill does not run unless somebody accepts it."""
MOST = 0.5
"""Part of the records that contracts refuse from which a backfill does not run unless somebody accepts it."""

# As refold.admit_parsed and refold.judge decide: what the ledger knows is not judged by contracts; of two records with
# one id, the first that contracts take is stored. (One that they refuse, and whose id an earlier record has, is invalid
# here. The run may call it a conflict, if the log has that one by then.) Each join meets only the records that it is
# about: nearly all are new, and those are joined to nothing.
_ANSWERS = """
WITH known AS MATERIALIZED (
    SELECT s.number,
           CASE WHEN known.digest = 0 THEN 'duplicate'
                WHEN lost.event_id IS NOT NULL THEN 'lost'
                WHEN known.digest = refold.digest(s.user_id, s.action, s.ts, s.metadata, s.version) THEN 'duplicate'
                ELSE 'conflict' END AS answer
    FROM {staging} AS s
    JOIN refold.event_ids AS known ON known.event_id = s.event_id
    LEFT JOIN refold.lost_events AS lost ON lost.event_id = known.event_id
    WHERE s.problem IS NULL
    UNION ALL
    SELECT s.number, 'duplicate'
    FROM {staging} AS s
    JOIN refold.erased_events AS e ON e.renamed AND e.mac = refold.erasure_mac(s.event_id)
    WHERE s.problem IS NULL AND (SELECT EXISTS (SELECT FROM refold.erased_events WHERE renamed))
    UNION ALL
    SELECT s.number,
           CASE WHEN s.cold = 0 THEN 'duplicate'
                WHEN lost.event_id IS NOT NULL THEN 'lost'
                WHEN s.cold = refold.cold_digest(refold.digest(s.user_id, s.action, s.ts, s.metadata, s.version))
                    THEN 'duplicate'
                ELSE 'archived' END
    FROM (
        SELECT h.*, c.digests[array_position(c.ids, h.id)] AS cold
        FROM (
            SELECT s.*, refold.cold_id(s.event_id) AS id, refold.cold_bucket(s.event_id, w.cold_buckets) AS bucket
            FROM {staging} AS s CROSS JOIN refold.settings AS w
            WHERE s.problem IS NULL AND w.cold_buckets IS NOT NULL
            OFFSET 0
        ) AS h
        JOIN refold.cold_ids AS c ON c.bucket = h.bucket
        WHERE h.id = ANY (c.ids)
    ) AS s
    LEFT JOIN refold.lost_events AS lost ON lost.event_id = s.event_id
    -- On its way to the cold ledger an id is in both.
    WHERE NOT EXISTS (SELECT FROM refold.event_ids AS k WHERE k.event_id = s.event_id)
), suspects AS MATERIALIZED (
    SELECT s.number, s.action, s.version, s.metadata
    FROM {staging} AS s
    CROSS JOIN refold.settings AS w
    LEFT JOIN refold.contracts AS c ON c.action = s.action AND c.version = s.version
    WHERE s.problem IS NULL AND (SELECT EXISTS (SELECT FROM refold.contracts WHERE level <> 'off'))
      AND CASE
          WHEN c.action IS NULL
              THEN w.unknown_versions = 'reject'
                   AND s.action IN (SELECT o.action FROM refold.contracts AS o WHERE o.level <> 'off')
          ELSE c.level = 'enforce' AND NOT refold.keeps_contract(s.metadata, c.predicate, c.keys)
      END
), breaks AS MATERIALIZED (
    SELECT x.number, b.reason
    FROM suspects AS x
    CROSS JOIN LATERAL refold.broken_rule(x.action, x.version, x.metadata) AS b
    WHERE NOT EXISTS (SELECT FROM known AS k WHERE k.number = x.number)
), repeated AS MATERIALIZED (
    SELECT event_id, min(number) AS first
    FROM {staging} AS s
    WHERE problem IS NULL AND NOT EXISTS (SELECT FROM breaks AS b WHERE b.number = s.number)
    GROUP BY event_id HAVING count(*) > 1
)
SELECT number, 'invalid' AS answer, problem AS reason FROM {staging} WHERE problem IS NOT NULL
UNION ALL
SELECT number, answer, NULL FROM known
UNION ALL
SELECT number, 'breaks', reason FROM breaks
UNION ALL
SELECT s.number,
       CASE WHEN refold.digest(f.user_id, f.action, f.ts, f.metadata, f.version)
                 = refold.digest(s.user_id, s.action, s.ts, s.metadata, s.version)
            THEN 'repeated' ELSE 'differs' END,
       NULL
FROM repeated AS r
JOIN {staging} AS f ON f.number = r.first
JOIN {staging} AS s ON s.event_id = r.event_id AND s.number > r.first
WHERE s.problem IS NULL AND NOT EXISTS (SELECT FROM known AS k WHERE k.number = s.number)
  AND NOT EXISTS (SELECT FROM breaks AS b WHERE b.number = s.number)
"""
_REASONS = {
    "lost": "the log has lost the event with this id, and the id stays taken",
    "conflict": "the log holds an event with this id and other content",
    "archived": "the archive holds an event with this id and other content",
    "differs": "an earlier record has this id and other content",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the log would not take.

    Args:
        file: its file.
        line: its line there.
        event_id: its id; None if it is no event.
        reason: why.
    """

    file: str
    line: int
    event_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers; their sum is the number of records.

    Args:
        new: events that the log does not have.
        duplicates: events that the log has, with the same content.
        repeated: events that an earlier record has, with the same content.
        conflicts: ids with other content in the log or in an earlier record.
        invalid: records that are no events, and events that contracts refuse.
        refused: the first conflicts, the first records that are no events, and the first that contracts refuse.
        breaches: the invalid ones that contracts refuse.
    """

    new: int
    duplicates: int
    repeated: int
    conflicts: int
    invalid: int
    refused: list[Refused] = field(default_factory=list)
    breaches: int = 0

    @property
    def too_many_conflicts(self) -> bool:
        """Return whether so many conflict that the files are probably not what they should be."""
        return self.conflicts > TOO_MANY * self._events

    @property
    def too_many_breaches(self) -> bool:
        """Return whether contracts refuse so many that the files, or a contract, are probably wrong."""
        return self.breaches > MOST * self._events

    @property
    def _events(self) -> int:
        return self.new + self.duplicates + self.repeated + self.conflicts + self.breaches


def answers(conn: psycopg.Connection, backfill: FileBackfill) -> Answers:
    """Compare the staged records with the ledger and with each other.

    What is not new is then in the temporary table `ANSWERS`.

    Args:
        conn: the caller's snapshot.
        backfill: the backfill.
    """
    conn.execute(
        f"CREATE TEMPORARY TABLE answers ON COMMIT DROP AS\n{_ANSWERS.format(staging=backfill.staging)}".encode()
    )
    conn.execute(f"ANALYZE {ANSWERS}".encode())
    counts: dict[str, int] = dict(
        conn.execute(f"SELECT answer, count(*) FROM {ANSWERS} GROUP BY answer".encode()).fetchall()
    )
    refused: list[tuple[int, int, str | None, str]] = conn.execute(
        f"""
        SELECT s.file, s.line, s.event_id, coalesce(a.reason, a.answer)
        FROM (
            SELECT *, row_number() OVER (
                PARTITION BY CASE WHEN answer IN ('invalid', 'breaks') THEN answer END ORDER BY number) AS place
            FROM {ANSWERS} WHERE answer NOT IN ('duplicate', 'repeated')
        ) AS a
        JOIN {backfill.staging} AS s USING (number)
        WHERE a.place <= %s
        ORDER BY a.number
        """.encode(),
        (NAMED,),
    ).fetchall()
    conflicts = sum(counts.get(answer, 0) for answer in _REASONS)
    return Answers(
        backfill.total - sum(counts.values()),
        counts.get("duplicate", 0),
        counts.get("repeated", 0),
        conflicts,
        counts.get("invalid", 0) + counts.get("breaks", 0),
        [
            Refused(str(backfill.files[file - 1]["name"]), line, event_id, _REASONS.get(reason, reason))
            for file, line, event_id, reason in refused
        ],
        counts.get("breaks", 0),
    )
