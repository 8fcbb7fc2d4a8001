"""How two builds of a metric differ, against a comparison of all rows in Python."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import rebuild
from refold.engine.diff.diff import diff, differing
from refold.engine.diff.result import Diff
from refold.errors import BuildError
from refold.inspect.lineage.cost import Bound
from refold.inspect.lineage.one_sided import diff_with_events
from refold.postgres.connect import connect
from refold.store.builds.build import live_builds
from refold.store.builds.compiled import Compiler
from tests.support.blocks import touched
from tests.support.scratch import Scratch
from tests.support.waiting import wait_until

Compare = Callable[..., Diff]

DAILY = """
SELECT (ts AT TIME ZONE 'UTC')::date AS day, user_id, count(*) AS events, sum((metadata->>'n')::numeric) AS total,
       avg((metadata->>'n')::numeric) AS mean
FROM events WHERE {where} GROUP BY day, user_id HAVING count(*) > 1
"""
USERS = """
SELECT action, count(*) AS events, count(DISTINCT user_id) AS users FROM events WHERE {where} GROUP BY action
"""
FUNNEL = """
SELECT user_id, window_funnel(interval '{hours} hours', ts, action = 'view', action = 'buy') AS level
FROM events GROUP BY user_id
"""
PATHS = """
SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path FROM events WHERE {where} GROUP BY user_id
"""
STEPS = """
-- key: user_id
SELECT user_id, action, count(*) OVER (PARTITION BY user_id) AS events FROM events WHERE {where}
"""
BUYS = "SELECT event_id, user_id, (metadata->>'n')::numeric + {plus} AS n FROM events WHERE {where}"
NUMBERED = '''
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    n: int
    user_id: str | None

@transform()
def numbered(event: Event) -> list[Row]:
    """Rows of an event."""
    return [Row(n=n * {plus}, user_id=event.user_id) for n in range(len(event.action) - {less})]
'''

EVERY_WHERE, SOME = "true", "(metadata->>'n')::numeric <> 3"


@pytest.fixture
def compare(scratch: Scratch) -> Iterator[Compare]:
    """Compares as an inspector."""
    with connect(scratch.url, "refold_inspector", autocommit=True) as conn:

        def run(name: str, **options: Any) -> Diff:
            return diff(conn, Compiler(scratch.folder), name, **options)

        yield run


def record(scratch: Scratch, *, start: int = 0, number: int = 40) -> None:
    """Appends events of a few users, some without any, over four days."""
    with psycopg.connect(scratch.url) as conn:
        append(
            conn,
            [
                {
                    "id": f"{at:03}",
                    "action": ("view", "buy", "leave")[at % 7 % 3],
                    "ts": f"2026-01-0{1 + at % 4}T{at % 20:02}:00:00Z",
                    "user_id": None if at % 5 == 0 else f"u{at % 6}",
                    "metadata": {"n": at % 7},
                }
                for at in range(start, start + number)
            ],
        )


def by_hand(scratch: Scratch, name: str, key: tuple[str, ...], select: str) -> Counter[str]:
    """Compares all rows of the live build and of the newest build in Python."""
    found: list[dict[Any, dict[str, Any]]] = []
    for state in ("live", "building"):
        row = scratch.worker.execute(
            "SELECT table_name FROM refold.builds WHERE projection = %s AND state = %s", (name, state)
        ).fetchone()
        assert row is not None
        rows = scratch.worker.execute(("SELECT " + select.format(table=f"refold_builds.{row[0]}")).encode())
        assert rows.description is not None
        names = [column.name for column in rows.description]
        table: dict[Any, dict[str, Any]] = {}
        for values in rows.fetchall():
            one = dict(zip(names, values, strict=True))
            table[tuple(str(one[part]) for part in key)] = one
        found.append(table)
    before, after = found
    return Counter(
        "added" if one not in before else "removed" if one not in after
        else "identical" if before[one] == after[one] else "modified"
        for one in before | after
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "first", "second", "key", "select"),
    [
        (
            "daily",
            DAILY.format(where=EVERY_WHERE),
            DAILY.format(where=SOME),
            ("day", "user_id"),
            "day, user_id, events, total FROM {table} WHERE events > 1",
        ),
        (
            "users",
            USERS.format(where=EVERY_WHERE),
            USERS.format(where=SOME),
            ("action",),
            "action, events, users FROM {table}",
        ),
        ("funnel", FUNNEL.format(hours=48), FUNNEL.format(hours=4), ("user_id",), "user_id, level FROM {table}"),
        (
            "paths",
            PATHS.format(where=EVERY_WHERE),
            PATHS.format(where=SOME),
            ("user_id",),
            "user_id, path FROM {table}",
        ),
        (
            "buys",
            BUYS.format(plus="0", where=EVERY_WHERE),
            BUYS.format(plus="(CASE WHEN user_id = 'u1' THEN 1 ELSE 0 END)", where=SOME),
            ("event_id",),
            "event_id, user_id, n FROM {table}",
        ),
        (
            "numbered",
            NUMBERED.format(plus=1, less=0),
            NUMBERED.format(plus=2, less=1),
            ("event_id",),
            "event_id, n, user_id FROM {table}",
        ),
    ],
)
def test_every_upkeep(
    scratch: Scratch, compare: Compare, name: str, first: str, second: str, key: tuple[str, ...], select: str
) -> None:
    record(scratch)
    scratch.deploy(**{name: first})  # type: ignore[arg-type]
    scratch.deploy(live=False, **{name: second})
    found = compare(name)
    expected = by_hand(scratch, name, key, select)
    rows = found.rows
    assert expected["modified"] + expected["removed"] + expected["added"] > 0
    told = (rows.identical + found.slices.rows, rows.modified, rows.added, rows.removed, rows.in_flight)
    assert told == (expected["identical"], expected["modified"], expected["added"], expected["removed"], 0)
    assert not found.same and found.shape.same
    kinds = Counter(one.kind for one in found.samples)
    assert kinds == {kind: min(20, number) for kind, number in expected.items() if kind != "identical" and number}
    if "user_id" in key:
        assert any(one.key["user_id"] is None for one in compare(name, samples=1000).samples) == (
            any(one.key["user_id"] is None for one in found.samples)
        )


def test_rows_of_a_key_that_has_several(scratch: Scratch, compare: Compare) -> None:
    record(scratch)
    scratch.deploy_one("steps", STEPS.format(where=EVERY_WHERE))
    scratch.deploy(live=False, steps=STEPS.format(where=SOME))
    rows = compare("steps").rows
    assert rows.modified == 0 and rows.removed > rows.added > 0


def test_numbers_are_subtracted_exactly(scratch: Scratch, compare: Compare) -> None:
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": f"{n}", "action": "a", "user_id": f"u{n}", "ts": n} for n in range(3)])
    text = "SELECT event_id, user_id, {big} AS big, {small} AS small FROM events"
    scratch.deploy_one("sums", text.format(big="9007199254740993::numeric", small="0.1::float8"))
    scratch.deploy(
        live=False, sums=text.format(big="-0.000000000000000001::numeric", small="0.30000000000000004::float8")
    )
    big, small = compare("sums").columns
    assert (big.name, big.rows, small.name, small.rows) == ("big", 3, "small", 3)
    assert big.sum == Decimal("-27021597764222979.000000000000000003")
    assert big.most == Decimal("9007199254740993.000000000000000001")
    # 15 digits, which Postgres casts to, would make 0.3 of it.
    assert small.most == Decimal("0.20000000000000004")
    assert compare("sums").as_dict()["columns"][1]["sum"] == "0.60000000000000012"


def test_equal_builds_are_not_read(scratch: Scratch, compare: Compare, connect: Callable[..., Any]) -> None:
    record(scratch)
    scratch.deploy(daily=DAILY.format(where=EVERY_WHERE), buys=BUYS.format(plus="0", where="true"))
    rebuild(scratch.worker, scratch.folder, ["daily", "buys"], lambda progress: None, promote=False)
    record(scratch, start=40)
    scratch.drain()
    worker = psycopg.connect(scratch.url, autocommit=True)
    watch = connect(autocommit=True)
    for name in ("daily", "buys"):
        found: list[Diff] = []
        compiler = Compiler(scratch.folder)
        diff(worker, compiler, name)
        read = touched(watch, worker, lambda: found.append(diff(worker, compiler, name)))  # noqa: B023
        assert not [table for table in read if table.startswith(name)], read
        assert "checksums" in read or "checksum_changes" in read
        assert found[0].same and found[0].slices.read == 0 and found[0].slices.rows > 15
        assert found[0].rows.differing == found[0].rows.identical == 0
    worker.close()


def test_only_slices_that_differ_are_read(scratch: Scratch, compare: Compare, connect: Callable[..., Any]) -> None:
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": f"{n}", "action": "a", "ts": n} for n in range(40_000)])
    scratch.deploy_one("seen", "SELECT event_id, ts FROM events")
    scratch.deploy(live=False, seen="SELECT event_id, ts FROM events WHERE event_id <> '39000'")
    worker, watch = connect(autocommit=True), connect(autocommit=True)
    worker.execute("VACUUM ANALYZE")
    found: list[Diff] = []
    compiler = Compiler(scratch.folder)
    read = touched(watch, worker, lambda: found.append(diff(worker, compiler, "seen", samples=0)))
    table = scratch.build("seen").table_name
    ((blocks,),) = watch.execute("SELECT pg_relation_size(%s) / 8192", (f"refold_builds.{table}",)).fetchall()
    assert found[0].rows.removed == 1 and found[0].slices.read == 1 and found[0].slices.equal == 2
    assert found[0].slices.first == found[0].slices.last and found[0].slices.rows > 30_000
    assert read[table] < blocks / 2, (read, blocks)


def test_days_that_differ_are_named(scratch: Scratch, compare: Compare) -> None:
    record(scratch)
    scratch.deploy_one("daily", DAILY.format(where="true"))
    scratch.deploy(live=False, daily=DAILY.format(where="ts < '2026-01-02T23:00Z' AND event_id <> '024'"))
    slices = compare("daily").slices
    assert (slices.first, slices.last, slices.equal, slices.read) == ("2026-01-01", "2026-01-04", 1, 3)


def test_a_changed_shape(scratch: Scratch, compare: Compare) -> None:
    record(scratch)
    scratch.deploy_one("users", "SELECT action, count(*) AS events, min(ts) AS gone FROM events GROUP BY action")
    scratch.deploy(
        live=False,
        users="SELECT action, sum(1::numeric) AS events, count(DISTINCT user_id) AS users FROM events GROUP BY action",
    )
    found = compare("users")
    assert found.shape.added == (("users", "bigint"),) and found.shape.removed == (
        ("gone", "timestamp with time zone"),
    )
    assert [(one.name, one.before, one.after) for one in found.shape.retyped] == [("events", "bigint", "numeric")]
    assert found.rows.identical == 3 and not found.same
    scratch.deploy(live=False, users="SELECT user_id, count(*) AS events FROM events GROUP BY user_id")
    found = compare("users")
    assert found.shape.key_before == ("action text",) and found.shape.key_after == ("user_id text",)
    assert (found.rows.removed, found.rows.added) == (3, 7) and not found.samples


def test_what_only_one_build_has_reached_is_in_flight(scratch: Scratch, compare: Compare) -> None:
    record(scratch)
    texts = {"users": USERS.format(where=EVERY_WHERE), "buys": BUYS.format(plus="0", where="true")}
    scratch.deploy(**texts)  # type: ignore[arg-type]
    scratch.deploy(
        live=False, users=USERS.format(where="true OR event_id <> ''"), buys=BUYS.format(plus="1 - 1", where="true")
    )
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": "late", "action": "buy", "user_id": "new", "ts": 0, "metadata": {"n": 5}}])
    compiler = Compiler(scratch.folder)
    for build in live_builds(scratch.worker):
        apply_next_page(scratch.worker, compiler.of(scratch.worker, build), 100)
    users, buys = compare("users"), compare("buys")
    assert (users.rows.in_flight, users.rows.differing) == (1, 0) and users.same
    assert users.samples[0].kind == "in flight" and users.samples[0].key == {"action": "buy"}
    assert (buys.rows.in_flight, buys.rows.differing) == (1, 0) and buys.samples[0].key == {"event_id": "late"}
    scratch.drain()
    assert compare("users").rows.in_flight == compare("buys").rows.in_flight == 0


def test_a_dead_letter_is_a_difference(scratch: Scratch, compare: Compare) -> None:
    record(scratch, number=6)
    scratch.deploy_one("buys", BUYS.format(plus="0", where="true"))
    scratch.deploy(live=False, buys=BUYS.format(plus="(1 / (length(user_id) - 9) * 0)", where="true"))
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": "late", "action": "buy", "user_id": "ninechars", "ts": 0, "metadata": {"n": 5}}])
    scratch.drain()
    found = compare("buys")
    assert found.rows.removed == 1 and found.rows.in_flight == 0 and found.after.dead_letters == 1
    assert [one.key for one in found.samples if one.kind == "removed"] == [{"event_id": "late"}]


def test_the_events_that_only_one_build_used(scratch: Scratch) -> None:
    record(scratch)
    scratch.deploy(users=USERS.format(where=EVERY_WHERE), paths=PATHS.format(where=EVERY_WHERE))
    other = "event_id NOT IN ('001', '004') AND event_id <> ''"
    scratch.deploy(live=False, users=USERS.format(where=other), paths=PATHS.format(where=EVERY_WHERE) + " -- again")
    with connect(scratch.url, "refold_inspector", autocommit=True) as conn:
        found = diff_with_events(conn, Compiler(scratch.folder), "users", samples=20)
    (buy,) = found.samples
    assert buy.key == {"action": "buy"} and buy.events is not None
    assert (buy.events.before, buy.events.before_ids, buy.events.after) == (2, ("001", "004"), 0)
    assert buy.events.both == 10
    scratch.deploy(live=False, users=USERS.format(where="true").replace("count(*)", "2 * count(*)"))
    with connect(scratch.url, "refold_inspector", autocommit=True) as conn:
        found = diff_with_events(conn, Compiler(scratch.folder), "users", samples=20, bound=Bound(agreed=True))
    assert [(one.events.before, one.events.after) for one in found.samples if one.events] == [(0, 0)] * 3


def test_rows_changed_by_hand_are_the_matter_of_an_audit(scratch: Scratch, compare: Compare) -> None:
    record(scratch)
    scratch.deploy_one("users", USERS.format(where=EVERY_WHERE))
    rebuild(scratch.worker, scratch.folder, ["users"], lambda progress: None, promote=False)
    scratch.worker.execute(f'UPDATE refold_builds."{scratch.build("users").table_name}" SET events = 9'.encode())
    assert compare("users").same
    with differing(scratch.worker, Compiler(scratch.folder), "users") as pair:
        assert pair.diff(20, skip=False).rows.modified == 3


def test_a_purge_cannot_come_between_snapshot_and_log(scratch: Scratch, connect: Callable[..., Any]) -> None:
    record(scratch)
    scratch.deploy_one("users", USERS.format(where=EVERY_WHERE))
    rebuild(scratch.worker, scratch.folder, ["users"], lambda progress: None, promote=False)
    purge, watch = connect(), connect(autocommit=True)
    purge.execute("LOCK TABLE refold.events IN ACCESS EXCLUSIVE MODE")
    found: list[Diff] = []
    compiler = Compiler(scratch.folder)
    with psycopg.connect(scratch.url, autocommit=True) as conn:
        reader = threading.Thread(target=lambda: found.append(diff(conn, compiler, "users")))
        reader.start()
        wait_until(
            lambda: (
                watch.execute(
                    "SELECT FROM pg_locks WHERE relation = 'refold.events'::regclass AND NOT granted"
                ).fetchone()
                is not None
            )
        )
        # What a purge writes beside the partition that it detaches.
        purge.execute(
            "INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash) VALUES (%s, 0, 1, 1, 1)",
            (scratch.build("users").build_id,),
        )
        purge.commit()
        reader.join()
    assert found[0].slices.read == 1


def test_builds_that_cannot_be_compared(scratch: Scratch, compare: Compare) -> None:
    record(scratch)
    scratch.deploy_one("users", USERS.format(where=EVERY_WHERE))
    for options, message in (
        ({"name": "user"}, "Did you mean users?"),
        ({"name": "users"}, "no build of users waits to go live"),
        ({"name": "users", "number": 7}, "users has no other build 7"),
    ):
        with pytest.raises(BuildError, match=message):
            compare(**options)
    scratch.deploy_one("users", USERS.format(where=SOME))
    assert compare("users", number=1).rows.differing > 0
