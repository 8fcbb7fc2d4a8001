"""The functions of a capture, which make events of rows.

A live event has the id `capture:NAME:KEY:OPERATION:XID.ORDINAL`. The transaction and an ordinal that is never used
again make it another event each time: A → B → A, or a DELETE and an INSERT of the same key. The event of a row that a
backfill reads has the id `capture:NAME:KEY:insert:backfill`. So the ledger itself says whether a row has an event of
its insert: an id that begins with `capture:NAME:KEY:insert:`.
"""

from __future__ import annotations

from refold.model.capture.capture_file import CaptureFile, Expressions, Operation
from refold.model.capture.shape import Column, TableShape
from refold.model.capture.statements import SCHEMA, GeneratedFunction
from refold.model.sql_text import ident, indent, quoted

DIRECT = 16
"""Rows from which a statement's events are made and added by one query, in a subtransaction of its own."""

# A writer's settings must not change what an event is.
_SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "DateStyle": "'ISO, YMD'",
    "IntervalStyle": "'postgres'",
    "TimeZone": "'UTC'",
    "extra_float_digits": "1",
    "bytea_output": "'hex'",
    "standard_conforming_strings": "on",
}
_PLAIN_KEYS = frozenset({"smallint", "integer", "bigint", "uuid", "boolean", "oid", "date"})
"""Types whose texts hold none of the characters that separate the parts of an id."""

_ORDINAL = "pg_current_xact_id()::text || '.' || nextval('refold.capture_ordinals')::text"
_KEPT_OUT = "an UPDATE moved rows to other partitions, where a trigger kept some out: "
_BEFORE = f"{_KEPT_OUT}what became of this row is not known"
_AFTER = f"{_KEPT_OUT}what this row was before is not known"
"""Reasons why rows of an UPDATE make no events: its old and new rows cannot be paired."""
_RAISE = "IF SQLSTATE ~ '^(40|53|55|57|58)' THEN\n    RAISE;\nEND IF;"
"""In a handler: what is wrong with the server, and not with a row."""
_ADD = """\
INSERT INTO refold.events (event_id, user_id, action, ts, metadata)
SELECT m.event_id, m.user_id, m.action, m.ts, m.metadata FROM unnest(made) AS m;"""

# Of an UPDATE, rows may be gone that it was to move to another partition.
_COUNTED: dict[Operation, str] = {"insert": "new_rows", "update": "old_rows", "delete": "old_rows"}


def _room(incoming: str) -> str:
    """Return what makes room in the log, unless the session remembers that there is some; see ensure_capture_room."""
    return f"""\
IF (pg_sequence_last_value('refold.events_position'::regclass) + {incoming}
    < substring(current_setting('refold.room_until', true) FROM '^[0-9]{{1,18}}$')::bigint) IS NOT TRUE THEN
    PERFORM refold.ensure_capture_room({incoming});
END IF;"""


class FunctionMaker:
    """A writer of the functions of one capture.

    Args:
        capture: the file.
        capture_id: number of the capture in refold.captures.
        table: the table.
        key: columns that identify a row; empty if there are none.
    """

    def __init__(self, capture: CaptureFile, capture_id: int, table: TableShape, key: list[Column]) -> None:
        self.capture, self.id, self.table, self.key = capture, capture_id, table, key
        self._inserts = bool(key) and "insert" in capture.expressions

    def trigger_function(self, operation: Operation) -> GeneratedFunction:
        """Return the function that a trigger calls."""
        work = {
            "insert": self._insert, "update": self._update, "delete": self._delete, "truncate": self._truncate,
        }[operation]()  # fmt: skip
        if self.capture.on_error == "pause":
            work = f"""\
BEGIN
{indent(work)}
EXCEPTION WHEN OTHERS THEN
    -- A serialization failure or a deadlock is the writer's: its transaction has to run again.
    IF SQLSTATE LIKE '40%' THEN
        RAISE;
    END IF;
    INSERT INTO refold.capture_gaps (capture_id, operation, pauses, sqlstate, error)
    VALUES ({self.id}, {quoted(operation)}, true, SQLSTATE, SQLERRM);
END;"""
        quiet, loud, ring = "", "", ""
        if self.capture.two_phase:
            # PREPARE TRANSACTION fails after a NOTIFY: workers find these events at their next poll.
            ring = "\n    ring CONSTANT text := coalesce(current_setting('refold.notify', true), 'on');"
            quiet = "    PERFORM set_config('refold.notify', 'off', true);\n"
            loud = "    PERFORM set_config('refold.notify', ring, true);\n"
        looks = {"many": "1" if operation == "truncate" else f"(SELECT count(*) FROM {_COUNTED[operation]})"}
        looks["paused"] = f"EXISTS (SELECT FROM refold.capture_gaps AS g WHERE g.capture_id = {self.id} AND g.pauses)"
        if operation == "update":
            looks["unpaired"] = "(SELECT count(*) FROM old_rows) <> (SELECT count(*) FROM new_rows)"
        elif operation == "delete":
            open_one = f"SELECT FROM refold.backfills AS b WHERE b.capture_id = {self.id} AND b.finished_at IS NULL"
            looks["backfilling"] = f"EXISTS ({open_one})" if self._inserts else "false"
        types = "\n".join(f"    {name} {'bigint' if name == 'many' else 'boolean'};" for name in looks)
        body = f"""\
DECLARE
{types}
    wrong boolean;
    made refold.parsed_event[];{ring}
BEGIN
    -- One query, for each costs as much.
    SELECT {", ".join(looks.values())}
    INTO {", ".join(looks)};
    IF many = 0 THEN
        RETURN NULL;
    END IF;
    IF paused THEN
        INSERT INTO refold.capture_gaps (capture_id, operation) VALUES ({self.id}, {quoted(operation)});
        RETURN NULL;
    END IF;
{quiet}    <<work>>
    BEGIN
{indent(work, 8)}
    END work;
{loud}    RETURN NULL;
END"""
        return self._function(f"{self.capture.name}_{operation}", "", "", "trigger", body)

    def _function(self, name: str, parameters: str, types: str, returns: str, body: str) -> GeneratedFunction:
        pinned = "\n".join(f"SET {setting} = {value}" for setting, value in _SETTINGS.items())
        text = (
            f"CREATE OR REPLACE FUNCTION {SCHEMA}.{ident(name)}({parameters}) RETURNS {returns}\n"
            f"LANGUAGE plpgsql SECURITY DEFINER\n{pinned}\n"
            f"AS $capture$\n#variable_conflict use_column\n{body}\n$capture$"
        )
        return GeneratedFunction(name, types, text)

    def _key(self, row: str) -> str:
        """Return the SQL of the text that stands for a row in ids."""
        if not self.key:
            return "''"
        parts = []
        for column in self.key:
            text = f"{row}.{ident(column.name)}::text"
            if column.type not in _PLAIN_KEYS:
                for sign in "%:,~":
                    text = f"replace({text}, '{sign}', '%{ord(sign):02X}')"
            parts.append(text)
        joined = " || ',' || ".join(parts)
        plain = all(column.type in _PLAIN_KEYS for column in self.key)
        return joined if plain and len(parts) == 1 else f"refold.short_key({joined})"

    def _begin(self, row: str, operation: Operation) -> str:
        """Return the SQL of the beginning of an id."""
        return f"{quoted(f'capture:{self.capture.name}:')} || {self._key(row)} || {quoted(f':{operation}:')}"

    def _live(self, row: str, operation: Operation) -> str:
        return f"{self._begin(row, operation)} || {_ORDINAL}"

    def _fields(self, expressions: Expressions) -> list[str]:
        """Return the SQL of user, action, time and metadata; a comment in an expression ends with its line."""
        types = {"user": "text", "action": "text", "time": "timestamptz", "metadata": "jsonb"}
        made = {field: f"(\n{text}\n)::pg_catalog.{types[field]}" for field, text in expressions.items()}
        made["metadata"] = f"coalesce({made['metadata']}, '{{}}')"
        return list(made.values())

    def _event(self, row: str, operation: Operation) -> str:
        """Return the SQL of a live event: id, user, action, time and metadata."""
        return ", ".join([self._live(row, operation), *self._fields(self.capture.expressions[operation])])

    def _insert(self) -> str:
        rows = "new_rows AS new CROSS JOIN LATERAL (SELECT new.*) AS row"
        return f"""\
{_room("many")}
IF many < {DIRECT} THEN
{indent(self._small(f"SELECT {self._event('new', 'insert')} FROM {rows}"))}
ELSE
{indent(self._large(f"SELECT {self._event('new', 'insert')} FROM {rows}"))}
END IF;
{self._rows("FOR new IN SELECT * FROM new_rows LOOP", ["row := new;"], "new", "insert")}"""

    def _update(self) -> str:
        mate = "CASE WHEN unpaired THEN {} ELSE row_number() OVER () || '' END AS mate, row_number() OVER () AS place"
        old, new = (mate.format(self._key("x") if self.key else f"'{one}' || row_number() OVER ()") for one in "on")
        loop = f"""\
-- The rows of both tables come in one order, and belong together by it. Only where a trigger of another partition has
-- kept out a row that was moved there, the new ones are fewer: then they belong together by the key, if it is the same.
FOR pair IN
    SELECT o.place AS before, o.was, n.place AS after, n.is_now
    FROM (SELECT {old}, x AS was FROM old_rows AS x) AS o
    FULL JOIN (SELECT {new}, x AS is_now FROM new_rows AS x) AS n USING (mate)
    ORDER BY coalesce(n.place, o.place)
LOOP"""
        watched = self.capture.columns
        changed = "new *<> old"
        if watched is not None:
            one, two = (", ".join(f"{row}.{ident(column)}" for column in watched) for row in ("new", "old"))
            changed = f"(SELECT x FROM (SELECT {one}) AS x) *<> (SELECT x FROM (SELECT {two}) AS x)"
        rows = "new_rows AS new CROSS JOIN old_rows AS old CROSS JOIN LATERAL (SELECT new.*) AS row"
        name = quoted(self.capture.name)
        lost = f"""\
IF pair.after IS NULL THEN
    PERFORM refold.set_aside({name}, {quoted(_BEFORE)}, row_to_json(pair.was)::text);
    CONTINUE;
ELSIF pair.before IS NULL THEN
    PERFORM refold.set_aside({name}, {quoted(_AFTER)}, row_to_json(pair.is_now)::text);
    CONTINUE;
END IF;"""
        steps = [lost, "old := pair.was;", "new := pair.is_now;", "row := new;"]
        return f"""\
{_room("many")}
IF many = 1 AND NOT unpaired THEN
{indent(self._small(f"SELECT {self._event('new', 'update')} FROM {rows} WHERE {changed}"))}
END IF;
{self._rows(loop, steps, "new", "update", changed=changed)}"""

    def _delete(self) -> str:
        rows = "old_rows AS old CROSS JOIN LATERAL (SELECT old.*) AS row"
        before = ""
        if self._inserts:
            fields = ", ".join(self._fields(self.capture.expressions["insert"]))
            before = f"""\
IF backfilling AND NOT EXISTS ({self._known("old")}) THEN
    -- The backfill has not read this row, and cannot any more.
    new := old;
    BEGIN
        SELECT at, {self._begin("new", "insert")} || 'backfill', {fields}, 1, NULL INTO one;
        one.reason := refold.captured_problem(one.user_id, one.action, one.ts, one.metadata);
    EXCEPTION WHEN OTHERS THEN
{indent(_RAISE, 8)}
        one.reason := SQLERRM;
    END;
    PERFORM refold.store_before_delete({quoted(self.capture.name)}, one, row_to_json(old)::text);
END IF;"""
        steps = ["row := old;", *([before] if before else [])]
        return f"""\
{_room("many * 2")}
IF NOT backfilling AND many < {DIRECT} THEN
{indent(self._small(f"SELECT {self._event('old', 'delete')} FROM {rows}"))}
ELSIF NOT backfilling THEN
{indent(self._large(f"SELECT {self._event('old', 'delete')} FROM {rows}"))}
END IF;
{self._rows("FOR old IN SELECT * FROM old_rows LOOP", steps, "old", "delete")}"""

    def _small(self, events: str) -> str:
        """Return what adds the events of a few rows, unless an expression fails or the log would refuse one.

        The query is in a block that only reads, so that it has no transaction id of its own.
        """
        return f"""\
BEGIN
    SELECT array_agg(ROW(1, e.event_id, e.user_id, e.action, e.ts, e.metadata, 1, NULL)::refold.parsed_event),
           count(refold.captured_problem(e.user_id, e.action, e.ts, e.metadata)) > 0
    INTO made, wrong
    FROM (
{indent(events, 8)}
    ) AS e (event_id, user_id, action, ts, metadata);
EXCEPTION WHEN OTHERS THEN
{indent(_RAISE)}
    wrong := true;
END;
IF NOT wrong THEN
    IF made IS NOT NULL THEN
{indent(_ADD, 8)}
    END IF;
    EXIT work;
END IF;"""

    def _large(self, events: str) -> str:
        """Return what adds the events of many rows in one query, unless an error keeps one of them out."""
        return f"""\
BEGIN
    INSERT INTO refold.events (event_id, user_id, action, ts, metadata)
{indent(events)};
    EXIT work;
EXCEPTION WHEN OTHERS THEN
    -- Row by row below: what is wrong with a row is set aside, and what is wrong with the log is raised again.
{indent(_RAISE)}
END;"""

    def _truncate(self) -> str:
        begin = quoted(f"capture:{self.capture.name}::truncate:")
        fields = ", ".join(self._fields(self.capture.expressions["truncate"]))
        return f"""\
DECLARE
    one refold.parsed_event;
BEGIN
    {_room("1")}
    BEGIN
        SELECT 1, {begin} || {_ORDINAL}, {fields}, 1, NULL INTO one;
        one.reason := refold.captured_problem(one.user_id, one.action, one.ts, one.metadata);
    EXCEPTION WHEN OTHERS THEN
        one.reason := SQLERRM;
    END;
    IF one.reason IS NULL THEN
        PERFORM refold.store_captured(ARRAY[one]);
    ELSE
        PERFORM refold.set_aside({quoted(self.capture.name)}, one.reason, 'TRUNCATE');
    END IF;
END;"""

    def _rows(
        self,
        loop: str,
        steps: list[str],
        row: str,
        operation: Operation,
        *,
        changed: str | None = None,
        event_id: str | None = None,
    ) -> str:
        """Return the loop that makes events one by one: an error of an expression costs its own row only.

        The block around the expressions only reads, so that it has no transaction id of its own.
        """
        fields = ", ".join(self._fields(self.capture.expressions[operation]))
        made_id = event_id or self._live(row, operation)
        make = f"""\
BEGIN
    SELECT at, {made_id}, {fields}, 1, NULL INTO one;
    one.reason := refold.captured_problem(one.user_id, one.action, one.ts, one.metadata);
EXCEPTION WHEN OTHERS THEN
{indent(_RAISE)}
    one := NULL;
    one.ordinal := at;
    one.reason := SQLERRM;
END;
IF one.reason IS NOT NULL THEN
    PERFORM refold.set_aside({quoted(self.capture.name)}, one.reason, row_to_json({row})::text);
ELSE
    made := made || one;
    IF cardinality(made) >= 1000 THEN
{indent(_ADD, 8)}
        made := '{{}}';
    END IF;
END IF;"""
        if changed is not None:
            make = f"IF {changed} THEN\n{indent(make)}\nEND IF;"
        inner = indent("\n".join(["at := at + 1;", *steps, make]))
        return f"""\
DECLARE
    -- Of the same names as in the expressions; they hide those of the trigger.
    new record;
    old record;
    row record;
    pair record;
    at integer := 0;
    one refold.parsed_event;
BEGIN
    made := '{{}}';
{indent(loop)}
{indent(inner)}
    END LOOP;
    IF cardinality(made) > 0 THEN
{indent(_ADD, 8)}
    END IF;
END;"""

    def _known(self, row: str) -> str:
        """Return the query for the event of a row's insert: the ledger has an id that begins like it.

        The cold ledger has that beginning as an id of its own, see refold.add_cold_ids.
        """
        begin = self._begin(row, "insert")
        # A semicolon is what follows the colon at the end.
        after = f"{quoted(f'capture:{self.capture.name}:')} || {self._key(row)} || ':insert;'"
        return (
            f"SELECT 1 FROM refold.event_ids AS k WHERE k.event_id >= ({begin}) COLLATE \"C\""
            f" AND k.event_id < ({after}) COLLATE \"C\" UNION ALL SELECT 1 FROM refold.archived_ids(ARRAY[{begin}])"
        )  # fmt: skip

    def backfill(self) -> GeneratedFunction:
        """Return the function that reads one step of the table, in the order of its key."""
        columns = ", ".join(f"t.{ident(column.name)}" for column in self.key)
        bounds = ", ".join(f"$1[{at}]::{column.type}" for at, column in enumerate(self.key, 1))
        table = f"{ident(self.table.schema)}.{ident(self.table.name)}"
        select = f"SELECT t.* FROM {table} AS t"
        order = f" ORDER BY {columns} LIMIT $2"
        keys = ", ".join(f"new.{ident(column.name)}::text" for column in self.key)
        rows = self._rows(
            f"FOR new IN EXECUTE CASE WHEN after IS NULL THEN {quoted(select + order)}\n"
            f"    ELSE {quoted(f'{select} WHERE ({columns}) > ({bounds}){order}')} END USING after, most\nLOOP",
            [
                "row := new;",
                f"last := ARRAY[{keys}];",
                "seen := seen + 1;",
                f"CONTINUE WHEN EXISTS ({self._known('new')});",
                "added := added + 1;",
            ],
            "new",
            "insert",
            event_id=f"{self._begin('new', 'insert')} || 'backfill'",
        )
        body = f"""\
DECLARE
    made refold.parsed_event[];
BEGIN
    seen := 0;
    added := 0;
    PERFORM refold.ensure_capture_room(most);
{indent(rows)}
END"""
        parameters = "after text[], most integer, OUT seen bigint, OUT added bigint, OUT last text[]"
        return self._function(f"{self.capture.name}_backfill", parameters, "text[], integer", "record", body)
