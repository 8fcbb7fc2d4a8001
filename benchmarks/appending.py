"""Getting events in: in bulk against a raw COPY, and one by one from many clients against no triggers."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from itertools import islice

import psycopg
from psycopg import sql

from benchmarks import dataset
from benchmarks.report import Figure
from benchmarks.rounds import Comparison, alternate
from benchmarks.server import Server
from refold import Log, SourceEvent

BATCH = 20_000
CLIENTS = 32
ROUNDS = 5
SECONDS = 5.0
"""How long each round of single appends lasts."""

BULK_BASELINE = """
    CREATE SEQUENCE plain_position;
    CREATE TABLE plain_log (
        position bigint PRIMARY KEY DEFAULT nextval('plain_position'),
        event_id text COLLATE "C" NOT NULL UNIQUE,
        user_id text COLLATE "C",
        action text COLLATE "C" NOT NULL,
        ts timestamptz NOT NULL,
        metadata jsonb NOT NULL,
        version integer NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT now()
    )
"""

SINGLE = """
    SELECT * FROM refold.append(jsonb_build_array(jsonb_build_object(
        'id', gen_random_uuid(), 'user_id', 'user-' || (random() * 100000)::integer, 'action', 'view',
        'ts', (extract(epoch FROM now()) * 1000)::bigint, 'metadata', jsonb_build_object('amount', 7))));
"""

# What the trigger on the log does for the ledger, as a statement of the function itself.
LEDGER = """
            ),
            ledger AS (
                INSERT INTO refold.event_ids (event_id, digest, position)
                SELECT f.event_id, refold.digest(f.user_id, f.action, f.ts, f.metadata, f.version), 0
                FROM fresh AS f
                ORDER BY f.event_id
            )
            SELECT array_agg"""


def measure(server: Server, events: int) -> list[Figure]:
    """Both ways in."""
    return [_bulk(server, events), _single(server, min(SECONDS, events / 50_000))]


def _bulk(server: Server, events: int) -> Figure:
    rounds = max(2, events // BATCH)
    size = events // rounds
    with server.database("appending") as url, psycopg.connect(url, autocommit=True) as conn, Log(url) as log:
        conn.execute(BULK_BASELINE)
        offered = dataset.events(0, size * rounds)
        batch: list[SourceEvent] = []

        def fresh() -> None:
            batch[:] = islice(offered, size)

        def product(at: int) -> None:
            receipts = log.append(batch)
            assert len(receipts) == size

        def baseline(at: int) -> None:
            with (
                conn.cursor() as cursor,
                cursor.copy("COPY plain_log (event_id, user_id, action, ts, metadata, version) FROM STDIN") as copy,
            ):
                for event in batch:
                    copy.write(_copy_line(event))

        compared = alternate(rounds, size, product, baseline, before=fresh)
    return Figure(
        "appending",
        f"Log.append in batches of {size:,}",
        compared.measured,
        "events/s",
        compared.baseline,
        compared.ratio,
        at_least=0.8,
    )


def _copy_line(event: SourceEvent) -> str:
    """A row for COPY, as a fast loader of one's own makes it."""
    user = "\\N" if event.user_id is None else _escaped(event.user_id)
    metadata = _escaped(json.dumps(event.metadata))
    return (
        f"{_escaped(event.id)}\t{user}\t{_escaped(event.action)}\t{event.ts.isoformat()}\t{metadata}\t{event.version}\n"
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _single(server: Server, seconds: float) -> Figure:
    """Nobody sleeps here, so nobody is notified; what is measured is what the triggers cost each append."""
    with server.database("triggers") as triggers, server.database("bare") as bare:
        with psycopg.connect(bare, autocommit=True) as conn:
            _without_triggers(conn)
        rates = [(_rate(server, triggers, seconds), _rate(server, bare, seconds)) for _ in range(ROUNDS)]
    compared = Comparison(tuple((1 / product, 1 / baseline) for product, baseline in rates), 1.0)
    return Figure(
        "appending",
        f"{CLIENTS} clients with single events through SQL",
        compared.measured,
        "events/s",
        compared.baseline,
        compared.ratio,
        at_least=0.85,
    )


def _without_triggers(conn: psycopg.Connection) -> None:
    for (trigger,) in conn.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'refold.events'::regclass AND NOT tgisinternal"
    ).fetchall():
        conn.execute(sql.SQL("DROP TRIGGER {} ON refold.events").format(sql.Identifier(trigger)))
    for (segment,) in conn.execute("SELECT segment::text FROM refold.segments").fetchall():
        conn.execute(sql.SQL("DROP TRIGGER refuse_change ON {}").format(sql.SQL(segment)))
    row = conn.execute("SELECT pg_get_functiondef('refold.admit_parsed'::regproc)").fetchone()
    assert row is not None
    function, changes = re.subn(r"\s+\)\s+SELECT array_agg", LEDGER, row[0])
    assert changes == 1, row[0]
    conn.execute(function.encode())


def _rate(server: Server, url: str, seconds: float) -> float:
    """Appends per second, measured by pgbench."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(" ".join(SINGLE.split()))
        script.flush()
        clients = ["--client", str(CLIENTS), "--jobs", "2", "--protocol", "prepared", "--no-vacuum"]
        command = [server.pgbench, *clients, "--time", str(max(1, round(seconds))), "--file", script.name, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"tps = ([0-9.]+) \(without initial", done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"pgbench failed: {done.stderr.strip()}")
    return float(found[1])
