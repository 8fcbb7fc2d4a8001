"""Sinks of the kind `postgres`: a table in another database, or in another schema, that equals the metric.

Exactly once: rows and the version that they show are written in one transaction of the target. Its row in
`refold_sinks` is locked first, and a delivery under an older version than it holds is refused as a whole. So a
deliverer that was frozen and wakes up changes nothing, and deleted rows leave no tombstones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ConfigDict, Field, field_validator

from refold.model.sql_text import hash_of, ident
from refold.model.upkeep.statements import ROW_SEED
from refold.postgres.replica_identity import IDENTITY
from refold.sinks.receiver import (
    Change,
    Checksum,
    DeliveryError,
    Misconfigured,
    NotOwner,
    Owner,
    Refused,
    Shape,
    Unavailable,
    Version,
)
from refold.sinks.secrets import is_reference, resolve_optional

CONTROL = "refold_sinks"
"""Table beside the target that holds the owner and the version of each sink."""
SLICE, EPOCH, NUMBER = "refold_slice", "refold_epoch", "refold_number"
"""Columns of the target besides those of the metric."""
SETTINGS = (
    "SET statement_timeout = '60s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s';"
    " SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; SET timezone = 'UTC';"
    " SET client_encoding = 'UTF8'; SET default_transaction_isolation = 'read committed';"
    " SET default_transaction_read_only = off; SET default_transaction_deferrable = off; SET array_nulls = on;"
    " SET quote_all_identifiers = off; SET bytea_output = 'hex'; SET xmloption = content;"
    " SET standard_conforming_strings = on; SET transform_null_equals = off;"
    # Newer servers have them.
    " SELECT set_config(name, '0', false) FROM pg_settings"
    " WHERE name IN ('idle_session_timeout', 'transaction_timeout');"
    # What it has confirmed is never given again, so a crash must not lose it.
    " SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)


_NOBODYS = -1
"""The slice to which rows without one are counted, so that an audit finds them."""


class PostgresOptions(BaseModel):
    """Keys of `[postgres]` in the file of a sink."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description="The database: `env:NAME`, `file:/path`, or a libpq URL without a password.")
    table: str = Field(description="The table; it is created if it is missing.")
    target_schema: str = Field(default="public", alias="schema", description="Schema of the table.")

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        if is_reference(url):
            return url
        try:
            parts = conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ValueError(f"is not a libpq URL: {str(error).strip()}") from None
        if parts.get("password"):
            raise ValueError('must not hold a password: write url = "env:NAME", and set NAME where deliveries are made')
        return url


class PostgresReceiver:
    """Delivers to a table of another Postgres database.

    Args:
        options: the keys of its part of the sink's file.
    """

    Options: ClassVar[type[BaseModel]] = PostgresOptions
    needs_json: ClassVar[bool] = False
    remembers: ClassVar[bool] = True

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._conn: psycopg.Connection | None = None
        self._shape: Shape | None = None
        self._owner = ""
        self._table = sql.Identifier(options.target_schema, options.table)
        self._control = sql.Identifier(options.target_schema, CONTROL)

    def open(self, shape: Shape, owner: Owner) -> Version | None:
        """Connect, take the sink's row in `refold_sinks`, and create or complete the table.

        The version is 0.0 if the table was empty or had to be emptied, because the metric has another key now.
        """
        self._shape, self._owner = shape, owner.token
        with _told():
            self._connect(shape.sink)
            self._refuse_unfit(shape)
            version = self._take(shape, owner)
            return version if self._prepare(shape) else Version(0, 0)

    def ping(self) -> str:
        """Ask for the version of the server."""
        with _told():
            conn = self._conn or self._connect("test")
            row = conn.execute("SELECT current_database(), current_setting('server_version')").fetchone()
        assert row is not None
        return f"connected to {row[0]}, PostgreSQL {row[1]}"

    def deliver(self, version: Version, changes: Sequence[Change]) -> None:
        """Upsert and delete rows in one transaction."""
        given = [change for change in changes if change.values is not None]
        gone = [change for change in changes if change.values is None]
        with _told(), self._connection.transaction():
            self._advance(version)
            if given:
                self._upsert(version, given)
            for exact in (True, False):
                keys = [change.key for change in gone if (": null" not in change.key) == exact]
                if keys:
                    self._delete(keys, exact=exact)

    def sweep(self, version: Version, slice_: int) -> None:
        """Delete rows of a slice that were delivered under older versions."""
        with _told(), self._connection.transaction():
            self._advance(version)
            self._connection.execute(
                # A row without a slice is nobody's.
                sql.SQL(
                    "DELETE FROM {table} WHERE {slice} = %s AND ({epoch}, {number}) < (%s, %s) OR {slice} IS NULL"
                    " OR {slice} = %s AND ({epoch} IS NULL OR {number} IS NULL)"
                ).format(
                    table=self._table,
                    slice=sql.Identifier(SLICE),
                    epoch=sql.Identifier(EPOCH),
                    number=sql.Identifier(NUMBER),
                ),
                (slice_, *version, slice_),
            )

    def slices(self) -> set[int]:
        """Return the slices of which the target has rows."""
        with _told(), self._unhurried():
            rows = self._connection.execute(
                sql.SQL("SELECT DISTINCT {} FROM {}").format(sql.Identifier(SLICE), self._table)
            ).fetchall()
        # A row without one was added by hand, and goes with the next sweep.
        return {_NOBODYS if one is None else int(one) for (one,) in rows}

    def checksums(self, slices: Sequence[int] | None) -> Mapping[int, Checksum]:
        """Compute the checksums of the target's rows."""
        hashed = hash_of([ident(column.name) for column in self._columns.columns], seed=ROW_SEED)
        query = sql.SQL(
            "SELECT coalesce({slice}, {nobodys}), count(*), sum("
            + hashed.replace("{", "{{").replace("}", "}}")
            + ") FROM {table}"
            " WHERE %(slices)s::integer[] IS NULL OR {slice} = ANY (%(slices)s)"
            " OR {slice} IS NULL AND {nobodys} = ANY (%(slices)s) GROUP BY 1"
        ).format(slice=sql.Identifier(SLICE), table=self._table, nobodys=sql.Literal(_NOBODYS))
        wanted = {"slices": None if slices is None else list(slices)}
        with _told(), self._unhurried():
            rows = self._connection.execute(query, wanted).fetchall()
        return {int(one): Checksum(int(count), int(hash_)) for one, count, hash_ in rows}

    @contextmanager
    def _unhurried(self) -> Iterator[None]:
        """Let statements that read the whole table take the time that they take."""
        with self._connection.transaction():
            self._connection.execute("SET LOCAL statement_timeout = 0")
            yield

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            with suppress(Exception):
                self._conn.close()

    def _connect(self, sink: str) -> psycopg.Connection:
        self._conn = conn = psycopg.connect(
            resolve_optional(self._options.url, "url"),
            autocommit=True,
            application_name=f"refold sink {sink}",
            connect_timeout=10,
            keepalives_idle=30,
            tcp_user_timeout=60_000,
        )
        conn.execute(SETTINGS)
        return conn

    @property
    def _connection(self) -> psycopg.Connection:
        assert self._conn is not None, "the receiver is not open"
        return self._conn

    @property
    def _columns(self) -> Shape:
        assert self._shape is not None, "the receiver is not open"
        return self._shape

    def _refuse_unfit(self, shape: Shape) -> None:
        version = self._connection.info.server_version
        if version < 150000:
            raise Misconfigured(f"the target is PostgreSQL {version // 10000}", remedy="Use PostgreSQL 15 or newer.")
        if taken := {SLICE, EPOCH, NUMBER} & {column.name for column in shape.columns}:
            raise Misconfigured(
                f"the metric has a column {min(taken)}, which the target needs for itself",
                remedy="Give it another name in the projection.",
            )

    def _prepare(self, shape: Shape) -> bool:
        """Create what is missing: the table, columns, and the indexes.

        Returns:
            Whether all of it was there. If not, the sink's version is set back in the same transaction, because rows of
            that version are not there.
        """
        conn = self._connection
        own = [*((column.name, column.type) for column in shape.columns),
               (SLICE, "integer"), (EPOCH, "bigint"), (NUMBER, "bigint")]  # fmt: skip
        there = self._there()
        whole = all(name in there for name, _ in own)
        with conn.transaction():
            if not there:
                columns = sql.SQL(", ").join(_declared(name, kind) for name, kind in own)
                conn.execute(sql.SQL("CREATE TABLE {} ({})").format(self._table, columns))
                conn.execute(sql.SQL("ALTER TABLE {} " + IDENTITY).format(self._table))
                there = self._there()
            for name, kind in own:
                if name not in there:
                    conn.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(self._table, _declared(name, kind)))
                elif there[name] != kind:
                    raise Misconfigured(
                        f"the column {name} of {self._options.table} is {there[name]}, but the metric's is {kind}",
                        remedy=f"ALTER TABLE {self._options.table} ALTER {ident(name)} TYPE {kind};",
                    )
            if not self._indexed(shape.key):
                index = f"{self._options.table[:40]}_refold_key"
                if self._exists(index):
                    # The metric has another key now: its rows are others, and all of them are given anew.
                    named = sql.Identifier(self._options.target_schema, index)
                    conn.execute(sql.SQL("DROP INDEX {}").format(named))
                    conn.execute(sql.SQL("DELETE FROM {}").format(self._table))
                    whole = False
                conn.execute(
                    sql.SQL("CREATE UNIQUE INDEX {} ON {} ({}) NULLS NOT DISTINCT").format(
                        sql.Identifier(index), self._table, sql.SQL(", ").join(map(sql.Identifier, shape.key))
                    )
                )
            # A sweep and an audit find the rows of a slice by it.
            conn.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} ({})").format(
                    sql.Identifier(f"{self._options.table[:40]}_refold_slice"), self._table, sql.Identifier(SLICE)
                )
            )
            if not whole:
                conn.execute(
                    sql.SQL("UPDATE {} SET epoch = 0, number = 0 WHERE sink = %s").format(self._control), (shape.sink,)
                )
        return whole

    def _exists(self, relation: str) -> bool:
        return (
            self._connection.execute(
                "SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = %s AND c.relname = %s",
                (self._options.target_schema, relation),
            ).rowcount
            > 0
        )

    def _there(self) -> dict[str, str]:
        # Under the metric's search_path, so that both sides write a type's schema or neither does.
        with self._connection.transaction():
            self._connection.execute("SET LOCAL search_path = pg_catalog")
            rows = self._connection.execute(
                "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a"
                " JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped",
                (self._options.target_schema, self._options.table),
            ).fetchall()
            # In the transaction that creates the table, it would stay.
            self._connection.execute("SET LOCAL search_path TO DEFAULT")
        return {str(name): str(kind) for name, kind in rows}

    def _indexed(self, key: Sequence[str]) -> bool:
        """Return whether a unique index over exactly the key is there, under which NULLs are equal."""
        return (
            self._connection.execute(
                "SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = %s AND c.relname = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL"
                " AND i.indexprs IS NULL AND i.indnullsnotdistinct"
                " AND (SELECT array_agg(a.attname::text ORDER BY a.attname)"
                " FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)) = %s",
                (self._options.target_schema, self._options.table, sorted(key)),
            ).rowcount
            > 0
        )

    def _take(self, shape: Shape, owner: Owner) -> Version:
        """Write the new token into the sink's row, and return the version in it."""
        conn = self._connection
        with conn.transaction():
            conn.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (sink text PRIMARY KEY, projection text NOT NULL,"
                    " owner text NOT NULL, epoch bigint NOT NULL, number bigint NOT NULL, relation text NOT NULL,"
                    " at timestamptz NOT NULL DEFAULT now())"
                ).format(self._control)
            )
            made = conn.execute(
                sql.SQL(
                    "INSERT INTO {} (sink, projection, owner, epoch, number, relation) VALUES (%s, %s, %s, 0, 0, %s)"
                    " ON CONFLICT (sink) DO NOTHING"
                ).format(self._control),
                (shape.sink, shape.projection, owner.token, self._options.table),
            ).rowcount
            if made and SLICE not in self._there() and self._has_rows():
                raise Misconfigured(
                    f"the table {self._options.table} has rows that no sink has delivered",
                    remedy="Name another table: what a sink delivers to equals the metric, and has nothing else.",
                )
            other = conn.execute(
                sql.SQL("SELECT sink FROM {} WHERE relation = %s AND sink <> %s").format(self._control),
                (self._options.table, shape.sink),
            ).fetchone()
            if other is not None:
                raise Misconfigured(
                    f"the table {self._options.table} belongs to the sink {other[0]}",
                    remedy="Name another table; or, if that sink is gone:"
                    f" DELETE FROM {CONTROL} WHERE sink = '{other[0]}';",
                )
            row = conn.execute(
                sql.SQL("SELECT owner, epoch, number FROM {} WHERE sink = %s FOR UPDATE").format(self._control),
                (shape.sink,),
            ).fetchone()
            assert row is not None
            if not owner.accepts(row[0]):
                raise _not_owner(shape)
            conn.execute(
                sql.SQL("UPDATE {} SET owner = %s, projection = %s, relation = %s WHERE sink = %s").format(
                    self._control
                ),
                (owner.token, shape.projection, self._options.table, shape.sink),
            )
        return Version(row[1], row[2])

    def _has_rows(self) -> bool:
        return bool(self._there()) and (
            self._connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(self._table)).rowcount > 0
        )

    def _advance(self, version: Version) -> None:
        """Lock the sink's row, and move it to a version; refuse an older one."""
        conn, shape = self._connection, self._columns
        moved = conn.execute(
            sql.SQL(
                "UPDATE {} SET epoch = %s, number = %s, at = now()"
                " WHERE sink = %s AND owner = %s AND (epoch, number) <= (%s, %s)"
            ).format(self._control),
            (*version, shape.sink, self._owner, *version),
        ).rowcount
        if moved:
            return
        row = conn.execute(
            sql.SQL("SELECT owner, epoch, number FROM {} WHERE sink = %s").format(self._control), (shape.sink,)
        ).fetchone()
        if row is None:
            raise Misconfigured(
                f"the row of {shape.sink} in {CONTROL} is gone", remedy="`refold sinks replay` gives all rows again."
            )
        if row[0] != self._owner:
            raise _not_owner(shape)
        raise Unavailable(f"the target has version {row[1]}.{row[2]}, which is later than {version}")

    def _upsert(self, version: Version, given: Sequence[Change]) -> None:
        shape = self._columns
        names = [column.name for column in shape.columns]
        columns = sql.SQL(", ").join(map(sql.Identifier, (*names, SLICE, EPOCH, NUMBER)))
        casts = sql.SQL(", ").join(
            sql.SQL("c{}::{}").format(sql.SQL(str(at)), sql.SQL(column.type.replace("{", "{{").replace("}", "}}")))
            for at, column in enumerate(shape.columns)
        )
        arrays = sql.SQL(", ").join([sql.SQL("%s::text[]")] * len(names) + [sql.SQL("%s::integer[]")])
        aliases = sql.SQL(", ").join(sql.SQL(f"c{at}") for at in range(len(names) + 1))
        changed = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in (*names, SLICE, EPOCH, NUMBER)
            if name not in shape.key
        )
        query = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {casts}, {slice}, %s::bigint, %s::bigint"
            " FROM unnest({arrays}) AS given ({aliases}) ON CONFLICT ({key}) DO UPDATE SET {changed}"
        ).format(
            table=self._table, columns=columns, casts=casts, slice=sql.SQL(f"c{len(names)}"), arrays=arrays,
            aliases=aliases, key=sql.SQL(", ").join(map(sql.Identifier, shape.key)), changed=changed,
        )  # fmt: skip
        values = [_array(one) for one in zip(*(change.values or () for change in given), strict=True)]
        self._connection.execute(query, (*version, *values, [change.slice for change in given]), prepare=True)

    def _delete(self, keys: Sequence[str], *, exact: bool) -> None:
        """Delete rows by their keys; `exact`: no part of any key is NULL, so that the index finds them."""
        shape = self._columns
        types = {column.name: column.type for column in shape.columns}
        declared = sql.SQL(", ").join(_declared(name, types[name]) for name in shape.key)
        same = "{t}.{k} = gone.{k}" if exact else "{t}.{k} IS NOT DISTINCT FROM gone.{k}"
        on = sql.SQL(" AND ").join(
            sql.SQL(same).format(t=sql.Identifier("own"), k=sql.Identifier(name)) for name in shape.key
        )
        query = sql.SQL("DELETE FROM {} AS own USING jsonb_to_recordset(%s::jsonb) AS gone ({}) WHERE {}").format(
            self._table, declared, on
        )
        self._connection.execute(query, ("[" + ",".join(keys) + "]",))


def _array(texts: Iterable[str | None]) -> str:
    """Return the text of a Postgres array. psycopg's own takes four times as long, most of the time of a delivery."""
    return (
        "{"
        + ",".join(
            "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts
        )
        + "}"
    )


def _declared(name: str, kind: str) -> sql.Composable:
    # The type is as this server's own catalog writes it.
    return sql.SQL("{} " + kind.replace("{", "{{").replace("}", "}}")).format(sql.Identifier(name))


def _not_owner(shape: Shape) -> NotOwner:
    return NotOwner(
        f"another database delivers to the target as {shape.sink}: one of the two is a copy",
        remedy=f"On the one that shall deliver: `refold sinks claim {shape.sink}`.",
    )


@contextmanager
def _told() -> Iterator[None]:
    """Raise errors of Postgres as what a sink does about them."""
    try:
        yield
    except psycopg.Error as error:
        raise told(error) from error


def told(error: psycopg.Error) -> DeliveryError:
    """Return what an error of the target means for the sink. Pure."""
    code = error.sqlstate or ""
    message = (error.diag.message_primary or str(error)).splitlines()[0] if str(error) else type(error).__name__
    if code[:2] in ("22", "23", "54"):
        return Refused(message, status=code)
    if code[:2] in ("28", "3D", "3F", "42", "0A"):
        return Misconfigured(
            message, status=code, remedy=error.diag.message_hint or "Grant it, or correct the sink's file."
        )
    lowered = message.lower()
    if not code and any(
        text in lowered for text in ("password", "authentication", 'role "', 'database "', "no pg_hba")
    ):
        return Misconfigured(message, remedy="Correct the URL of the sink.")
    return Unavailable(message, status=code)
