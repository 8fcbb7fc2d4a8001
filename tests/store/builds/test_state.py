"""The states of a build: which changes there are, and that no other module makes one."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import psycopg
import pytest

import refold
from refold.engine.deployment.create import make_builds, new_deployment
from refold.model.projection.definition import from_source
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.store.builds import state
from refold.store.builds.build import Build, State, by_id
from refold.store.builds.state import TRANSITIONS, WrongState
from refold.store.schema.resources import sql_dir

Connection = psycopg.Connection[Any]

CHANGES_STATE = re.compile(r"\bUPDATE\s+(ONLY\s+)?refold\.builds\b(?:(?!\bWHERE\b).)*?\bstate\s*=", re.DOTALL)

CALLS: dict[str, Callable[[Connection, Build], bool | None]] = {
    "go_live": state.go_live,
    "retire": state.retire,
    "give_up": state.give_up,
    "revive": lambda conn, build: state.revive(conn, build, build.deployment),
    "put_back": state.put_back,
    "drop": lambda conn, build: state.drop(conn, build.build_id),
    "lose": state.lose,
}


def made(admin: Connection, sources: dict[str, str]) -> list[Build]:
    streams: dict[str, tuple[str, ...]] = {LOG: LOG_COLUMNS}
    prints: dict[str, str] = {}
    definitions = []
    for name, source in sources.items():
        definitions.append(from_source(name, source, streams, prints))
        streams[name] = ("event_id", "action")
        prints[name] = definitions[-1].fingerprint
    return make_builds(admin, definitions, new_deployment(admin, "deploy", promote=False), resumed={})


@pytest.fixture
def build(admin: Connection) -> Build:
    (build,) = made(admin, {"daily": "SELECT action, count(*) AS n FROM events GROUP BY action"})
    return build


def in_state(admin: Connection, build: Build, wanted: State) -> Build:
    admin.execute(
        "UPDATE refold.builds SET state = %s, retired_at = CASE %s WHEN 'retired' THEN now() END WHERE build_id = %s",
        (wanted, wanted, build.build_id),
    )
    return by_id(admin, build.build_id)


@pytest.mark.parametrize("before", get_args(State))
@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_change_of_state_comes_from_a_state_that_is_named(
    admin: Connection, build: Build, name: str, before: State
) -> None:
    build = in_state(admin, build, before)
    change = TRANSITIONS[name]
    if before in change.before:
        assert CALLS[name](admin, build) in (None, True)
        assert by_id(admin, build.build_id).state == change.after
        return
    try:
        assert CALLS[name](admin, build) is False
    except WrongState as error:
        assert str(error) == f"{build.table_name} is {before}, and cannot become {change.after}"
    assert by_id(admin, build.build_id) == build


def test_every_change_of_the_table_has_its_function() -> None:
    assert CALLS.keys() == TRANSITIONS.keys()
    assert all(hasattr(state, name) for name in TRANSITIONS)
    # From a dropped build there is no way back, and every other state can be left.
    left = {before for change in TRANSITIONS.values() for before in change.before}
    assert left == {"building", "live", "retired"}


def test_what_a_change_notes(admin: Connection, build: Build) -> None:
    later = new_deployment(admin, "deploy", promote=True)
    admin.execute("UPDATE refold.builds SET error = 'too far behind' WHERE build_id = %s", (build.build_id,))
    state.go_live(admin, build)
    live = by_id(admin, build.build_id)
    assert live.promoted_at is not None and live.error is None
    state.retire(admin, live, by=later)
    retired = by_id(admin, build.build_id)
    assert retired.retired_at is not None and retired.retired_by == later
    state.revive(admin, retired, later)
    revived = by_id(admin, build.build_id)
    assert (revived.deployment, revived.retired_at, revived.retired_by) == (later, None, None)
    state.put_back(admin, retired)
    assert by_id(admin, build.build_id) == retired


def test_several_at_once_end_only_what_is_on_its_way(admin: Connection, build: Build) -> None:
    state.retire_candidates(admin, ["daily"], but=[build.build_id])
    state.retire_abandoned(admin, [], defined=[])
    assert by_id(admin, build.build_id).state == "building"
    admin.execute("UPDATE refold.deployments SET given_up_at = now()")
    state.retire_abandoned(admin, [], defined=["daily"])
    assert by_id(admin, build.build_id).state == "building"
    state.retire_abandoned(admin, [], defined=["another"])
    assert by_id(admin, build.build_id).state == "retired"
    in_state(admin, build, "live")
    state.retire_candidates(admin, ["daily"], but=[])
    state.retire_abandoned(admin, ["daily"], defined=[])
    assert by_id(admin, build.build_id).state == "live"


def test_what_reads_a_build_that_has_ended_ends_at_every_depth(admin: Connection) -> None:
    builds = made(
        admin, {to: f"SELECT event_id, action FROM {of}" for to, of in [("a", "events"), ("b", "a"), ("c", "b")]}
    )
    state.retire_orphans(admin)
    assert {by_id(admin, one.build_id).state for one in builds} == {"building"}
    state.retire(admin, next(one for one in builds if one.projection == "a"))
    state.retire_orphans(admin)
    assert {by_id(admin, one.build_id).state for one in builds} == {"retired"}


def literals(source: str) -> Iterator[str]:
    """The texts of a module, with `?` in place of what is put into them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str | bytes):
                yield node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "?" for one in node.values)


@pytest.mark.slow
def test_no_other_module_changes_a_state() -> None:
    code = {path: "\n;\n".join(literals(path.read_text())) for path in Path(refold.__file__).parent.rglob("*.py")}
    code |= {path: path.read_text() for path in sql_dir().rglob("*.sql")}
    assert [path.name for path, text in code.items() if CHANGES_STATE.search(text)] == ["state.py"]
    assert CHANGES_STATE.search("UPDATE refold.builds AS b SET error = NULL,\n state = 'live' WHERE true")
    assert not CHANGES_STATE.search("UPDATE refold.builds SET error = NULL WHERE state = 'live'")
