"""The generation of a capture's SQL: its functions, and the triggers that call them."""

from __future__ import annotations

from refold.model.capture.capture_file import CaptureFile, Operation
from refold.model.capture.functions import FunctionMaker
from refold.model.capture.shape import TableShape
from refold.model.capture.statements import SCHEMA, CaptureSql, Trigger
from refold.model.sql_text import ident, quoted

_TABLES: dict[Operation, str] = {
    "insert": "AFTER INSERT ON {table}\n    REFERENCING NEW TABLE AS new_rows",
    "update": "AFTER UPDATE ON {table}\n    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "AFTER DELETE ON {table}\n    REFERENCING OLD TABLE AS old_rows",
    "truncate": "AFTER TRUNCATE ON {table}",
}


def key_of(capture: CaptureFile, table: TableShape) -> tuple[str, ...]:
    """Return the columns that identify a row: those of the file, else the primary key; empty if there are none."""
    return table.primary_key if capture.id is None else capture.id


def generate(capture: CaptureFile, capture_id: int, table: TableShape) -> CaptureSql:
    """Return the SQL of a capture that was checked against its table.

    Args:
        capture: the file.
        capture_id: number of the capture in refold.captures.
        table: the table.
    """
    key = key_of(capture, table)
    maker = FunctionMaker(capture, capture_id, table, [one for one in map(table.column, key) if one is not None])
    functions = [maker.trigger_function(operation) for operation in capture.expressions]
    grants: list[str] = []
    if key and "insert" in capture.expressions:
        functions.append(maker.backfill())
        grants = [
            f"GRANT USAGE ON SCHEMA {ident(table.schema)} TO refold_capture",
            f"GRANT SELECT ON {ident(table.schema)}.{ident(table.name)} TO refold_capture",
        ]
    triggers = []
    # A statement on a partition fires the triggers of the partition only.
    for schema, name in ((table.schema, table.name), *table.partitions):
        on = f"{ident(schema)}.{ident(name)}"
        for operation in capture.expressions:
            trigger = trigger_name(capture.name, operation)
            text = (
                f"CREATE OR REPLACE TRIGGER {ident(trigger)}\n    {_TABLES[operation].format(table=on)}\n"
                f"    FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.{ident(f'{capture.name}_{operation}')}()"
            )
            triggers.append(Trigger(trigger, schema, name, text))
        if "delete" in capture.expressions and "truncate" not in capture.expressions:
            trigger = trigger_name(capture.name, "truncate")
            text = (
                f"CREATE OR REPLACE TRIGGER {ident(trigger)}\n    BEFORE TRUNCATE ON {on}\n"
                f"    FOR EACH STATEMENT EXECUTE FUNCTION refold.refuse_truncate({quoted(capture.name)})"
            )
            triggers.append(Trigger(trigger, schema, name, text))
    return CaptureSql(tuple(functions), tuple(triggers), tuple(grants), key)


def trigger_name(capture: str, operation: Operation) -> str:
    """Return the name of a trigger."""
    return f"refold_{capture}_{operation}"
