"""Where the campaign plays: a server of its own, workers that are started again, producers, and a proxy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random
from typing import TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from chaos import contracts, journal
from chaos.application import TABLES
from chaos.asked import Asked
from chaos.backfilled import File
from chaos.guardian import guard
from chaos.made import Maker, person
from chaos.producer import DOORS, Orders
from chaos.receiver import SECRET, LyingReceiver
from chaos.wire import FAIR, Wire
from refold import Log
from refold.embedded import EmbeddedServer
from refold.embedded.server import PORT, SUPERUSER
from refold.postgres.connect import connect
from refold.postgres.retry import retrying
from refold.store import tokens
from refold.store.log.seal import seal
from refold.store.schema.migrate import migrate

T = TypeVar("T")

HERE = Path(__file__).parent
SETTINGS = {
    "fsync": "on",
    "max_connections": "60",
    "max_prepared_transactions": "20",
    "shared_buffers": "128MB",
    "checkpoint_timeout": "1min",
    "log_min_messages": "warning",
}
HELD_SNAPSHOT_AFTER = 3
"""Seconds after which a snapshot that is held is an incident."""
SEGMENT_SIZE = 16_384
"""Positions in a segment of the log: one slice, so that a campaign goes through several."""
HISTORY = 700
"""Events in each of the first segments."""
FULL = 3
"""Segments that are full before there is load: there is something to archive, and to purge."""
PERSONS = 4
"""Persons who have events in each of these segments, and will be erased."""
PAUSED = "graded_events"
"""A sink of events that is paused when it has delivered the first segment, until a purge has to let go of others."""
OWN = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_read_only": "off",
    "DateStyle": "ISO,MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
    "search_path": "public",
    "row_security": "on",
    "enable_indexscan": "on",
    "plan_cache_mode": "auto",
}
"""What the campaign's own sessions have, whatever somebody sets for all of them."""
OPTIONS = " ".join(f"-c {name}={value}" for name, value in OWN.items())
WORKERS = 3
COMMANDS = (
    *("unproved", "mark-apart", "canary-left", "purge-unproved", "unfolded", "forgetful"),
    *("skips-all", "restored-blind", "rows-stay"),
)
"""Variants of `chaos.broken` in which the operator's commands are broken, too."""
CONNECT_S = 20.0
"""Seconds that a fault waits for a server which another has taken away."""
COMMAND_S = 300.0
"""Seconds that a command of the operator may take."""
PAUSES = {
    "bulk": 0.8,
    "single": 0.2,
    "sql": 0.4,
    "transactions": 0.3,
    "two phases": 1.0,
    "ingest": 5.0,
    "http": 0.3,
    "captured": 0.6,
}
"""Seconds between two batches of a producer: together some three hundred events a second."""
PROXIED = ("bulk", "sql", "ingest")


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command of the operator did."""

    status: int
    out: str
    err: str


class Stage:
    """The directory of a campaign, and the processes in it.

    Args:
        seed: of the producers.
        breaking: a way in which the product is broken on purpose; see `chaos.broken`.
        duties: whether workers heal; see `chaos.by_hand`.
    """

    def __init__(self, seed: int, breaking: str | None = None, *, duties: bool = True) -> None:
        self.seed = seed
        self._began = time.monotonic()
        self._logging = threading.Lock()
        self.breaking = breaking
        self.duties = duties
        self.home = Path(tempfile.mkdtemp(prefix="refold-chaos-"))
        # For root the server runs as another user, who has to get in.
        self.home.chmod(0o755)
        self.guardian = guard(self.home)
        self.projections = self.home / "projections"
        self.journals = self.home / "journals"
        self.journals.mkdir()
        shutil.copytree(HERE / "projections", self.projections, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(HERE / "captures", self.home / "captures")
        shutil.copytree(HERE / "sinks", self.home / "sinks")
        self.lake = self.home / "lake"
        self.archive = self.home / "archive"
        self.events = self.home / "events"
        self.events.mkdir()
        (self.events / f"{contracts.ENFORCED}.json").write_text(contracts.contract("enforce"))
        self.hook = LyingReceiver(seed)
        self.set_variant("by_action")
        self.set_canaried("all")
        self.server = self._start_server()
        self.server_lock = threading.Lock()
        self.wire = Wire(self.server.directory / f".s.PGSQL.{PORT}")
        self.url = self.server.url
        self.receiver_url = make_conninfo(self.url, dbname="receiver")
        # Where deliveries are made, what files of sinks refer to.
        self.environment = {
            "REFOLD_DATABASE_URL": self.url,
            "CHAOS_RECEIVER": self.receiver_url,
            "CHAOS_LAKE": str(self.lake),
            "CHAOS_HOOK": self.hook.url,
            "CHAOS_SECRET": SECRET,
        }
        self.proxied_url = self.wire.url(SUPERUSER, "postgres")
        self.workers: list[subprocess.Popen[bytes] | None] = [None] * WORKERS
        self.door: subprocess.Popen[bytes] | None = None
        self.door_port = _free_port()
        self.token = ""
        self.producers: list[tuple[Orders, subprocess.Popen[bytes]]] = []
        self.deaths: list[str] = []
        # What faults leave for the count.
        self.files: list[File] = []
        self.damaged: set[str] = set()
        self.uncertain = 0
        self.asked: list[Asked] = []
        self.let_go: set[str] = set()
        # For each segment that was purged, whether there was load.
        self.purged: list[bool] = []
        self.restored = 0
        # The first day of metrics that do not keep all.
        self.kept: dict[str, date] = {}
        # The ids of the events of each segment that is full before the load.
        self.history: list[set[str]] = []
        # Held by whoever damages a file of the archive until that is noticed, and by whoever purges.
        self.filing = threading.RLock()
        # Set when the load ends: what takes many commands comes to its end then.
        self.over = threading.Event()
        self._stopping = threading.Event()
        self._producing = threading.Lock()
        self._ending = False
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def _start_server(self) -> EmbeddedServer:
        return EmbeddedServer.start(self.home / "postgres", SETTINGS)

    @property
    def hurries(self) -> bool:
        """Whether faults come to their end: the load is over. What is broken on purpose must be met all the same."""
        return self.over.is_set() and self.breaking is None

    def set_variant(self, variant: str) -> None:
        """Changes the file of the projection `changing`."""
        shutil.copy(HERE / "variants" / f"changing_{variant}.sql", self.projections / "changing.sql")

    def set_canaried(self, variant: str) -> None:
        """Changes the file of the projection `canaried`."""
        shutil.copy(HERE / "variants" / f"canaried_{variant}.sql", self.projections / "canaried.sql")

    def set_level(self, level: str) -> None:
        """Changes the level of the contract that changes."""
        (self.events / f"{contracts.CHANGING}.json").write_text(contracts.contract(level))

    def install(self) -> None:
        """refold's schema, and the campaign's projections live."""
        migrate(self.url)
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute("CREATE DATABASE receiver")
        with psycopg.connect(self.url) as conn:
            # Those that are there are empty, and larger than any campaign.
            for (segment,) in conn.execute("SELECT segment::text FROM refold.segments").fetchall():
                conn.execute(f"DROP TABLE {segment}".encode())
            conn.execute(
                "UPDATE refold.settings SET segment_size = %s, held_snapshot_after = %s",
                (SEGMENT_SIZE, HELD_SNAPSHOT_AFTER),
            )
            conn.execute("SELECT refold.ensure_segments()")
            self.token, _ = tokens.create(conn, "http")
            conn.execute(TABLES.encode())
        maker = Maker("history", Random(self.seed))
        self._write_history(maker, range(1))
        self._insist("archive", "claim", str(self.archive))
        self._insist("deploy")
        self._insist("deliver", "--drain", "--sink", PAUSED)
        self._insist("sinks", "pause", PAUSED)
        self._write_history(maker, range(1, FULL))
        self._insist("archive", "run", "--now")

    def _insist(self, *command: str) -> None:
        done = self.refold(*command)
        if done.status != 0:
            raise RuntimeError(f"refold {' '.join(command)}: {done.err}")

    def _write_history(self, maker: Maker, numbers: range) -> None:
        """Events in the first segments of the log, which nobody can write to any more."""
        book = journal.Journal(self.journals / "history.journal")
        for number in numbers:
            events = maker.clean(HISTORY)
            for one in range(PERSONS):
                events += maker.purchases(person(one), [1, 2])
            self.history.append({event["id"] for event in events})
            batch = book.attempted("history", events)
            with Log(self.url, source="history") as log:
                book.acknowledged(batch, [receipt.answer.value for receipt in log.append(events)])
            with psycopg.connect(self.url, autocommit=True) as conn:
                # Positions may stay unused.
                conn.execute("SELECT setval('refold.events_position', %s)", ((number + 1) * SEGMENT_SIZE - 1,))
            self.seal()

    def seal(self) -> None:
        """Seals slices as the duty does; one takes two looks, the second after all transactions of the first."""
        for attempt in retrying(CONNECT_S):
            with attempt, connect(self.url, "refold_worker", autocommit=True) as conn:
                for _ in range(2):
                    seal(conn)

    def refold(self, *arguments: str, at: str = "", lie: str = "") -> Finished:
        """Runs a command as an operator would.

        Args:
            arguments: of `refold`.
            at: point at which it is killed, as `refold.postgres.failpoints` names it.
            lie: what the archive's store does with files, one of `chaos.faulty_store`.
        """
        program = ["refold"]
        if lie:
            program = ["chaos.faulty_store", lie, self.breaking or "whole"]
        elif self.breaking in COMMANDS:
            program = ["chaos.broken", self.breaking]
        command = [sys.executable, "-m", *program, *arguments]
        environment = os.environ | self.environment | {"REFOLD_CRASH_AT": at, "PYTHONPATH": str(HERE.parent)}
        if arguments[0] in ("deploy", "rebuild", "rollback", "reconcile", "erase", "deliver"):
            command += ["--projections", str(self.projections)]
        began = time.monotonic()
        try:
            ran = subprocess.run(
                command, env=environment, cwd=self.home, capture_output=True, text=True, timeout=COMMAND_S
            )
            finished = Finished(ran.returncode, ran.stdout, ran.stderr)
        except subprocess.TimeoutExpired:
            finished = Finished(-1, "", f"refold {' '.join(arguments)}: not done after {COMMAND_S:.0f} s")
        self._log_command(arguments, at or lie, began, finished)
        return finished

    def _log_command(self, arguments: tuple[str, ...], what: str, began: float, finished: Finished) -> None:
        """Notes for whoever reads the directory of a failed campaign, in seconds since its start."""
        said = " ".join((finished.err or finished.out)[-1000:].split())
        times = f"{began - self._began:7.1f}–{time.monotonic() - self._began:.1f}"
        line = f"{times} refold {' '.join(arguments)} [{what}] → {finished.status}: {said}\n"
        with self._logging, (self.home / "commands.log").open("a") as log:
            log.write(line)

    @contextmanager
    def connect(self, name: str = "chaos", *, autocommit: bool = True) -> Iterator[psycopg.Connection]:
        """A superuser's connection, as soon as the server is there; what is set for all sessions is not its business.

        Args:
            name: of the application.
            autocommit: whether each statement is a transaction.
        """
        for attempt in retrying(CONNECT_S):
            with attempt:
                conn = psycopg.connect(
                    self.url,
                    autocommit=autocommit,
                    application_name=name,
                    connect_timeout=10,
                    options=OPTIONS,
                )
        try:
            yield conn
        finally:
            conn.close()

    def ask(self, question: Callable[[psycopg.Connection], T]) -> T:
        """Asks something as a superuser, and asks again if the server goes away meanwhile.

        Args:
            question: changes nothing that matters if it is asked twice.
        """
        for attempt in retrying(CONNECT_S):
            with attempt, self.connect() as conn:
                return question(conn)
        raise AssertionError("unreachable: the attempts end with an answer or an error")

    def work(self) -> None:
        """Starts the workers and the HTTP door, and whoever starts them again when they die."""
        self._supervisor.start()

    def produce(self, doors: Sequence[str] = tuple(DOORS)) -> None:
        """Starts a producer for every door."""
        for number, door in enumerate(doors):
            url = self.proxied_url if door in PROXIED else self.url
            if door == "http":
                url = f"http://{self.token}@127.0.0.1:{self.door_port}"
            name = door.replace(" ", "-")
            orders = Orders(name, door, url, str(self.journals), self.seed * 100 + number, PAUSES[door])
            self.producers.append((orders, orders.start()))

    def kill_producer(self, number: int) -> str:
        """Kills a producer and its children, and starts it again; answers who it was."""
        with self._producing:
            orders, process = self.producers[number]
            if self._ending or process.poll() is not None:
                return f"{orders.name} had ended"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.producers[number] = orders, orders.start()
            return f"{orders.name}, process {process.pid}"

    def stop_producing(self, seconds: float) -> list[str]:
        """Lets every producer bring its batch to an end; tells of those that ended otherwise."""
        found = []
        with self._producing:
            self._ending = True
        for _, process in self.producers:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + seconds
        for orders, process in self.producers:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                found.append(f"producer {orders.name} did not come to an end within {seconds:.0f} s")
                process.kill()
                process.wait()
            if process.returncode not in (0, -signal.SIGKILL):
                log = (self.journals / f"{orders.name}.log").read_text().splitlines()
                found.append(f"producer {orders.name} ended with {process.returncode}: {' | '.join(log[-3:])}")
        return found

    def calm(self) -> None:
        """Lets go of everything: the network is fair, nobody is frozen, the server runs, nothing is prepared."""
        self.wire.weather = FAIR
        self.hook.honest = True
        for process in (*self.workers, self.door):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
        with self.server_lock:
            self._start_server()

    def start_server(self) -> None:
        """The server again, after it was stopped or killed."""
        self.server = self._start_server()

    def close(self, *, keep: bool) -> None:
        """Ends every process; removes every file unless they are to be kept."""
        self._stopping.set()
        if self._supervisor.ident is not None:
            self._supervisor.join(10)
        for process in [*(one for one in [*self.workers, self.door] if one), *(p for _, p in self.producers)]:
            # Each leads a group of its own, with what it has started.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.wire.close()
        self.hook.close()
        with self.server_lock:
            self.server.stop(immediate=not keep)
        self.guardian.communicate()
        if not keep:
            shutil.rmtree(self.home, ignore_errors=True)

    def _supervise(self) -> None:
        """Starts workers again, as a service manager does."""
        due = [0.0] * WORKERS
        door_due = 0.0
        while not self._stopping.is_set():
            for number, worker in enumerate(self.workers):
                if worker is not None and worker.poll() is not None:
                    self.deaths.append(f"worker {number}: {worker.returncode}")
                    self.workers[number] = None
                    due[number] = time.monotonic() + 0.5
                if self.workers[number] is None and time.monotonic() >= due[number]:
                    self.workers[number] = self._hire(number)
            if self.door is not None and self.door.poll() is not None:
                self.deaths.append(f"door: {self.door.returncode}")
                self.door = None
                door_due = time.monotonic() + 0.5
            if self.door is None and time.monotonic() >= door_due:
                self.door = self._open_door()
            self._stopping.wait(0.1)

    def _open_door(self) -> subprocess.Popen[bytes]:
        return self._start("door", "serve", "--port", str(self.door_port), "--database-url", self.url)

    def _hire(self, number: int) -> subprocess.Popen[bytes]:
        """The last of them reaches the server through the proxy."""
        url = self.proxied_url if number == WORKERS - 1 else self.url
        options = ["--database-url", url, "--projections", str(self.projections)]
        return self._start(f"worker-{number}", "worker", *options)

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        program = ["refold"] if self.duties else ["chaos.by_hand"]
        if self.breaking is not None:
            program = ["chaos.broken", self.breaking]
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *program, *command],
                cwd=HERE.parent,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
