"""Rows of days that are not kept go; what stays is the query over the days that are kept."""

from __future__ import annotations

from datetime import date, timedelta

import psycopg
import pytest

from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.audit import audit
from refold.engine.retain.policy import Wish, leaving
from refold.errors import BuildError, InputError
from refold.store import retentions
from tests.engine.retain.conftest import BY_TIME, FIRST, PROJECT, Retained

pytestmark = pytest.mark.live("retained")

BORDER = FIRST + timedelta(days=40)


def test_old_days_go_and_the_rest_stays_the_query(retained: Retained) -> None:
    assert retained.wrong() == {}
    before = {name: retained.days(name) for name in BY_TIME}
    retained.retain_all(BORDER)
    for name in BY_TIME:
        first = BORDER.replace(day=1) if name == "months" else BORDER
        assert retained.days(name) == [day for day in before[name] if day >= first], name
        assert before[name][0] < first, name
    retained.look()
    assert retained.wrong() == {}
    report = retained.reconcile()
    assert (report.findings, report.checksums) == ([], [])
    # The stream has all its rows, and so has what has no day.
    assert retained.admin.execute("SELECT sum(events) FROM metrics.by_user").fetchone() == (300,)


def test_late_events_of_days_that_are_gone_are_read_and_make_no_row(retained: Retained) -> None:
    retained.retain_all(BORDER)
    read = retained.build("by_day").events_applied
    retained.late(FIRST, BORDER - timedelta(days=1), BORDER, BORDER + timedelta(days=1))
    retained.drain()
    assert retained.build("by_day").events_applied == read + 4
    for name in BY_TIME:
        assert retained.days(name)[0] >= (BORDER.replace(day=1) if name == "months" else BORDER), name
    retained.look()
    assert retained.wrong() == {}
    assert retained.reconcile().findings == []


def test_portions_and_the_border_after_each_of_them(retained: Retained) -> None:
    build = retained.build("by_day")
    rows = retained.admin.execute(f"SELECT count(*) FROM refold_builds.{build.table_name}").fetchone()
    gone = retained.retain("by_day", BORDER, rows=1)
    left = retained.admin.execute(f"SELECT count(*) FROM refold_builds.{build.table_name}").fetchone()
    assert rows is not None and left is not None and gone == rows[0] - left[0] > 0
    assert retained.build("by_day").retained_from == (BORDER - date(1970, 1, 1)).days
    assert retained.retain("by_day", BORDER) == 0
    retained.look()
    assert retained.wrong() == {}


def test_a_damaged_row_of_a_day_that_is_kept_is_healed_and_one_of_a_day_that_is_gone_is_deleted(
    retained: Retained,
) -> None:
    retained.retain_all(BORDER)
    table = retained.build("by_day").table_name
    retained.admin.execute(f"UPDATE refold_builds.{table} SET events = 777 WHERE day >= '{BORDER}'")
    retained.admin.execute(f"INSERT INTO refold_builds.{table} (day, action, events) VALUES ('{FIRST}', 'view', 5)")
    assert retained.wrong().keys() == {"by_day"}
    kinds = {one.kind for one in retained.reconcile("slice").findings}
    assert kinds == {"drifted", "orphan"}
    retained.look()
    assert retained.wrong() == {}


def test_damage_goes_with_its_days(retained: Retained) -> None:
    table = retained.build("by_day").table_name
    retained.admin.execute(f"UPDATE refold_builds.{table} SET events = 777 WHERE day < '{BORDER}'")
    retained.admin.execute(f"INSERT INTO refold_builds.{table} (day, action, events) VALUES ('1999-01-01', 'x', 5)")
    retained.retain("by_day", BORDER)
    retained.look()
    assert retained.wrong() == {}


def test_rows_without_a_day_stay(retained: Retained) -> None:
    table = retained.build("users").table_name
    retained.admin.execute(f"INSERT INTO refold_builds.{table} (day, events) VALUES (NULL, 5), ('-infinity', 6)")
    retained.retain("users", BORDER)
    left = retained.admin.execute(f"SELECT events FROM refold_builds.{table} WHERE day IS NULL OR day < '{BORDER}'")
    assert sorted(left.fetchall()) == [(5,), (6,)]


def test_a_rebuild_keeps_as_many_days_and_forever_brings_the_others_back(retained: Retained) -> None:
    retained.retain_all(BORDER)
    rebuild(retained.worker, PROJECT, ["by_day", "users", "usual", "levels"], lambda progress: None)
    retained.look()
    assert retained.days("by_day")[0] >= BORDER
    assert retained.wrong() == {}
    assert retentions.forget(retained.worker, "by_day")
    assert retained.days("by_day")[0] >= BORDER
    rebuild(retained.worker, PROJECT, ["by_day"], lambda progress: None)
    assert retained.build("by_day").retained_from is None
    assert retained.days("by_day")[0] < BORDER
    retained.look()
    assert retained.wrong() == {}


def test_what_would_go(retained: Retained) -> None:
    days = [day for day in retained.days("users") if day < BORDER]
    found = leaving(retained.worker, retained.compiler, "users", Wish(keep_from=BORDER))
    assert (found.slices, found.rows, found.first_day, found.last_day) == (
        len(days),
        len(days),
        str(days[0]),
        str(days[-1]),
    )
    assert found.kept_from == str(BORDER)
    assert retained.retain("users", BORDER) == len(days)
    assert leaving(retained.worker, retained.compiler, "users", Wish(keep_from=BORDER)).rows == 0


def test_refusals(retained: Retained) -> None:
    def refused(name: str, wish: Wish) -> InputError:
        with pytest.raises(InputError) as caught:
            leaving(retained.worker, retained.compiler, name, wish)
        return caught.value

    days = Wish(keep="400 days")
    assert "has a row for each event, and these rows stay; months reads them again" in str(refused("clicks", days))
    assert "the key of by_user has no day" in str(refused("by_user", days))
    assert "lies ahead" in str(refused("by_day", Wish(keep_from=date(2999, 1, 1))))
    retained.retain("by_day", BORDER)
    earlier = refused("by_day", Wish(keep_from=FIRST))
    assert f"keeps its rows from {BORDER} on" in str(earlier)
    assert "refold retain by_day --forever" in str(earlier.remedy) and "refold rebuild by_day" in str(earlier.remedy)


def test_the_database_refuses_to_keep_earlier_days_again(retained: Retained) -> None:
    retained.retain("by_day", BORDER)
    build = retained.build("by_day")
    assert build.retained_from is not None
    for value in (None, build.retained_from - 1):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="would keep earlier ones again"):
            retained.worker.execute(
                "UPDATE refold.builds SET retained_from = %s WHERE build_id = %s", (value, build.build_id)
            )


def test_sql_from_before_does_not_run_after(retained: Retained) -> None:
    compiled = retained.compiler.of(retained.worker, retained.build("by_day"))
    retained.late(FIRST)
    retained.retain("by_day", BORDER)
    assert apply_next_page(retained.worker, compiled, 10) is None
    with pytest.raises(BuildError, match="run the audit again"):
        audit(retained.worker, compiled)
    retained.drain()
    retained.look()
    assert retained.wrong() == {}


def test_checksums_without_rows_stop_nothing(retained: Retained) -> None:
    retained.retain("by_day", FIRST + timedelta(days=5))
    build = retained.build("by_day")
    number = (FIRST - date(1970, 1, 1)).days
    retained.admin.execute(
        "INSERT INTO refold.checksums (build_id, relation, slice, rows, hash)"
        " SELECT %s, 0, slice, 9, 9 FROM unnest(%s::integer[]) AS slice",
        (build.build_id, [number, number + 1]),
    )
    retained.retain("by_day", BORDER, rows=1)
    retained.look()
    assert retained.wrong() == {}
