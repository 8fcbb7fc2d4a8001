"""Why a row has its numbers: the events behind it, and the row counted again from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold import append
from refold.errors import BuildError, Costly, InputError
from refold.inspect.lineage.cost import Bound
from refold.inspect.lineage.why import Answer, Behind, why
from refold.model.upkeep.names import members_table
from refold.postgres.connect import connect
from refold.store.builds.compiled import Compiler
from refold.store.schema.migrate import migrate
from tests.support.scratch import Scratch

Explain = Callable[..., Answer]

DAILY = """
SELECT (ts AT TIME ZONE 'UTC')::date AS day, action, count(*) AS events, count(DISTINCT user_id) AS users
FROM events GROUP BY day, action
"""
FIRST = "SELECT user_id, min(ts) AS first_at, max((metadata->>'n')::integer) AS most FROM events GROUP BY user_id"
FUNNEL = """
SELECT user_id, window_funnel(interval '1 hour', ts, action = 'view', action = 'buy') AS level,
       window_funnel_times(interval '1 hour', ts, action = 'view', action = 'buy') AS reached_at
FROM events GROUP BY user_id
"""
PATHS = """
SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path FROM events WHERE action <> 'noise' GROUP BY user_id
"""
BUYS = "SELECT event_id, user_id, ts, (metadata->>'n')::integer AS n FROM events WHERE action = 'buy'"
BY_USER = "SELECT user_id, sum(n) AS total, count(*) AS buys FROM buys GROUP BY user_id"
WORDS = '''
from pydantic import BaseModel
from refold import Event, transform

class Word(BaseModel):
    user_id: str | None
    word: str
    more: dict

@transform()
def words(event: Event) -> list[Word]:
    """The words of an event."""
    return [Word(user_id=event.user_id, word=w, more={"w": w}) for w in event.metadata.get("words", "").split()]
'''


@pytest.fixture
def explain(scratch: Scratch) -> Iterator[Explain]:
    """Asks as an inspector."""
    with connect(scratch.url, "refold_inspector", autocommit=True) as conn:

        def ask(metric: str, shown: int = 20, bound: Bound | None = None, **key: str | None) -> Answer:
            compiler = Compiler(scratch.folder)
            return why(conn, compiler, metric, key, shown=shown, bound=bound or Bound())

        yield ask


def fill(scratch: Scratch, *events: dict[str, Any]) -> None:
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": f"e{at}", "ts": f"2026-03-02T08:{at:02}:00Z", **one} for at, one in enumerate(events)])
    scratch.drain()


def tamper(scratch: Scratch, projection: str, change: str, suffix: str = "") -> None:
    table = scratch.build(projection).table_name + suffix
    with psycopg.connect(scratch.url) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(change.replace("TABLE", f'refold_builds."{table}"').encode())


def did(answer: Answer) -> list[tuple[str | None, ...]]:
    def told(one: Behind) -> list[str]:
        return [f"{d.how} {d.column}" + (f" {d.step}" if d.step else "") for d in one.did if d.how != "gives"]

    return [(one.event_id, *told(one)) for one in answer.behind]


def test_the_first_event_of_each_user_adds_it(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, *({"action": "buy", "user_id": user} for user in ("a", "b", "a", None, "b", "c")), {"action": "view"})
    answer = explain("daily", day="2026-03-02", action="buy")
    assert answer.same and answer.events == 6 and answer.stream == "events"
    assert answer.rows[0].shown == {"day": "2026-03-02", "action": "buy", "events": 6, "users": 3}
    assert did(answer) == [("e0", "adds users"), ("e1", "adds users"), ("e2",), ("e3",), ("e4",), ("e5", "adds users")]
    assert [(one.column, one.events) for one in answer.told] == [("users", 3)]


@pytest.mark.parametrize("shown", [0, 1, 3])
def test_the_limit_bounds_what_is_shown_and_not_what_is_counted(scratch: Scratch, explain: Explain, shown: int) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, *({"action": "buy", "user_id": f"u{at}"} for at in range(5)))
    answer = explain("daily", shown, day="2026-03-02", action="buy")
    assert (answer.events, len(answer.behind), answer.told[0].events) == (5, shown, 5)


def test_an_extremum_is_attained_by_one_event_whatever_the_limit(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(first=FIRST)
    numbers = (3, 9, 9, None, 1)
    fill(scratch, *({"action": "a", "user_id": "u", "metadata": {} if n is None else {"n": n}} for n in numbers))
    answer = explain("first", 1, user_id="u")
    assert answer.same
    assert did(answer) == [("e0", "attains first_at"), ("e1", "attains most")]


def test_steps_of_a_funnel(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(funnel=FUNNEL)
    fill(scratch, *({"action": action, "user_id": "u"} for action in ("buy", "view", "view", "noise", "buy", "buy")))
    answer = explain("funnel", user_id="u")
    assert answer.same and answer.upkeep == "funnel" and answer.rows[0].shown["level"] == 2  # type: ignore[index]
    reached = [one for one in did(answer) if len(one) > 1]
    assert reached == [("e1", "reaches level 1"), ("e4", "reaches level 2")]


def test_a_recomputed_row_is_made_of_the_events_that_its_query_reads(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(paths=PATHS)
    fill(scratch, *({"action": action, "user_id": "u"} for action in ("view", "noise", "buy")))
    answer = explain("paths", user_id="u")
    assert answer.same and answer.upkeep == "recompute" and [one.event_id for one in answer.behind] == ["e0", "e2"]


def test_null_is_a_key(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(first=FIRST, paths=PATHS, funnel=FUNNEL)
    fill(scratch, {"action": "view"}, {"action": "view", "user_id": ""}, {"action": "buy", "user_id": "u"})
    for metric in ("first", "paths", "funnel"):
        answer = explain(metric, user_id=None)
        assert answer.same and answer.rows and [one.event_id for one in answer.behind] == ["e0"], metric


@pytest.mark.parametrize("another", ["", "; CREATE VIEW metrics.first AS SELECT 1 AS one"])
def test_a_view_that_is_another_is_named(scratch: Scratch, explain: Explain, another: str) -> None:
    scratch.deploy(first=FIRST)
    fill(scratch, {"action": "a", "user_id": "u"})
    with psycopg.connect(scratch.url) as conn:
        conn.execute(f"DROP VIEW metrics.first{another}".encode())
    with pytest.raises(BuildError, match="the view of first is missing, or another stands in its place"):
        explain("first", user_id="u")


@pytest.mark.parametrize("kind", ["numeric", "float8"])
def test_keys_with_the_same_hash_are_told_apart(scratch: Scratch, explain: Explain, kind: str) -> None:
    """Postgres hashes NULL like a float's 0 and like the numeric NaN."""
    scratch.deploy(per=f"SELECT (metadata->>'n')::{kind} AS n, count(*) AS events FROM events GROUP BY 1")
    fill(scratch, *({"action": "a", "metadata": {"n": n}} for n in ("0", "NaN", None, "0", "1.00")))
    for key, events in (("0", ["e0", "e3"]), ("NaN", ["e1"]), (None, ["e2"]), ("1", ["e4"])):
        answer = explain("per", n=key)
        assert answer.same and (answer.events, [one.event_id for one in answer.behind]) == (len(events), events), key
    tamper(scratch, "per", "UPDATE TABLE SET events = 7 WHERE n IS NULL")
    assert not explain("per", n=None).same
    assert explain("per", n="0").same and explain("per", n="NaN").same


@pytest.mark.parametrize("name", ["s", "c", "k", "e", "t", "d"])
def test_names_of_columns_are_not_taken_for_rows(scratch: Scratch, explain: Explain, name: str) -> None:
    scratch.deploy(per=f"SELECT user_id, count(*) AS {name} FROM events GROUP BY 1")
    fill(scratch, {"action": "a", "user_id": "u"})
    answer = explain("per", user_id="u")
    assert answer.same and answer.rows[0].shown == {"user_id": "u", name: 1}


def test_a_chain_is_explained_one_level_at_a_time(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(buys=BUYS, by_user=BY_USER)
    fill(scratch, *({"action": "buy", "user_id": "u", "metadata": {"n": n}} for n in (1, 2)), {"action": "view"})
    answer = explain("by_user", user_id="u")
    assert answer.same and (answer.stream, answer.events) == ("buys", 2)
    assert [(one.row_id, one.event_id, one.action) for one in answer.behind] == [
        ("e0", "e0", "buy"),
        ("e1", "e1", "buy"),
    ]
    of_row = explain("buys", event_id=answer.behind[1].row_id)
    assert of_row.same and of_row.stream == "events" and of_row.rows[0].shown["n"] == 2  # type: ignore[index]
    with pytest.raises(InputError, match="no row with event_id 'e2'"):
        explain("buys", event_id="e2")


def test_a_transform_is_made_again_by_its_function(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(words=WORDS, counts="SELECT word, count(*) AS times FROM words GROUP BY word")
    fill(scratch, {"action": "say", "user_id": "u", "metadata": {"words": "yes no\\t yes"}})
    answer = explain("words", event_id="e0#1")
    assert answer.same and answer.events == 1 and answer.behind[0].event_id == "e0"
    assert answer.rows[0].shown["word"] == "no\\t"  # type: ignore[index]
    counted = explain("counts", word="yes")
    assert counted.same and [(one.row_id, one.event_id) for one in counted.behind] == [("e0#0", "e0"), ("e0#2", "e0")]
    tamper(scratch, "words", "UPDATE TABLE SET more = '{}' WHERE event_id = 'e0#1'")
    assert not explain("words", event_id="e0#1").same
    # The rows of a chain are counted from the stream, whatever the stream is worth.
    assert explain("counts", word="yes").same
    none = explain("words", event_id="e0#3")
    assert none.same and none.rows == () and none.events == 1


def test_dead_letters_do_not_count(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(
        total="SELECT user_id, sum((metadata->>'n')::integer) AS total, count(*) AS n FROM events GROUP BY 1"
    )
    fill(scratch, *({"action": "a", "user_id": "u", "metadata": {"n": n}} for n in (1, "many", 2)))
    answer = explain("total", user_id="u")
    assert answer.same and (answer.events, answer.dead_letters) == (2, 1)
    assert [one.event_id for one in answer.behind] == ["e0", "e2"]


def test_what_the_cursor_has_not_applied_does_not_count(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, {"action": "buy", "user_id": "a"})
    scratch.append(3, user_id="b", action="buy", ts="2026-03-02T09:00:00Z")
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": "late", "action": "buy", "user_id": "c", "ts": "2026-03-02T09:00:00Z"}])
    answer = explain("daily", day="2026-03-02", action="buy")
    assert answer.same and answer.events == 1
    scratch.drain()
    assert explain("daily", day="2026-03-02", action="buy").events == 4


@pytest.mark.parametrize(
    ("metric", "change", "suffix", "key"),
    [
        ("daily", "UPDATE TABLE SET events = events + 1", "", {"day": "2026-03-02", "action": "buy"}),
        ("daily", "DELETE FROM TABLE", "", {"day": "2026-03-02", "action": "buy"}),
        ("daily", "DELETE FROM TABLE WHERE member__ = 'a'", "__m1", {"day": "2026-03-02", "action": "buy"}),
        ("funnel", "UPDATE TABLE SET level = 0", "", {"user_id": "a"}),
        ("paths", "UPDATE TABLE SET path = '{x}'", "", {"user_id": "a"}),
        ("buys", "UPDATE TABLE SET n = 8", "", {"event_id": "e0"}),
    ],
)
def test_a_changed_row_is_not_the_same(
    scratch: Scratch, explain: Explain, metric: str, change: str, suffix: str, key: dict[str, str]
) -> None:
    scratch.deploy(daily=DAILY, funnel=FUNNEL, paths=PATHS, buys=BUYS)
    fill(scratch, {"action": "buy", "user_id": "a", "metadata": {"n": 7}}, {"action": "view", "user_id": "a"})
    assert explain(metric, **key).same
    tamper(scratch, metric, change, suffix)
    answer = explain(metric, **key)
    assert not answer.same and answer.events >= 1 and answer.differ


def test_a_row_without_events_is_not_the_same(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(first=FIRST)
    fill(scratch, {"action": "a", "user_id": "a"})
    tamper(scratch, "first", "INSERT INTO TABLE (user_id, first_at) VALUES ('ghost', now())")
    answer = explain("first", user_id="ghost")
    assert not answer.same and answer.events == 0 and answer.rows[0].counted is None


def test_having_hides_a_row(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(few="SELECT user_id, count(*) AS n FROM events GROUP BY user_id HAVING count(*) > 1")
    fill(scratch, {"action": "a", "user_id": "u"})
    answer = explain("few", user_id="u")
    assert answer.hidden and answer.same and answer.events == 1 and not answer.rows


def test_names_in_quotes_and_values_with_percent_signs(scratch: Scratch, explain: Explain) -> None:
    query = (
        'SELECT action AS "Was, genau", metadata->>\'a%%s\' AS "order", count(*) AS "N",'
        " count(DISTINCT user_id) AS u FROM events WHERE action LIKE '%%' GROUP BY 1, 2"
    )
    scratch.deploy(odd=query)
    fill(scratch, {"action": "100%", "metadata": {"a%%s": "x'y\"z"}, "user_id": "u"})
    answer = explain("odd", **{"Was, genau": "100%", "order": "x'y\"z"})
    assert answer.same and answer.rows[0].shown["N"] == 1  # type: ignore[index]


def test_rows_of_a_declared_key_are_chosen_by_further_columns(scratch: Scratch, explain: Explain) -> None:
    sessions = """-- key: user_id
    SELECT user_id, row_number() OVER (PARTITION BY user_id ORDER BY ts, event_id) AS visit, ts AS at FROM events
    """
    scratch.deploy(visits=sessions)
    fill(scratch, *({"action": "a", "user_id": "u"} for _ in range(3)))
    assert len(explain("visits", user_id="u").rows) == 3
    answer = explain("visits", user_id="u", visit="2")
    assert answer.same and [row.shown["visit"] for row in answer.rows] == [2]  # type: ignore[index]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"dy": "2026-03-02", "action": "a"}, "has no column dy. Did you mean day"),
        ({"day": "2026-13-02", "action": "a"}, "day=2026-13-02: date/time field value out of range"),
        ({"day": "2026-03-02"}, "the key of daily is day, action, and action is missing"),
        ({"day": "2026-03-02", "action": "nothing"}, "daily has no row with"),
    ],
)
def test_mistakes(scratch: Scratch, explain: Explain, key: dict[str, str], message: str) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, {"action": "buy"})
    with pytest.raises(InputError) as error:
        explain("daily", **key)
    assert message in str(error.value)
    if "missing" in message:
        assert "action is one of: buy" in (error.value.remedy or "")


def test_a_metric_that_is_not_live(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(daily=DAILY)
    with pytest.raises(BuildError, match="Did you mean daily"):
        explain("daly", day="2026-03-02")


def test_the_cost_is_asked_first(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(first=FIRST)
    fill(scratch, {"action": "a", "user_id": "u"})
    with psycopg.connect(scratch.url) as conn:
        append(conn, ({"id": f"m{at}", "action": "a", "ts": "2026-03-02T08:00:00Z"} for at in range(20_000)))
    bound = Bound(ask_s=0.005)
    with pytest.raises(Costly) as error:
        explain("first", bound=bound, user_id="u")
    assert 10_000 < error.value.events < 40_000 and error.value.seconds > 0.005
    assert explain("first", bound=Bound(ask_s=0.005, agreed=True), user_id="u").events == 1


def test_nothing_can_be_written_meanwhile(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, {"action": "buy"})
    with connect(scratch.url, "refold_worker", autocommit=True) as conn:
        from refold.inspect.lineage.snapshot import reading

        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), reading(conn, 60):
            conn.execute("DELETE FROM refold.cursors")
        with pytest.raises(BuildError, match="longer than 0 s"), reading(conn, 0.01):
            conn.execute("SELECT pg_sleep(5)")


def test_a_migration_lets_an_inspector_read_what_an_earlier_version_made(scratch: Scratch, explain: Explain) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, {"action": "buy"})
    table = scratch.build("daily").table_name
    with psycopg.connect(scratch.url) as conn:
        for relation in (f'refold_builds."{table}"', f'refold_builds."{members_table(table, 1)}"', "metrics.daily"):
            conn.execute(f"REVOKE ALL ON {relation} FROM refold_inspector".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        explain("daily", day="2026-03-02", action="buy")
    migrate(scratch.url)
    assert explain("daily", day="2026-03-02", action="buy").same
