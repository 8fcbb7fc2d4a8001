"""The invariants, checked against the producers' files, and against each file's query over the log."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from chaos.asked import Asked
from chaos.findings import Findings
from chaos.journal import Count
from chaos.kept import ALL, Kept, query_since, rows_since
from chaos.oracle import CANARIED, CHANGING, METRICS, Event, Metric, Rows, left_out
from chaos.schedule import EXPOSED
from chaos.stage import HERE, Stage

EXAMPLES = 3
"""Of each violation, so many are told."""
TRANSFORMS = {
    "graded": """
        SELECT event_id, user_id, ts,
               CASE WHEN (metadata->>'amount')::numeric >= 100 THEN 'big' ELSE 'small' END AS grade
        FROM events"""
}
"""What the transform does, said a second time, in SQL."""
FIT = {
    "poisoned": "metadata->>'number' IS DISTINCT FROM 'many'",
    "graded": "NOT metadata ? 'smuggled'",
    "shares": "NOT metadata ? 'spoils'",
    "ratios": "event_id NOT IN (SELECT event_id FROM events WHERE metadata ? 'spoils')",
}
"""Conditions on the events on which a query does not fail."""


def _some(items: Any) -> str:
    listed = sorted(items, key=str)
    more = f" and {len(listed) - EXAMPLES} more" if len(listed) > EXAMPLES else ""
    return ", ".join(str(one) for one in listed[:EXAMPLES]) + more


def _row(row: tuple[Any, ...] | None) -> str:
    return "no row" if row is None else "(" + ", ".join(str(value) for value in row) + ")"


def check_log(
    conn: psycopg.Connection, count: Count, found: Findings, log: LiteralString = "refold.events"
) -> list[Event]:
    """I1, I2, I5, I7: all events against the journals. Answers those that are there, from the journals.

    Args:
        conn: a superuser's.
        count: what producers have sent.
        found: takes what does not hold.
        log: the relation of all events.
    """
    stored: dict[str, list[str]] = {}
    rows = conn.execute(
        "SELECT CASE WHEN starts_with(event_id, 'capture:') THEN metadata->>'label' ELSE event_id END, event_id,"
        " user_id, action, ts, metadata->>'label', metadata->>'amount', txid::text::bigint, position"
        f" FROM {log}"
    )
    contents = {}
    places = {}
    for name, event_id, user, action, ts, label, amount, txid, position in rows:
        stored.setdefault(name, []).append(label)
        places[name] = event_id, (txid, position)
        contents[label, name] = (user, action, ts, amount)
    acknowledged = count.acknowledged
    if lost := acknowledged - stored.keys():
        found.lost += len(lost)
        found.add("I1", f"{len(lost)} acknowledged events are not in the log: {_some(lost)}")
    if twice := {name for name, labels in stored.items() if len(labels) > 1}:
        found.double += sum(len(stored[name]) - 1 for name in twice)
        found.add("I2", f"{len(twice)} events are in the log more than once: {_some(twice)}")
    if strange := stored.keys() - count.by_id.keys():
        found.add("I5", f"{len(strange)} events in the log were never sent: {_some(strange)}")
    events: list[Event] = []
    for name in stored.keys() & count.by_id.keys():
        offers = {offer.event["metadata"]["label"]: offer for offer in count.by_id[name]}
        told = {o.event["metadata"]["label"] for o in count.by_id[name] if o.answer in ("accepted", "duplicate")}
        label = stored[name][0]
        if label not in offers or (told and label not in told):
            found.add("I5", f"{name} has a content that was not acknowledged: {label}, not {_some(told)}")
            continue
        event = offers[label].event
        expected = Event.of(event)
        if contents[label, name] != (event["user_id"], event["action"], expected.ts, event["metadata"].get("amount")):
            found.add("I5", f"{name} stands altered in the log: {contents[label, name]}, sent was {event}")
        event_id, place = places[name]
        events.append(replace(expected, id=event_id, place=place))
    _check_captured(conn, found, log)
    _check_rejected(conn, count, {label for labels in stored.values() for label in labels}, found)
    return events


def _check_captured(conn: psycopg.Connection, found: Findings, log: LiteralString) -> None:
    """Each change of a row that was committed is one event, whether its producer has heard of it or not."""
    if conn.execute("SELECT to_regclass('application.sent')").fetchone() == (None,):
        return
    row = conn.execute(
        "SELECT (SELECT coalesce(sum(changes), 0) FROM application.sent),"
        f" (SELECT count(*) FROM {log} WHERE starts_with(event_id, 'capture:'))"
    ).fetchone()
    assert row is not None
    changes, events = row
    if events < changes:
        found.lost += changes - events
        found.add("I1", f"{changes} changes of captured rows were committed, and {events} are events")
    if events > changes:
        found.double += events - changes
        found.add("I2", f"{changes} changes of captured rows were committed, and {events} are events")


def _check_rejected(conn: psycopg.Connection, count: Count, stored: set[str], found: Findings) -> None:
    """Per producer, what was received is stored, a duplicate of what is stored, or rejected."""
    kept: dict[str, set[str]] = {}
    for source, label in conn.execute(
        'SELECT source, (regexp_match(raw, \'"label": ?"([^"]*)"\'))[1] FROM refold.rejected'
    ):
        kept.setdefault(source, set()).add(label)
    received: Counter[str] = Counter()
    accounted: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for offer in count.offered:
        if offer.answer is None:
            continue
        label = offer.event["metadata"]["label"]
        received[offer.source] += 1
        aside = label in kept.get(offer.source, set())
        if aside if offer.answer in ("invalid", "conflict") else label in stored:
            accounted[offer.source] += 1
        else:
            examples.setdefault(offer.source, []).append(f"{offer.event['id']} answered {offer.answer}")
    for source in received:
        if received[source] != accounted[source]:
            found.add(
                "I7",
                f"{source}: {received[source]} received, but {accounted[source]} stored or rejected: "
                f"{_some(examples[source])}",
            )


def _rows(conn: psycopg.Connection, name: str) -> tuple[Metric, Rows, int]:
    """A metric as analysts see it, by key; and how many rows share their key with another."""
    cursor = conn.execute(sql.SQL("SELECT * FROM metrics.{}").format(sql.Identifier(name)))
    assert cursor.description is not None
    columns = tuple(column.name for column in cursor.description)
    if name == "canaried":
        metric = Metric(("action", "events"), 1, CANARIED[canaried(conn)])
    else:
        metric = CHANGING[columns] if name == "changing" else METRICS[name]
    places = [columns.index(column) for column in metric.columns]
    rows: Rows = {}
    read = 0
    for row in cursor:
        values = [row[place] for place in places]
        rows[tuple(values[: metric.key])] = tuple(values[metric.key :])
        read += 1
    return metric, rows, read - len(rows)


def check_metrics(
    conn: psycopg.Connection,
    names: list[str],
    events: list[Event],
    stalled: set[str],
    found: Findings,
    when: str,
    kept: Kept = ALL,
) -> None:
    """I3 (and I2, I4 for what is missing or counted twice): metrics against both other ways to compute them.

    Args:
        conn: a superuser's.
        names: of the metrics.
        events: what the log holds, as its producers sent it.
        stalled: metrics that have not applied everything, so that nothing can be said of what they lack.
        found: takes what does not hold.
        when: told with it.
        kept: the first day of metrics that do not keep all.
    """
    conn.execute("SET search_path = pg_temp, refold, pg_catalog; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'")
    for name in names:
        metric, rows, shared = _rows(conn, name)
        expected = rows_since(metric.rows(events), metric, kept.get(name))
        if rows == expected and not shared:
            continue
        missing, extra = expected.keys() - rows.keys(), rows.keys() - expected.keys()
        differ = [key for key in expected.keys() & rows.keys() if expected[key] != rows[key]]
        found.add(
            "I3",
            f"{when}, {name} differs from the independent count: {len(missing)} rows missing, {len(extra)} too many, "
            f"{len(differ)} wrong; "
            + _some(f"{_row(k)}: {_row(rows.get(k))}, not {_row(expected.get(k))}" for k in [*missing, *differ]),
        )
        if name == "graded" and missing and name not in stalled:
            found.add("I4", f"{len(missing)} events were skipped: {_some(key[0] for key in missing)}")
        if name == "daily":
            off = [rows.get(k, (0,))[0] - expected.get(k, (0,))[0] for k in expected.keys() | rows.keys()]
            skipped = 0 if name in stalled else -sum(n for n in off if n < 0)
            found.lost += skipped
            found.double += (double := sum(n for n in off if n > 0))
            if double:
                found.add("I2", f"{name} counts {double} events too many")
            if skipped:
                found.add("I4", f"{name} counts {skipped} events too few")
    check_queries(conn, names, found, when, kept)


def check_queries(conn: psycopg.Connection, names: list[str], found: Findings, when: str, kept: Kept = ALL) -> None:
    """I3: each metric is its file's query over all events, which are in the temporary table `events`."""
    texts = {path.stem: path.read_text() for path in (HERE / "projections").glob("*.sql")} | TRANSFORMS
    texts["changing"] = _changing(conn)
    texts["canaried"] = (HERE / "variants" / f"canaried_{canaried(conn)}.sql").read_text()
    # The streams first, whichever are asked for.
    order = sorted(texts, key=lambda name: "FROM events" not in texts[name])
    for name, condition in FIT.items():
        texts[name] = re.sub(r"FROM (\w+)", rf"FROM (SELECT * FROM \1 WHERE {condition}) AS \1", texts[name], count=1)
    texts |= {name: query_since(texts[name], day) for name, day in kept.items()}
    with conn.transaction(force_rollback=True):
        for name in order:
            conn.execute(f"CREATE TEMPORARY VIEW {name} AS {texts[name]}".encode())
        for name in names:
            query = sql.SQL(
                "SELECT (SELECT count(*) FROM (TABLE metrics.{name} EXCEPT ALL TABLE pg_temp.{name}) AS a),"
                "       (SELECT count(*) FROM (TABLE pg_temp.{name} EXCEPT ALL TABLE metrics.{name}) AS b)"
            )
            row = conn.execute(query.format(name=sql.Identifier(name))).fetchone()
            if row != (0, 0):
                found.add("I3", f"{when}, {name} differs from its query over the log: (too many, missing) = {row}")


def canaried(conn: psycopg.Connection) -> str:
    """The variant of `canaried` that is live."""
    row = conn.execute(
        "SELECT definition FROM refold.builds WHERE projection = 'canaried' AND state = 'live'"
    ).fetchone()
    assert row is not None
    return "paid" if "amount" in row[0] else "all"


def _changing(conn: psycopg.Connection) -> str:
    """The variant of `changing` that is live."""
    columns = [c.name for c in conn.execute("SELECT * FROM metrics.changing LIMIT 0").description or ()]
    return (HERE / "variants" / f"changing_by_{'month' if 'month' in columns else 'action'}.sql").read_text()


def check_repairs(conn: psycopg.Connection, found: Findings) -> int:
    """I3: nobody tampered with the witnesses, so nothing in them may have been healed. Answers all that was healed.

    Who reads an event while the log is damaged there keeps what it read, until the log is whole again and an audit
    compares. So two kinds of rows do not count: those of the users whose events are damaged, and those of a build that
    read the log while it was damaged and was healed before it went live.
    """
    rows = conn.execute(
        """
        SELECT r.projection, count(*), count(*) FILTER (WHERE NOT (
            coalesce(r.key ->> 'user_id' LIKE 'damaged-%', false)
            OR coalesce(r.key ->> 'event_id' LIKE 'damaged-%', false)
            OR (b.promoted_at IS NULL OR r.repaired_at < b.promoted_at) AND EXISTS (
                SELECT FROM refold.incidents AS i
                WHERE i.kind = 'log_damage' AND b.created_at < i.resolved_at AND i.detected_at < r.repaired_at)))
        FROM refold.repairs AS r JOIN refold.builds AS b USING (build_id)
        GROUP BY r.projection
        """
    ).fetchall()
    for name, _, unexplained in rows:
        if name not in EXPOSED and unexplained:
            found.add("I3", f"{name} drifted by itself: {unexplained} of its rows had to be healed")
    return sum(repaired for _, repaired, _ in rows)


def check_bases(conn: psycopg.Connection, asked: list[Asked], found: Findings) -> None:
    """I15: of the witnesses, what stands for purged events never had to be healed from the archive, but by erasures.

    Between the two steps of an erasure the archive lacks the person before the metrics do. Whoever audits then does
    the second step.
    """
    rows = conn.execute(
        "SELECT DISTINCT subject FROM refold.incidents AS i"
        " WHERE kind = 'drift' AND evidence ? 'archive' AND detected_by <> 'refold erase' AND NOT EXISTS ("
        "     SELECT FROM unnest(%s::timestamptz[], %s::timestamptz[]) AS a (since, until)"
        "     WHERE i.detected_at BETWEEN a.since AND coalesce(a.until, 'infinity'))",
        ([one.since for one in asked], [one.until for one in asked]),
    ).fetchall()
    for (name,) in rows:
        if name not in EXPOSED:
            found.add("I15", f"what stood for purged events in {name} was not what the archive has")


def check_dead_letters(conn: psycopg.Connection, events: list[Event], stalled: set[str], found: Findings) -> None:
    """I7: each metric has rejected the events on which it fails, and nothing else."""
    rows = conn.execute(
        "SELECT b.projection, d.event_id FROM refold.dead_letters AS d JOIN refold.builds AS b USING (build_id)"
        " WHERE b.state = 'live' AND d.state = 'waiting'"
    ).fetchall()
    aside: dict[str, set[str]] = {}
    for name, event_id in rows:
        aside.setdefault(name, set()).add(event_id)
    must = left_out(events)
    for name in (must.keys() | aside.keys()) - stalled:
        expected, there = must.get(name, set()), aside.get(name, set())
        if there - expected:
            found.add("I7", f"{name} leaves out events that it could count: {_some(there - expected)}")
        if expected - there:
            found.add("I7", f"{name} has not rejected events on which it fails: {_some(expected - there)}")


OVER = (
    "log_damage",
    "held_snapshot",
    "held_back",
    "stalled",
    "lag",
    "drift",
    "capture_gap",
    "sink",
    "undelivered",
    "archive_damage",
    "backfill_paused",
)
"""Kinds of incident that must be over when nothing goes wrong any more."""


def open_incidents(conn: psycopg.Connection) -> list[tuple[str, str, str]]:
    """Kind, subject and evidence of the incidents that should be over, and are not."""
    return conn.execute(
        "SELECT kind, subject, evidence::text FROM refold.incidents WHERE resolved_at IS NULL AND kind = ANY (%s)"
        " ORDER BY incident_id",
        (list(OVER),),
    ).fetchall()


def check_incidents(conn: psycopg.Connection, found: Findings, *, seconds: float) -> None:
    """I8: incidents close when what they tell of is over."""
    end = time.monotonic() + seconds
    while open_ones := open_incidents(conn):
        if time.monotonic() > end:
            for kind, subject, evidence in open_ones:
                found.add("I8", f"the incident {kind} of {subject} is still open: {evidence[:300]}")
            return
        time.sleep(0.5)


def live(stage: Stage) -> list[str]:
    """The projections of the campaign."""
    return sorted(path.stem for path in stage.projections.iterdir() if path.suffix in (".sql", ".py"))
