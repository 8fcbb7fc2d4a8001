"""Checks of a query's functions and types, which only Postgres can resolve.

The text of a query does not determine its functions; the parsed query that Postgres stores for a view does.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import args_row

from refold.engine.verify import places
from refold.errors import DefinitionError
from refold.model.projection.definition import Definition
from refold.model.projection.plan import Upkeep
from refold.model.projection.sqlglot_compat import expression, in_words_of
from refold.model.sql_text import ident
from refold.model.upkeep.statements import Statements
from refold.postgres.rows import one_row
from refold.postgres.sqlstate import transient

_FLOATS = ("real", "double precision")

# Stable functions whose result may differ in the next statement. (As text: a list of words takes a page.)
_MOVING = frozenset(
    """
    now transaction_timestamp statement_timestamp pg_postmaster_start_time pg_conf_load_time
    pg_current_snapshot txid_current_snapshot pg_current_xact_id_if_assigned txid_current_if_assigned
    pg_xact_commit_timestamp pg_visible_in_snapshot current_setting current_database current_schema
    current_schemas current_query pg_backend_pid pg_my_temp_schema pg_is_in_recovery version
    inet_client_addr inet_client_port inet_server_addr inet_server_port getpgusername current_user
    session_user pg_get_userbyid pg_column_size lastval
    """.split()  # noqa: SIM905
)

_ADDING = frozenset(
    """
    sum avg stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_avgx
    regr_avgy regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
    """.split()  # noqa: SIM905
)

_UNORDERED = frozenset(
    """
    any_value json_arrayagg json_objectagg
    """.split()  # noqa: SIM905
)

_CALLS = """
SELECT DISTINCT p.oid::text, p.proname, p.provolatile::text, p.proretset,
       p.prokind = 'a' AND p.proargtypes::oid[] && ARRAY['real'::regtype::oid, 'double precision'::regtype::oid]
FROM pg_rewrite AS r
CROSS JOIN LATERAL regexp_matches(
    r.ev_action::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') AS found (parts)
JOIN pg_proc AS p ON p.oid = found.parts[1]::oid
WHERE r.ev_class = 'pg_temp.refold_probe'::regclass
ORDER BY 2, 1
"""
_TREE = "SELECT ev_action::text FROM pg_rewrite WHERE ev_class = 'pg_temp.refold_probe'::regclass"


@dataclass(frozen=True, slots=True)
class _Call:
    """A function that a query calls.

    Args:
        oid: its oid, as text.
        name: its name.
        volatility: `provolatile` of pg_proc.
        many: whether it returns a set.
        floats: whether it is an aggregate over floats.
    """

    oid: str
    name: str
    volatility: str
    many: bool
    floats: bool


def refuse_inexact(conn: psycopg.Connection, definition: Definition, statements: Statements) -> None:
    """Refuse a query whose result is not determined by the set of events, or whose view cannot be created.

    Args:
        conn: the transaction that has just created the build's tables.
        definition: the projection.
        statements: the build's SQL.

    Raises:
        DefinitionError: the query is refused; the message has the reason.
    """
    _refuse_types(conn, definition, statements.relations[0].table)
    calls, tree = _probe(conn, definition, statements.view)
    for call in calls:
        if call.volatility != "i":
            # The view runs in any session; all other SQL runs in refold's sessions, whose settings are fixed.
            raise DefinitionError(
                f"{call.name}() depends on the settings of the session that reads the metric",
                path=definition.path,
                line=places.of_call(definition, tree, call.oid, call.name, view=True),
                remedy="Name the time zone: … AT TIME ZONE 'UTC'. Or call it in a view in sql/views/.",
            )
    head = f"CREATE TABLE {statements.relations[0].table} AS\n"
    if statements.create[0].startswith(head):
        query = statements.create[0].removeprefix(head).removesuffix("\nWITH NO DATA").replace("%%", "%")
        calls, tree = _probe(conn, definition, query)
        for call in calls:
            refused = _refusal(call, definition.plan.upkeep)
            if refused is not None:
                message, remedy = refused
                line = places.of_call(definition, tree, call.oid, call.name)
                raise DefinitionError(f"{call.name}() {message}", path=definition.path, line=line, remedy=remedy)


def _probe(conn: psycopg.Connection, definition: Definition, query: str) -> tuple[list[_Call], str]:
    """Return the functions that a query calls, and its tree as Postgres has parsed it."""
    try:
        with conn.transaction():
            conn.execute(f"CREATE TEMPORARY VIEW refold_probe AS\n{query}".encode())
            with conn.cursor(row_factory=args_row(_Call)) as cursor:
                calls = cursor.execute(_CALLS).fetchall()
            (tree,) = one_row(conn, _TREE)
            conn.execute("DROP VIEW pg_temp.refold_probe")
    except psycopg.Error as error:
        if transient(error):
            raise
        raise DefinitionError(
            f"Postgres refuses the query: {error.diag.message_primary or error}", path=definition.path
        ) from error
    return calls, tree


def _refusal(call: _Call, upkeep: Upkeep) -> tuple[str, str] | None:
    """Return the error of a call and its remedy; None if it is allowed. Pure."""
    if call.volatility == "v" or call.name in _MOVING:
        return (
            "depends on more than its arguments",
            "A projection may depend on its events alone. If your own function is immutable, declare it IMMUTABLE.",
        )
    if call.name in _UNORDERED:
        return (
            "depends on the order in which events are read",
            "Use min or max, or an aggregate with ORDER BY … event_id.",
        )
    if call.floats and call.name in _ADDING:
        return (
            "adds floats, whose sum depends on the order of the events",
            "Cast to numeric instead of double precision.",
        )
    if call.many and upkeep != "recompute":
        return (
            "makes several rows of one event",
            "Write a transform that returns a list of rows; each row gets its own id.",
        )
    return None


def _refuse_types(conn: psycopg.Connection, definition: Definition, table: str) -> None:
    types = {
        str(name): str(kind)
        for name, kind in conn.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0",
            (table,),
        ).fetchall()
    }
    for partial in definition.plan.partials:
        if partial.sql is not None and partial.combine == "sum" and types[partial.name] in _FLOATS:
            written = in_words_of(definition.source, expression(partial.sql))
            # The expression may not be in the file: the sum that is kept for an average, for example.
            what = partial.name.partition("__")[0] if written == partial.sql else written
            raise DefinitionError(
                f"{what} adds floats, whose sum depends on the order of the events",
                path=definition.path,
                line=places.of_column(definition, partial.name, partial.sql),
                remedy="Cast to numeric instead of double precision.",
            )
    for name, kind in types.items():
        if kind == "json":
            raise DefinitionError(
                f"{name} is json, which cannot be compared",
                path=definition.path,
                line=places.of_column(definition, name),
                remedy="Cast to jsonb.",
            )
        _refuse_unhashed(conn, definition, table, name, kind)


def _refuse_unhashed(conn: psycopg.Connection, definition: Definition, table: str, name: str, kind: str) -> None:
    """Refuse a column whose type has no hash: lookups of keys and comparisons of rows use hashes."""
    try:
        with conn.transaction():
            conn.execute(
                f"SELECT hash_record_extended(ROW(t.{ident(name)}), 0)"
                f" FROM (VALUES (1)) AS one LEFT JOIN {table} AS t ON false".encode()
            )
    except psycopg.errors.UndefinedFunction as error:
        raise DefinitionError(
            f"{name} is {kind}, which has no hash",
            path=definition.path,
            line=places.of_column(definition, name),
            remedy="Cast it to numeric or to text.",
        ) from error
