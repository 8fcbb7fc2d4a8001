"""The statements of a capture: functions, triggers and grants."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from refold.model.sql_text import ident

SCHEMA = "refold_captures"
"""Schema of the generated functions."""


@dataclass(frozen=True, slots=True)
class GeneratedFunction:
    """A function of a capture.

    Args:
        name: its name in the schema of functions.
        arguments: the types of its arguments, as SQL.
        text: the statement that creates it.
    """

    name: str
    arguments: str
    text: str

    @property
    def signature(self) -> str:
        """The function as SQL names it."""
        return f"{SCHEMA}.{ident(self.name)}({self.arguments})"


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of a capture, on the table or on one of its partitions.

    Args:
        name: its name.
        schema: schema of the table.
        table: the table.
        text: the statement that creates it.
    """

    name: str
    schema: str
    table: str
    text: str

    @property
    def on(self) -> str:
        """The table as SQL names it."""
        return f"{ident(self.schema)}.{ident(self.table)}"

    @property
    def always(self) -> str:
        """The statement that lets it fire in every replication role of a session."""
        return f"ALTER TABLE {self.on} ENABLE ALWAYS TRIGGER {ident(self.name)}"


@dataclass(frozen=True, slots=True)
class CaptureSql:
    """All statements of a capture.

    Args:
        functions: its functions.
        triggers: its triggers.
        grants: what its role needs to read the table for a backfill.
        key: columns that identify a row; empty if there are none, and so no backfill.
    """

    functions: tuple[GeneratedFunction, ...]
    triggers: tuple[Trigger, ...]
    grants: tuple[str, ...]
    key: tuple[str, ...]

    def statements(self) -> list[str]:
        """Return all statements in their order."""
        made = [one.text for one in self.functions] + list(self.grants)
        return made + [text for one in self.triggers for text in (one.text, one.always)]

    @property
    def fingerprint(self) -> str:
        """A hash of all statements."""
        return hashlib.sha256("\n".join(self.statements()).encode()).hexdigest()[:32]
