"""The states of a build, and every change between them: no other module updates `refold.builds.state`.

              put_back, give_up, retire_*
          ┌──────────────────────────────┐
          │   revive                     ▼
    ▶ building ◀───────────────────── retired ──────┐
          │                              ▲          │ drop
          │ go_live                      │          ▼
          └──────────▶ live ─────────────┘       dropped
                         │      retire              ▲
                         └───────── lose ───────────┘   (so does a build that is not live yet)

A build is made as `building`: its first load runs, or it is loaded and catches up. `live` is what analysts see, at
most one build of a projection, which an index enforces. `retired` builds keep their tables, to go back to. Of a
`dropped` build only the row is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from refold.errors import BuildError
from refold.store import outbox, sinks
from refold.store.builds.build import Build, State


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state that is allowed.

    Args:
        before: the states it comes from.
        after: the state it leads to.
    """

    before: tuple[State, ...]
    after: State


TRANSITIONS: Mapping[str, Transition] = {
    "go_live": Transition(("building",), "live"),
    "retire": Transition(("building", "live"), "retired"),
    "give_up": Transition(("building",), "retired"),
    "revive": Transition(("retired",), "building"),
    "put_back": Transition(("building",), "retired"),
    "drop": Transition(("retired",), "dropped"),
    "lose": Transition(("building", "live"), "dropped"),
}
"""By the name of the function that makes it; the `retire_*` are `give_up` of several builds."""


class WrongState(BuildError):
    """A build is not in a state from which it can get to the one that is asked for: another command was faster."""


def go_live(conn: psycopg.Connection, build: Build) -> None:
    """Makes a build live; its predecessor is retired before, in the same transaction.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        build: which.

    Raises:
        WrongState: it is not kept any more.
    """
    # Why it did not go live before: nothing else clears that while no event comes.
    _must(conn, "go_live", build, "promoted_at = now(), retired_at = NULL, retired_by = NULL, error = NULL")
    _tell_sinks(conn, build.projection, build.build_id)


def retire(conn: psycopg.Connection, build: Build, *, by: int | None = None) -> None:
    """Ends a build that is kept; its table stays.

    Args:
        conn: the caller's transaction.
        build: which.
        by: the deployment that replaces it or takes it off, if any.

    Raises:
        WrongState: it is not kept any more.
    """
    if by is None:
        _must(conn, "retire", build, "retired_at = now()")
    else:
        _must(conn, "retire", build, "retired_at = now(), retired_by = %(by)s", {"by": by})
    if build.state == "live":
        _tell_sinks(conn, build.projection, None)


def give_up(conn: psycopg.Connection, build: Build) -> bool:
    """Ends a build that is not live yet; False when it is not on its way any more."""
    return _may(conn, "give_up", build.build_id, "retired_at = now()")


def retire_candidates(conn: psycopg.Connection, projections: Sequence[str], *, but: Sequence[int]) -> None:
    """Ends the builds of some projections that are on their way, except these."""
    _unfinished(
        conn,
        "AND b.projection = ANY (%(projections)s) AND b.build_id <> ALL (%(but)s)",
        {"projections": list(projections), "but": list(but)},
    )


def retire_abandoned(conn: psycopg.Connection, projections: Sequence[str], *, defined: Sequence[str]) -> None:
    """Ends the builds that are on their way to what nobody wants any more.

    Args:
        conn: the caller's transaction.
        projections: whose builds are of no use, since their definition has changed again, or back.
        defined: the projections that have a file. Of the others, those end whose deployment was given up.
    """
    _unfinished(
        conn,
        """
        AND (b.projection = ANY (%(projections)s) OR b.projection <> ALL (%(defined)s) AND b.deployment IN
            (SELECT d.deployment FROM refold.deployments AS d WHERE d.given_up_at IS NOT NULL))
        """,
        {"projections": list(projections), "defined": list(defined)},
    )


def retire_orphans(conn: psycopg.Connection) -> None:
    """Ends unfinished builds that nothing feeds any more: what they read is retired, and perhaps their file is gone."""
    while _unfinished(
        conn,
        "AND EXISTS (SELECT FROM refold.builds AS u WHERE u.build_id = b.upstream_id"
        " AND u.state IN ('retired', 'dropped'))",
    ):
        pass


def revive(conn: psycopg.Connection, build: Build, deployment: int) -> None:
    """Puts a retired build on its way back.

    Args:
        conn: the caller's transaction.
        build: which.
        deployment: the one that makes it live.

    Raises:
        WrongState: it is not retired, or its table was dropped meanwhile.
    """
    _must(
        conn,
        "revive",
        build,
        "deployment = %(deployment)s, retired_at = NULL, retired_by = NULL",
        {"deployment": deployment},
    )


def put_back(conn: psycopg.Connection, build: Build) -> bool:
    """Retires a revived build as it was; False when it is not on its way any more.

    Args:
        conn: the caller's transaction, or one in autocommit mode.
        build: as it was before `revive`.
    """
    return _may(
        conn,
        "put_back",
        build.build_id,
        "deployment = %(deployment)s, upstream_id = %(upstream)s, retired_at = %(at)s, retired_by = %(by)s",
        {
            "deployment": build.deployment,
            "upstream": build.upstream_id,
            "at": build.retired_at,
            "by": build.retired_by,
        },
    )


def drop(conn: psycopg.Connection, build_id: int) -> bool:
    """Notes that a retired build's tables go, in the transaction that drops them; False when it is not retired."""
    return _may(conn, "drop", build_id)


def lose(conn: psycopg.Connection, build: Build) -> None:
    """Notes that a build that was kept has no tables any more.

    Raises:
        WrongState: it is not kept.
    """
    _must(conn, "lose", build)
    if build.state == "live":
        _tell_sinks(conn, build.projection, None)


def _tell_sinks(conn: psycopg.Connection, projection: str, build_id: int | None) -> None:
    for sink_id in sinks.switch(conn, projection, build_id):
        outbox.purge(conn, sink_id)


def _must(
    conn: psycopg.Connection,
    name: str,
    build: Build,
    also: str = "",
    parameters: Mapping[str, object] | None = None,
) -> None:
    if not _may(conn, name, build.build_id, also, parameters):
        row = conn.execute("SELECT state FROM refold.builds WHERE build_id = %s", (build.build_id,)).fetchone()
        raise WrongState(
            f"{build.table_name} is {'gone' if row is None else row[0]}, and cannot become {TRANSITIONS[name].after}",
            remedy="Another command was faster. Run this one again.",
        )


def _may(
    conn: psycopg.Connection,
    name: str,
    build_id: int,
    also: str = "",
    parameters: Mapping[str, object] | None = None,
) -> bool:
    return _change(conn, name, "AND b.build_id = %(build)s", also, {"build": build_id, **(parameters or {})}) == 1


def _unfinished(conn: psycopg.Connection, which: str, parameters: Mapping[str, object] | None = None) -> int:
    return _change(conn, "give_up", which, "retired_at = now()", parameters or {})


def _change(conn: psycopg.Connection, name: str, which: str, also: str, parameters: Mapping[str, object]) -> int:
    """Makes a transition of all builds that a condition names and that are in a state it comes from; how many."""
    change = TRANSITIONS[name]
    return conn.execute(
        f"""
        UPDATE refold.builds AS b SET state = %(after)s{f", {also}" if also else ""}
        WHERE b.state = ANY (%(before)s) {which}
        """.encode(),
        {"after": change.after, "before": list(change.before), **parameters},
    ).rowcount
