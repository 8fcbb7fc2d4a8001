"""The order of builds along their streams: upstream before downstream, as they are locked, applied and healed."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from refold.store.builds.build import Build


def depths(edges: Iterable[tuple[int, int | None]]) -> dict[int, int]:
    """How far each node is from the root, given (node, its parent or None). Pure."""
    above = dict(edges)

    def depth(node: int) -> int:
        parent = above[node]
        return 0 if parent is None else 1 + depth(parent)

    return {node: depth(node) for node in above}


def depth_by_id(conn: psycopg.Connection) -> dict[int, int]:
    """How far each build is from the log."""
    return depths(conn.execute("SELECT build_id, upstream_id FROM refold.builds").fetchall())


def by_depth(conn: psycopg.Connection, builds: Iterable[Build]) -> list[Build]:
    """Sorts builds, upstream before downstream and older before newer."""
    order = depth_by_id(conn)
    return sorted(builds, key=lambda build: (order[build.build_id], build.build_id))
