"""Comparison of a query with the SQL that refold would run, as Postgres parses both.

refold parses a projection with sqlglot and runs the SQL that sqlglot writes. For a few spellings that is another query
(`|/ x`, `to_hex(x)`, `0x1F`). So Postgres parses both texts, and the trees must be equal. Postgres also tells the
columns that a query reads, of which sqlglot's tree hides some. A minimum keeps one of several equal values, and only
Postgres knows whether values of its type can be equal and yet differ.
"""

from __future__ import annotations

import difflib
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from sqlglot import exp

from refold.engine.verify import parse_tree
from refold.engine.verify.parse_tree import Catalog
from refold.engine.verify.remedies import remedy_of
from refold.errors import DefinitionError
from refold.model.projection.definition import Definition
from refold.model.projection.equal_values import PLAIN
from refold.model.projection.reading import Reading, reading
from refold.model.projection.sqlglot_compat import in_words_of
from refold.model.sql_text import ident
from refold.model.stream.page_sql import Stream
from refold.postgres.rows import one_row
from refold.postgres.sqlstate import transient

_ALIKE = frozenset(
    """
    bool int2 int4 int8 oid text varchar name char bytea uuid date time timetz timestamp timestamptz inet cidr
    macaddr macaddr8 bit varbit money pg_lsn xid xid8 int4range int8range daterange tsrange tstzrange
    int4multirange int8multirange datemultirange tsmultirange tstzmultirange
    """.split()  # noqa: SIM905
)
"""Types of pg_catalog whose equal values are identical, as for enums."""

_HEAD = "CREATE TEMPORARY VIEW refold_reading AS\n"

_TYPE = """
WITH RECURSIVE inner_type AS (
    SELECT t.* FROM pg_type AS t WHERE t.oid = %(type)s::text::oid
    UNION ALL
    SELECT t.* FROM inner_type AS i
    JOIN pg_type AS t ON t.oid = CASE WHEN i.typtype = 'd' THEN i.typbasetype
                                      WHEN i.typcategory = 'A' AND i.typelem <> 0 THEN i.typelem END
)
SELECT format_type(%(type)s::text::oid, NULL),
       (SELECT t.typtype::text = 'e'
               OR t.typnamespace = 'pg_catalog'::regnamespace AND t.typname::text = ANY (%(alike)s)
        FROM inner_type AS t WHERE NOT (t.typtype = 'd' OR t.typcategory = 'A' AND t.typelem <> 0)),
       coalesce((SELECT c.collisdeterministic FROM pg_collation AS c WHERE c.oid = %(collation)s::text::oid), true)
"""


_READS = """
SELECT a.attname
FROM pg_rewrite AS r
JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND (a.attnum = d.refobjsubid OR %(all)s AND a.attnum > 0)
WHERE r.ev_class = 'pg_temp.refold_reading'::regclass AND d.refobjid = %(stream)s::regclass
GROUP BY a.attname
ORDER BY min(a.attnum)
"""


def refuse_misread(conn: psycopg.Connection, definition: Definition, stream: Stream) -> tuple[str, ...]:
    """Refuse a query that refold would run as another, or that keeps one of several equal values that differ.

    Args:
        conn: the caller's transaction, as refold_worker.
        definition: an SQL projection.
        stream: the stream that it reads.

    Returns:
        The columns of the stream that it reads, in the stream's order.

    Raises:
        DefinitionError: the query is refused; the error has the line, if it is known, and a remedy.
    """
    plan = definition.plan
    columns = _columns(conn, stream)
    read = reading(definition.name, definition.source, plan.stream, columns, definition.path)
    with _beside(conn, plan.stream, stream, columns):
        catalog = _catalog(conn)
        try:
            meant = _Probe(conn, catalog, definition.source.rstrip().rstrip(";"))
        except _Refused as error:
            raise DefinitionError(
                f"Postgres refuses the query: {error}",
                path=definition.path,
                line=error.line,
                remedy=remedy_of(conn, error.cause),
            ) from error
        try:
            run = _Probe(conn, catalog, read.text, plan.stream)
        except _Refused as error:
            raise _misread(
                definition, read.line(read.holding(error.word)), f"which refuses the SQL that refold would run: {error}"
            ) from error
        if meant.tree != run.tree:
            line = read.line(_differing(read, meant.tree, run.tree))
            raise _misread(definition, line, _difference(meant.words, run.words))
        if plan.upkeep != "facts":
            _refuse_choices(conn, catalog, definition, read)
    return run.reads


class _Refused(Exception):
    """Postgres refuses a query; the exception has the line and the word."""

    def __init__(self, query: str, error: psycopg.Error) -> None:
        super().__init__(error.diag.message_primary or str(error))
        self.cause = error
        at = int(error.diag.statement_position or 0) - len(_HEAD) - 1
        self.line = query[:at].count("\n") + 1 if at >= 0 else None
        self.word = (query[at:].split() or [""])[0] if at >= 0 else "\0"


class _Probe:
    """The parse tree of a query, from a temporary view that is dropped at once.

    Args:
        conn: a transaction in which the stream has the name that projections use.
        catalog: the catalog of this database.
        query: the query.
        stream: the stream whose columns `reads` must list, if any.
    """

    def __init__(self, conn: psycopg.Connection, catalog: Catalog, query: str, stream: str | None = None) -> None:
        try:
            with conn.transaction():
                # Prepared: that protocol allows only a single statement, whatever the text holds.
                conn.execute((_HEAD + query).encode(), prepare=True)
                row = one_row(
                    conn,
                    "SELECT ev_class::text, ev_action::text, pg_get_viewdef(ev_class)"
                    " FROM pg_rewrite WHERE ev_class = 'pg_temp.refold_reading'::regclass",
                )
                own, action, self.words = row
                self.tree = parse_tree.read(action, catalog, {own: "own"})
                self.reads = () if stream is None else self._reads(conn, stream)
                conn.execute("DROP VIEW pg_temp.refold_reading")
        except psycopg.Error as error:
            if transient(error):
                raise
            raise _Refused(query, error) from error

    def _reads(self, conn: psycopg.Connection, stream: str) -> tuple[str, ...]:
        # A reference to a whole row is no dependency on its columns.
        whole = any(
            node[1] == "VAR" and parse_tree.field(node, ":varattno") == "0" for node in parse_tree.nodes(self.tree)
        )
        found = conn.execute(_READS, {"all": whole, "stream": f"pg_temp.{ident(stream)}"}).fetchall()
        return tuple(str(name) for (name,) in found)


class _Listed(NamedTuple):
    """A part of a catalog, as dicts."""

    negators: dict[str, tuple[str, str]]
    functions: dict[str, str]


_USERS = 16_384
"""The first oid of objects that are not built in (FirstNormalObjectId)."""
_built_in: dict[int, _Listed] = {}
"""Built-in operators and functions, by server version; they are the same in all databases."""


def _catalog(conn: psycopg.Connection) -> Catalog:
    """Return the operators and functions of this database; built-in ones are read once for each server version."""
    version = conn.info.server_version
    if version not in _built_in:
        _built_in[version] = _listed(conn, 1, _USERS - 1)
    own = _listed(conn, _USERS, 2**32 - 1)
    built_in = _built_in[version]
    return Catalog(ChainMap(own.negators, built_in.negators), ChainMap(own.functions, built_in.functions))


def _listed(conn: psycopg.Connection, first: int, last: int) -> _Listed:
    """Return the operators and functions with oids from `first` to `last`."""
    between = {"first": str(first), "last": str(last)}
    negators = conn.execute(
        "SELECT o.oid::text, n.oid::text, n.oprcode::oid::text"
        " FROM pg_operator AS o JOIN pg_operator AS n ON n.oid = o.oprnegate"
        " WHERE o.oid BETWEEN %(first)s::text::oid AND %(last)s::text::oid",
        between,
    ).fetchall()
    functions = conn.execute(
        "SELECT p.oid::text, p.prosrc FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang"
        " WHERE l.lanname = 'internal' AND p.oid BETWEEN %(first)s::text::oid AND %(last)s::text::oid",
        between,
    ).fetchall()
    return _Listed({operator: (negator, code) for operator, negator, code in negators}, dict(functions))


def _columns(conn: psycopg.Connection, stream: Stream) -> tuple[str, ...]:
    """Return the columns of a stream that a query may use."""
    rows = conn.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attname <> ALL (%s) ORDER BY attnum",
        (stream.table, ["txid", "position", "ordinal", "recorded_at"]),
    ).fetchall()
    return tuple(str(name) for (name,) in rows)


@contextmanager
def _beside(conn: psycopg.Connection, name: str, stream: Stream, columns: tuple[str, ...]) -> Iterator[None]:
    """Give the stream the name that projections use, in a temporary view, until the block ends."""
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL search_path = pg_temp, refold, pg_catalog")
        conn.execute(
            f"CREATE TEMPORARY VIEW {ident(name)} AS\n"
            f"SELECT {', '.join(map(ident, columns))} FROM {stream.table}".encode()
        )
        yield


def _misread(definition: Definition, line: int | None, how: str) -> DefinitionError:
    words = "this query" if line is None else definition.source.splitlines()[line - 1].strip()
    return DefinitionError(
        f"refold reads `{words}` differently from Postgres, {how}",
        path=definition.path,
        line=line,
        remedy="Write it in another way, with functions and operators of the SQL standard if possible.",
    )


def _differing(read: Reading, meant: parse_tree.Tree, run: parse_tree.Tree) -> exp.Expr | None:
    """Return the first part of the query in which two trees differ; None within WITH."""

    def outputs(tree: parse_tree.Tree) -> dict[str, parse_tree.Tree]:
        [query] = tree[1]
        return {parse_tree.field(one, ":resname"): one for one in parse_tree.field(query, ":targetList")[1]}

    theirs = outputs(run)
    for name, one in outputs(meant).items():
        if theirs.get(name) != one:
            return read.parts.get(name)
    for clause, name in ((":jointree", "WHERE"), (":havingQual", "HAVING")):
        if parse_tree.field(meant[1][0], clause) != parse_tree.field(run[1][0], clause):
            return read.parts.get(name)
    return None


def _difference(meant: str, run: str) -> str:
    """Describe the first words in which two texts differ, with a word on either side."""
    one, other = meant.split(), run.split()
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind != "equal":
            return f"which reads `{_part(one, a, b)}`, and would run `{_part(other, c, d)}`"
    return "although in the same words: the types differ"


def _part(words: list[str], start: int, end: int) -> str:
    """Return some words of a text and a word on either side, with ellipses where the text goes on."""
    start, end = max(0, start - 1), end + 1
    return " ".join(["…"] * (start > 0) + words[start:end] + ["…"] * (end < len(words)))


def _refuse_choices(conn: psycopg.Connection, catalog: Catalog, definition: Definition, read: Reading) -> None:
    """Refuse to keep one of several equal values if they can be told apart."""
    if read.choices and _told_apart(conn, catalog, read.plain()):
        for at, choice in enumerate(read.choices):
            found = _told_apart(conn, catalog, read.plain(at))
            if found is not None:
                kind, remedy = found
                raise DefinitionError(
                    f"{choice.what} over {in_words_of(definition.source, choice.node)} keeps one of several"
                    f" equal values, and equal values of {kind} can be told apart",
                    path=definition.path,
                    line=read.line(choice.node),
                    remedy=remedy,
                )


def _told_apart(conn: psycopg.Connection, catalog: Catalog, query: str) -> tuple[str, str] | None:
    """Return a type whose equal values have no common spelling, with the remedy; None if all types have one."""
    tree = _Probe(conn, catalog, query).tree
    row = one_row(conn, f"SELECT '{PLAIN}(anyelement)'::regprocedure::oid::text")
    for node in parse_tree.nodes(tree):
        if node[1] != parse_tree.CALL or parse_tree.field(node, ":function") != row[0]:
            continue
        collation = parse_tree.field(node, ":inputcollid")
        found = one_row(
            conn,
            _TYPE,
            {"type": parse_tree.field(node, ":result"), "collation": collation, "alike": sorted(_ALIKE)},
        )
        kind, alike, deterministic = found
        if not deterministic:
            return f"{kind} under a nondeterministic collation", 'Give it a collation: … COLLATE "C".'
        if not alike:
            return str(kind), _remedy(str(kind))
    return None


def _remedy(kind: str) -> str:
    if kind == "interval":
        return "Use its length: extract(epoch FROM …)."
    if kind == "jsonb":
        return "Use its text: metadata ->> 'name'; or cast a number to numeric."
    return "Cast it to text."
