"""Sinks of a test: deployed from texts, delivered in this process, and compared with the metric."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from refold.model.sink.sink_file import sink_file
from refold.model.sink.state import resumed
from refold.sinks import deploy
from refold.sinks.deliver import Deliverer
from refold.sinks.kinds.registry import kinds
from refold.store import sinks
from refold.store.builds.compiled import Compiler
from refold.store.sinks import Sink
from tests.support.scratch import Scratch

Connection = psycopg.Connection[tuple[Any, ...]]
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
"""Signs what webhooks get."""


def deploy_sink(conn: Connection, name: str, text: str) -> Sink:
    """Deploy the text of a sink's file."""
    mistakes: list[Any] = []
    file = sink_file(name, text, Path(f"sinks/{name}.toml"), tuple(kinds()), mistakes)
    assert file is not None, mistakes
    [change] = [one for one in deploy.plan(conn, [file], [name]) if one.name == name]
    deploy.deploy(conn, change)
    return sinks.known(conn, name)


def deliver(conn: Connection, folder: Path, name: str, *, me: str = "test", most: int = 1_000) -> int:
    """Deliver a sink until nothing is due; return the number of turns."""
    deliverer = Deliverer(conn, Compiler(folder), me)
    sink = sinks.known(conn, name)
    turns = 0
    try:
        while True:
            state, now = sinks.state(conn, sink.sink_id)
            if not deliverer.due(sink, state, now):
                return turns
            deliverer.turn(sink)
            turns += 1
            assert turns < most, sinks.state(conn, sink.sink_id)
    finally:
        deliverer.release()


def to_postgres(projection: str, url: str, table: str = "copy") -> str:
    """Return the text of a sink into a table of a database."""
    return f'projection = "{projection}"\nkind = "postgres"\n[postgres]\nurl = "{url}"\ntable = "{table}"\n'


def to_webhook(projection: str, url: str) -> str:
    """Return the text of a sink to a webhook; its secret is in the environment variable SECRET."""
    return (
        f'projection = "{projection}"\nkind = "webhook"\n[webhook]\nurl = "{url}"\nsecrets = ["env:SECRET"]\n'
        "allow_private = true\ntimeout_s = 2\n"
    )


def differences(conn: Connection, metric: str, target: Connection, table: str = "copy") -> list[tuple[str, Any]]:
    """Return the rows that only the metric or only the receiver's table has."""
    columns = [
        str(name)
        for (name,) in conn.execute(
            "SELECT attname FROM pg_attribute"
            " WHERE attrelid = to_regclass('metrics.' || quote_ident(%s)) AND attnum > 0",
            (metric,),
        ).fetchall()
    ]
    listed = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns)

    def rows(of: Connection, name: sql.Identifier) -> set[tuple[Any, ...]]:
        found = of.execute(sql.SQL("SELECT {} FROM {}").format(listed, name)).fetchall()
        assert len(found) == len(set(found)), "a row came twice"
        return set(found)

    ours, theirs = rows(conn, sql.Identifier("metrics", metric)), rows(target, sql.Identifier("public", table))
    return [("metric", row) for row in sorted(ours - theirs, key=str)] + [
        ("receiver", row) for row in sorted(theirs - ours, key=str)
    ]


def url_of(scratch: Scratch, target: Connection) -> str:
    """Return the URL of the target, as a sink's file may hold it."""
    return make_conninfo(scratch.url, dbname=target.info.dbname, password=None)


def follow(scratch: Scratch, target: Connection, metric: str, text: str) -> None:
    """Deploy a metric and its sink, and deliver what is there."""
    scratch.deploy_one(metric, text)
    scratch.append(6, user_id="ann", metadata={"n": 1.5})
    scratch.append(2, user_id=None, metadata={"n": 2})
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres(metric, url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    insist(scratch, target, metric)


def insist(scratch: Scratch, target: Connection, metric: str) -> None:
    """Insist that the sink is well and the receiver has the metric."""
    deliver(scratch.worker, scratch.folder, "copy")
    state, _ = sinks.state(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
    assert (state.condition, state.error) == ("active", None)
    assert differences(scratch.worker, metric, target) == []


def resume(scratch: Scratch) -> None:
    """Resume the sink, as a person does."""
    with scratch.worker.transaction():
        sinks.step(scratch.worker, sinks.known(scratch.worker, "copy").sink_id, lambda now, _: resumed(now))
