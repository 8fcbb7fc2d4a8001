"""A producer, as a process of its own: `python -m chaos.producer`, told by JSON in its first argument what to do.

Whatever goes wrong, it sends the same batch again until it is answered (or gives up on it for good), writing down
every attempt before and every answer after.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import psycopg
from psycopg.types.json import Jsonb

from chaos import application
from chaos.journal import Event, Journal
from chaos.made import Maker
from refold import Log, append
from refold.postgres.connect import connect
from refold.postgres.sqlstate import transient

GIVES_UP = 0.03
"""Part of the batches that failed once and are then left: nobody will ever know what became of them."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a producer is to do.

    Args:
        name: first part of the ids of its events.
        door: see `DOORS`.
        url: where to; perhaps through a proxy. For the door "http" that of `refold serve`, with the token as its user.
        directory: for its journal and its files.
        seed: of its events.
        pause: seconds between two batches, on average.
    """

    name: str
    door: str
    url: str
    directory: str
    seed: int
    pause: float

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the producer; what it writes on stderr goes to a file beside its journal."""
        with (Path(self.directory) / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "chaos.producer", json.dumps(asdict(self))],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class Producer:
    """Makes batches and brings them through one door.

    Args:
        orders: what to do.
    """

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.random = Random(orders.seed)
        path = Path(orders.directory) / f"{orders.name}.journal"
        self.journal = Journal(path)
        # Started again after it was killed, it must not number its events as before.
        self.maker = Maker(f"{orders.name}-{path.stat().st_size}", self.random)
        self.carts = application.Carts(self.maker, self.random)
        self.log = None if orders.url.startswith("http:") else Log(orders.url, source=orders.name)
        self.stopped = False
        self._conn: psycopg.Connection | None = None

    def run(self) -> None:
        """Produces until SIGTERM, and brings the batch in hand to its end."""
        signal.signal(signal.SIGTERM, self._stop)
        door = DOORS[self.orders.door]
        while not self.stopped:
            try:
                door(self)
            except (psycopg.Error, Unanswered) as error:
                # Only what a lost connection or a busy server explains; anything else is a finding.
                if not _passes(error):
                    raise
                print(f"{time.strftime('%H:%M:%S')} gave a batch up: {error}", file=sys.stderr, flush=True)
            time.sleep(self.random.uniform(0, 2 * self.orders.pause))

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def send(self, events: list[Event], deliver: Callable[[list[Event]], list[str]]) -> None:
        """Sends a batch until it is answered."""
        batch = self.journal.attempted(self.orders.name, events)
        while True:
            try:
                answers = deliver(events)
            except (psycopg.Error, Unanswered) as error:
                self.disconnect()
                if not _passes(error) or self.random.random() < GIVES_UP:
                    raise
                time.sleep(0.1)
                continue
            self.journal.acknowledged(batch, answers)
            self.maker.remember([event for event, answer in zip(events, answers, strict=True) if answer == "accepted"])
            return

    def connection(self) -> psycopg.Connection:
        """A connection of its own, for plain SQL."""
        if self._conn is None or self._conn.closed:
            self._conn = connect(self.orders.url, "refold_producer", application_name="chaos producer")
        return self._conn

    def of_application(self) -> psycopg.Connection:
        """A connection of an application: its role knows nothing of refold, its settings are those of all sessions."""
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(
                self.orders.url, application_name="chaos producer", options=f"-c role={application.ROLE}"
            )
        return self._conn

    def disconnect(self) -> None:
        """Lets go of a connection that failed."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def through_log(self, events: list[Event]) -> list[str]:
        """`refold.Log`, which has retries of its own."""
        assert self.log is not None
        return [receipt.answer.value for receipt in self.log.append(events)]

    def through_http(self, events: list[Event]) -> list[str]:
        """One request to `refold serve`, over a connection of its own."""
        door = urlsplit(self.orders.url)
        client = http.client.HTTPConnection(door.hostname or "", door.port, timeout=30)
        headers = {
            "Authorization": f"Bearer {door.username}",
            "Content-Type": "application/json",
            "Prefer": "return=representation",
        }
        try:
            client.request("POST", "/v1/events", json.dumps(events), headers)
            reply = client.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(f"{type(error).__name__}: {error}") from error
        finally:
            client.close()
        if reply.status in (429, 503) and reply.headers["Retry-After"]:
            raise Unanswered(f"{reply.status}: {body.decode()}")
        if reply.status not in (200, 207, 422):
            raise SystemExit(f"refold serve answered {reply.status}: {body.decode()}")
        return [one["answer"] for one in json.loads(body)["events"]]

    def through_sql(self, events: list[Event]) -> list[str]:
        """`SELECT refold.append(…)`, as any language can."""
        conn = self.connection()
        rows = conn.execute(
            "SELECT answer FROM refold.append(%s, %s) ORDER BY ordinal", (Jsonb(events), self.orders.name)
        ).fetchall()
        conn.commit()
        return [answer for (answer,) in rows]


class Unanswered(Exception):
    """The HTTP door has given no answer for events: the connection was lost, or it said that it cannot now."""


def _passes(error: psycopg.Error | Unanswered) -> bool:
    return isinstance(error, Unanswered) or transient(error)


def by_http(producer: Producer) -> None:
    """`POST /v1/events`, the same bytes again after every reply that is lost or tells to."""
    producer.send(producer.maker.batch(producer.random.randint(1, 30)), producer.through_http)


def bulk(producer: Producer) -> None:
    """Batches that are tried as COPY; now and then the same one twice, as after a lost reply."""
    events = producer.maker.clean(producer.random.randint(64, 160))
    producer.send(events, producer.through_log)
    if producer.random.random() < 0.2:
        producer.send(events, lambda batch: through_copy(producer, batch))
    if producer.random.random() < 0.3:
        producer.send(producer.maker.batch(producer.random.randint(10, 100)), producer.through_log)


def through_copy(producer: Producer, events: list[Event]) -> list[str]:
    """A producer that does not know that it has sent this before: tries COPY whatever it learnt."""
    conn = producer.connection()
    receipts = append(conn, events, source=producer.orders.name)
    conn.commit()
    return [receipt.answer.value for receipt in receipts]


def single(producer: Producer) -> None:
    """A few events at a time."""
    producer.send(producer.maker.batch(producer.random.randint(1, 5)), producer.through_log)


def plain_sql(producer: Producer) -> None:
    """`refold.append` in SQL."""
    producer.send(producer.maker.batch(producer.random.randint(1, 20)), producer.through_sql)


def transactions(producer: Producer) -> None:
    """Transactions with pauses and savepoints, some rolled back, some left open for a while."""
    random = producer.random

    def deliver(events: list[Event]) -> list[str]:
        conn = producer.connection()
        half = len(events) // 2
        receipts = append(conn, events[:half], source=producer.orders.name)
        time.sleep(random.choice([0, 0, 0.01, 0.2, 1.0]))
        with conn.transaction(force_rollback=True):
            append(conn, events[half:], source=producer.orders.name)
        receipts += append(conn, events[half:], source=producer.orders.name)
        conn.commit()
        return [receipt.answer.value for receipt in receipts]

    if random.random() < 0.1:
        # Attempted, and never to be seen.
        events = producer.maker.clean(5)
        producer.journal.attempted(producer.orders.name, events)
        append(producer.connection(), events, source=producer.orders.name)
        producer.connection().rollback()
    producer.send(producer.maker.batch(random.randint(2, 12)), deliver)


def two_phases(producer: Producer) -> None:
    """PREPARE TRANSACTION, a while later COMMIT PREPARED, until it is known to be committed."""
    events = producer.maker.clean(producer.random.randint(1, 8))
    gid = f"{producer.orders.name}-{os.getpid()}-{events[0]['id']}"

    def prepare(batch: list[Event]) -> list[str]:
        conn = producer.connection()
        conn.execute("SET refold.notify = off")
        conn.commit()
        conn.tpc_begin(gid)
        answers = [receipt.answer.value for receipt in append(conn, batch, source=producer.orders.name)]
        conn.tpc_prepare()
        time.sleep(producer.random.choice([0, 0, 0.1, 1.0]))
        conn.tpc_commit()
        return answers

    def deliver(batch: list[Event]) -> list[str]:
        # An attempt before this one may have got as far as PREPARE; it would keep this one waiting.
        left = producer.connection().execute("SELECT gid FROM pg_prepared_xacts WHERE gid = %s", (gid,)).fetchone()
        producer.connection().commit()
        if left is not None:
            producer.connection().tpc_commit(gid)
        return prepare(batch)

    producer.send(events, deliver)


def ingest(producer: Producer) -> None:
    """`refold ingest` of a file, the whole file again when it failed."""
    events = producer.maker.clean(producer.random.randint(50, 300))
    events += [event for event in producer.maker.batch(60) if event["metadata"].get("invalid")]
    name = f"{producer.orders.name}-{events[0]['id']}"
    path = Path(producer.orders.directory) / f"{name}.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    batch = producer.journal.attempted(name, events)
    command = [sys.executable, "-m", "refold", "ingest", "--json", "--source", name, "--batch", "50"]
    command += ["--database-url", producer.orders.url, str(path)]
    while not producer.stopped:
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode == 0:
            break
        print(f"ingest ended with {ran.returncode}: {ran.stderr[-500:]}", file=sys.stderr, flush=True)
        time.sleep(0.5)
    else:
        return
    tally = json.loads(ran.stdout)
    answers = ["invalid" if event["metadata"].get("invalid") else "accepted" for event in events]
    told = (tally["received"], tally["stored"] + tally["duplicates"], tally["invalid"])
    expected = (len(events), answers.count("accepted"), answers.count("invalid"))
    if told != expected:
        raise SystemExit(f"refold ingest {path}: received, stored and invalid are {told}, not {expected}")
    producer.journal.acknowledged(batch, answers)


def captured(producer: Producer) -> None:
    """Transactions of an application on a table that is captured; some are rolled back, whole or to a savepoint."""
    random = producer.random
    changes = producer.carts.changes()

    def deliver(events: list[Event]) -> list[str]:
        conn = producer.of_application()
        try:
            for ends in ([conn.rollback] if random.random() < 0.1 else []) + [conn.commit]:
                # An attempt before this one may have been committed, or still be under way.
                if conn.execute(application.SENT, (events[0]["id"], len(events))).rowcount:
                    for change in changes:
                        change.apply(conn)
                ends()
        except psycopg.errors.QueryCanceled as error:
            raise Unanswered(f"a time-out that is set for all sessions: {error}") from error
        return ["accepted"] * len(events)

    producer.send([event for change in changes for event in change.events], deliver)
    producer.carts.keep(changes)


DOORS: dict[str, Callable[[Producer], None]] = {
    "bulk": bulk,
    "single": single,
    "sql": plain_sql,
    "transactions": transactions,
    "two phases": two_phases,
    "ingest": ingest,
    "http": by_http,
    "captured": captured,
}
"""Every way in."""


if __name__ == "__main__":
    Producer(Orders(**json.loads(sys.argv[1]))).run()
