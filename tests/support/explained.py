"""The plans of what a session really runs, prepared statements and functions included (auto_explain)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

Node = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One statement that was run.

    Args:
        query: its text.
        root: the plan's top node, as EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) has it.
    """

    query: str
    root: Node

    @property
    def buffers(self) -> int:
        """Pages it touched, from the cache or not."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    def nodes(self, relation: str) -> list[Node]:
        """Its nodes that read relations whose names begin so."""
        return [node for node in _walk(self.root) if node.get("Relation Name", "").startswith(relation)]


@contextmanager
def explained(conn: psycopg.Connection) -> Iterator[list[Plan]]:
    """Collects the plans of everything that a superuser's session runs in this block."""
    plans: list[Plan] = []

    def take(notice: psycopg.errors.Diagnostic) -> None:
        _, found, document = (notice.message_primary or "").partition("plan:\n")
        if found:
            plan = json.loads(document)
            plans.append(Plan(plan["Query Text"], plan["Plan"]))

    row = conn.execute("SELECT current_role::text").fetchone()
    assert row is not None
    conn.execute("RESET ROLE")
    conn.execute("LOAD 'auto_explain'")
    for name, value in _SETTINGS.items():
        conn.execute("SELECT set_config(%s, %s, false)", (name, value))
    conn.execute("SELECT set_config('role', %s, false)", (row[0],))
    conn.add_notice_handler(take)
    conn.execute("SET client_min_messages = log")
    try:
        yield plans
    finally:
        conn.execute("RESET client_min_messages")
        conn.remove_notice_handler(take)


_SETTINGS = {
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",
}


def rows_read(node: Node) -> float:
    """Rows that a scan looked at, over all its loops."""
    seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float(seen * node["Actual Loops"])


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)
