"""Releasing: after the cause is mended each event is applied once, to the build and to all that reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refold.engine.apply.load import load_step
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.reconcile.release import Outcome, drop, release
from refold.errors import BuildError
from refold.model.projection.definition import load_directory
from refold.service.worker.loop import Worker
from refold.store.builds.build import by_id, find, lock
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import DeadLetter
from refold.store.builds.first_load import start_over
from refold.store.incidents import find as incidents
from tests.support.at_once import at_once
from tests.support.law import broken, worker_connection

from .prices import FAILING, FOLDER, Prices


def letter_of(prices: Prices, projection: str) -> DeadLetter:
    [letter] = [one for one in prices.letters("d.state = 'waiting'") if one.projection == projection]
    return letter


def release_all(prices: Prices) -> list[str]:
    waiting = prices.letters("d.state = 'waiting' AND b.state IN ('building', 'live')")
    return [release(prices.worker, prices.compiler, letter).answer for letter in waiting]


def test_everything_is_right_afterwards(prices: Prices) -> None:
    prices.sell(40, free=(3, 17, 18))
    prices.drain()
    prices.sell(10, "later")
    prices.drain()
    prices.mend()
    assert release_all(prices) == ["released"] * 3 * len(FAILING)
    assert prices.wrong() == {}
    assert prices.waiting() == []
    assert prices.reconcile().clean
    assert {build.dead_letters for build in map(prices.build, FAILING)} == {0}
    assert {(one.kind, one.resolved_at is None) for one in incidents(prices.worker)} == {("dead_letters", False)}


def test_what_fails_again_waits_on(prices: Prices) -> None:
    prices.sell(10, free=(3,))
    prices.drain()
    outcome = release(prices.worker, prices.compiler, letter_of(prices, "sums"))
    assert (outcome.answer, outcome.error) == ("failed", 'invalid input syntax for type numeric: "free"')
    letter = letter_of(prices, "sums")
    assert (letter.attempts, letter.ended_at) == (2, None)
    assert prices.reconcile().clean


def test_a_reader_that_has_yet_to_pass_reads_it_by_itself(prices: Prices) -> None:
    prices.sell(10, free=(3,))
    prices.apply("paid", "graded", "history")
    prices.mend()
    for name in ("paid", "graded"):
        assert release(prices.worker, prices.compiler, letter_of(prices, name)).answer == "released"
    # by_user and grades have read nothing so far; history has.
    prices.drain()
    assert prices.wrong() == {}


def test_a_reader_in_the_middle_of_a_run(prices: Prices) -> None:
    """Some of the stream is behind its cursor, some before it."""
    prices.sell(20, free=(3, 15))
    prices.apply("paid")
    compiled = prices.compiler.of(prices.worker, prices.build("by_user"))
    apply_next_page(prices.worker, compiled, 8)
    assert prices.build("by_user").cursor.target is not None
    prices.mend()
    for letter in prices.letters("b.projection = 'paid'"):
        assert release(prices.worker, prices.compiler, letter).answer == "released"
    prices.drain()
    release_all(prices)
    assert prices.wrong() == {}


def test_two_who_release_at_once_apply_it_once(prices: Prices) -> None:
    prices.sell(10, free=(3,))
    prices.drain()
    prices.mend()
    letter = letter_of(prices, "sums")
    answers: list[Outcome] = []

    def try_it() -> None:
        with worker_connection(prices.url) as conn:
            answers.append(release(conn, prices.compiler, letter))

    at_once(try_it, try_it)
    assert sorted(one.answer for one in answers) == ["ended", "released"]
    release_all(prices)
    assert prices.wrong() == {}


def test_a_release_that_is_lost_changes_nothing(prices: Prices) -> None:
    prices.sell(10, free=(3,))
    prices.drain()
    prices.mend()
    letter = letter_of(prices, "paid")
    with pytest.raises(RuntimeError), prices.worker.transaction():
        release(prices.worker, prices.compiler, letter)
        raise RuntimeError("the connection is lost before the commit")
    assert letter_of(prices, "paid") == letter
    release_all(prices)
    assert prices.wrong() == {}


def test_a_dropped_event_stays_out_until_a_rebuild(prices: Prices) -> None:
    prices.sell(10, free=(3,))
    prices.drain()
    letter = letter_of(prices, "sums")
    assert drop(prices.worker, letter, "a test order")
    assert not drop(prices.worker, letter, "once more")
    [dropped] = prices.letters("d.state = 'dropped'")
    assert (dropped.reason, dropped.ended_by) == ("a test order", "postgres")
    prices.sell(10, "later")
    prices.drain()
    assert prices.reconcile().clean
    assert release(prices.worker, prices.compiler, letter).answer == "ended"
    prices.mend()
    rebuild(prices.worker, FOLDER, ["sums"], lambda progress: None)
    release_all(prices)
    assert prices.wrong() == {}
    assert prices.build("sums").dead_letters == 0


def test_an_event_that_reaches_a_reader_which_fails_becomes_its_letter(prices: Prices) -> None:
    """The release of one is not undone because another cannot take it."""
    prices.sell(10, free=(3,))
    prices.drain()
    prices.mend()
    prices.admin.execute("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                         " RAISE EXCEPTION 'not this one'; END $$")  # fmt: skip
    table = prices.build("by_user").table_name
    prices.admin.execute(
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON refold_builds.{table}"
        " FOR EACH ROW EXECUTE FUNCTION public.refuse()".encode()
    )
    assert release(prices.worker, prices.compiler, letter_of(prices, "paid")).answer == "released"
    letter = letter_of(prices, "by_user")
    assert (letter.event_id, letter.error) == ("e3", "not this one")
    assert prices.reconcile().clean
    prices.admin.execute(f"DROP TRIGGER refuse ON refold_builds.{table}".encode())
    release_all(prices)
    assert prices.wrong() == {}


def test_a_stream_that_is_built_anew_takes_its_readers_with_it(prices: Prices) -> None:
    """A reader that has passed the event would never get the row that its new stream has."""
    prices.sell(10, free=(3,))
    prices.drain()
    prices.mend()
    with pytest.raises(BuildError, match="by_user has already consumed e3") as refused:
        rebuild(prices.worker, FOLDER, ["paid"], lambda progress: None)
    assert refused.value.remedy is not None and "--cascade" in refused.value.remedy
    assert prices.reconcile().drift == 0
    rebuild(prices.worker, FOLDER, ["paid"], lambda progress: None, cascade=True)
    release_all(prices)
    assert prices.wrong() == {}


def test_a_reader_whose_load_is_half_done_has_passed_the_event_too(shop: Prices, tmp_path: Path) -> None:
    """A load by ranges of the key reads the whole stream in each step; the rest would read another one."""
    for name in ("graded.py", "history.sql"):
        shutil.copy(FOLDER / name, tmp_path)
    definitions = load_directory(tmp_path)
    deploy(shop.worker, tmp_path, {"graded": definitions["graded"]}, lambda progress: None)
    shop.sell(10, free=(3,))
    shop.apply("graded")
    with shop.worker.transaction():
        deployment = new_deployment(shop.worker, "deploy", promote=True)
        [reader] = make_builds(shop.worker, [definitions["history"]], deployment, resumed={})
    compiler = Compiler(tmp_path)
    loaded = load_step(shop.worker, compiler.of(shop.worker, reader), bucket=1)
    assert loaded is not None and not loaded.finished
    shop.mend()
    rebuild(shop.worker, tmp_path, ["graded"], lambda progress: None)
    # Nobody sees it yet: it begins again, on the stream that has the event.
    [reader] = find(shop.worker, "b.projection = 'history'")
    assert (reader.upstream_id, reader.load_step) == (shop.build("graded").build_id, 0)
    Worker(shop.url, tmp_path).run(drain=True)
    ((grades,),) = shop.worker.execute("SELECT sum(cardinality(grades)) FROM metrics.history").fetchall()
    assert grades == 10


@pytest.mark.parametrize("name", FAILING)
def test_a_first_load_that_is_started_over_leaves_out_what_it_left_out(prices: Prices, name: str) -> None:
    """Else an event that is fine by now would be there, and wait, and could not be released any more."""
    prices.sell(30, free=(3, 20))
    prices.drain()
    with prices.worker.transaction():
        deployment = new_deployment(prices.worker, "rebuild", promote=False)
        (build,) = make_builds(prices.worker, [load_directory(FOLDER)[name]], deployment, resumed={})
    compiled = prices.compiler.of(prices.worker, build)
    while not by_id(prices.worker, build.build_id).dead_letters:
        load_step(prices.worker, compiled, step=12, bucket=12)
    prices.mend()
    with prices.worker.transaction():
        assert lock(prices.worker, build.build_id, wait=True) is not None
        start_over(prices.worker, by_id(prices.worker, build.build_id))
    while load_step(prices.worker, compiled, step=12, bucket=12):
        pass
    assert broken(prices.worker, prices.compiler, build.build_id) == []
    for letter in prices.letters(f"d.build_id = {build.build_id} AND d.state = 'waiting'"):
        assert release(prices.worker, prices.compiler, letter).answer == "released"
    assert broken(prices.worker, prices.compiler, build.build_id) == []
