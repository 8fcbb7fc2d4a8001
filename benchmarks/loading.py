"""Getting a file in, against the fastest loaders that a user has: COPY of lines that were prepared beforehand.

Every way in meets the same server in turns, with events of its own. Files are loaded by programs, `refold ingest` and
psql, from start to end. psql is that of the embedded PostgreSQL.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from benchmarks import dataset
from benchmarks.appending import BULK_BASELINE
from benchmarks.report import Figure
from benchmarks.rounds import Comparison, alternate
from benchmarks.server import Server
from refold import Log, SourceEvent
from refold.model.event.exact_json import metadata_json

BATCH = 20_000
"""Dicts in one batch of `Log.append`."""
CALL = 10_000
"""Events in one call of `refold.append` in SQL."""
ROUNDS = 3
OF_A_FILE = 0.65
OF_A_BATCH = 0.6
OF_A_CALL = 0.65

_COLUMNS = "event_id, user_id, action, ts, metadata, version"
_RECORDSET = f"""
    INSERT INTO plain_log ({_COLUMNS})
    SELECT id, user_id, action, ts, metadata, coalesce(version, 1)
    FROM jsonb_to_recordset(%s) AS e (
        id text, user_id text, action text, ts timestamptz, metadata jsonb, version integer)
"""


def measure(server: Server, events: int) -> list[Figure]:
    """Files, batches of dicts, and calls in SQL."""
    if not Path(server.psql).exists():
        raise RuntimeError(f"there is no psql in {Path(server.psql).parent}")
    size = max(20_000, events // 5)
    figures = [_files(server, server.psql, form, size) for form in ("csv", "jsonl", "csv.gz", "jsonl.gz")]
    return [*figures, _batches(server, size), _calls(server, size)]


def _files(server: Server, psql: str, form: str, size: int) -> Figure:
    with server.database("loading") as url, tempfile.TemporaryDirectory(prefix="refold-loading-") as folder:
        here = Path(folder)
        loaded, lines = here / f"events.{form}", here / "lines"
        copy = f"\\copy refold.events ({_COLUMNS}) FROM '{lines}'"
        made = iter(range(2 * ROUNDS))

        def fresh() -> None:
            _write_file(loaded, _events(next(made), size))
            lines.write_text("".join(map(_copy_line, _events(next(made), size))))
            _make_room(url, 2 * size)

        def product(at: int) -> None:
            _run([sys.executable, "-m", "refold", "ingest", str(loaded), "--database-url", url])

        def baseline(at: int) -> None:
            _run([psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", copy, url])

        compared = alternate(ROUNDS, size, product, baseline, before=fresh)
        _check(url, 2 * ROUNDS * size)
    return _figure(f"refold ingest of {form}, {size:,} records, against psql's \\copy", compared, OF_A_FILE)


def _batches(server: Server, size: int) -> Figure:
    rounds = max(ROUNDS, size // BATCH)
    with server.database("loading") as url, psycopg.connect(url, autocommit=True) as conn, Log(url) as log:
        made = iter(range(2 * rounds))
        dicts: list[dict[str, object]] = []
        lines: list[str] = []

        def fresh() -> None:
            dicts[:] = map(_fields, _events(next(made), BATCH))
            lines[:] = ["".join(map(_copy_line, _events(next(made), BATCH)))]

        def product(at: int) -> None:
            assert len(log.append(dicts)) == BATCH

        def baseline(at: int) -> None:
            with conn.cursor() as cursor, cursor.copy(f"COPY refold.events ({_COLUMNS}) FROM STDIN".encode()) as copy:
                copy.write(lines[0])

        compared = alternate(rounds, BATCH, product, baseline, before=fresh)
        _check(url, 2 * rounds * BATCH)
    return _figure(f"Log.append of {BATCH:,} dicts, against COPY of prepared lines", compared, OF_A_BATCH)


def _calls(server: Server, size: int) -> Figure:
    rounds = max(ROUNDS, size // CALL)
    with server.database("loading") as url, psycopg.connect(url, autocommit=True) as conn:
        conn.execute(BULK_BASELINE)
        made = iter(range(2 * rounds))
        calls: list[str] = []

        def fresh() -> None:
            calls[:] = [json.dumps([_fields(one) for one in _events(next(made), CALL)]) for _ in range(2)]

        def product(at: int) -> None:
            conn.execute("SELECT count(*) FROM refold.append(%s)", (calls[0],))

        def baseline(at: int) -> None:
            conn.execute(_RECORDSET.encode(), (calls[1],))

        compared = alternate(rounds, CALL, product, baseline, before=fresh)
        _check(url, rounds * CALL)
    return _figure(f"refold.append(jsonb) of {CALL:,} events, against INSERT of a recordset", compared, OF_A_CALL)


def _figure(what: str, compared: Comparison, goal: float) -> Figure:
    return Figure("loading", what, compared.measured, "events/s", compared.baseline, compared.ratio, at_least=goal)


def _events(part: int, size: int) -> Sequence[SourceEvent]:
    """Return events that no other part has."""
    return list(dataset.events(part * size, (part + 1) * size))


def _fields(event: SourceEvent) -> dict[str, object]:
    return {
        "id": event.id,
        "user_id": event.user_id,
        "action": event.action,
        "ts": event.ts.isoformat(),
        "metadata": event.metadata,
    }


def _write_file(path: Path, events: Sequence[SourceEvent]) -> None:
    opened: Callable[..., object] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt") as file:  # type: ignore[attr-defined]
        if ".csv" in path.name:
            file.write("id,user_id,action,ts,amount,page\n")
            file.writelines(
                f"{e.id},{e.user_id},{e.action},{e.ts.isoformat()},{e.metadata['amount']},{e.metadata['page']}\n"
                for e in events
            )
        else:
            file.writelines(json.dumps(_fields(event), separators=(",", ":")) + "\n" for event in events)


def _copy_line(event: SourceEvent) -> str:
    """Return a row for COPY; these events need no escapes."""
    metadata = metadata_json(event.metadata)
    return f"{event.id}\t{event.user_id}\t{event.action}\t{event.ts.isoformat()}\t{metadata}\t{event.version}\n"


def _make_room(url: str, events: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SELECT refold.ensure_segments(%s)", (events,))


def _check(url: str, events: int) -> None:
    """Fail unless the log holds that many events."""
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT count(*) FROM refold.events").fetchone()
        assert row == (events,), f"{row} events instead of {events}"


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
