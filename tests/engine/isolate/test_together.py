"""Events that fail only together, and many that fail: a load, a rebuild and a heal go on as pages do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import pytest

from refold import append
from refold.engine.apply import load
from refold.engine.apply import step as catch_up
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import rebuild
from refold.engine.isolate.search import PORTION
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.release import drop
from refold.errors import BuildError
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import find as letters
from refold.store.incidents import find as incidents

from .prices import Prices

FILES = {
    "ratio": "-- key: user_id\n"
    "SELECT user_id, sum((metadata->>'a')::numeric) / sum((metadata->>'b')::numeric) AS ratio,\n"
    "       array_agg(event_id ORDER BY ts, event_id) AS ids\n"
    "FROM events WHERE metadata ? 'b' GROUP BY user_id",
    "huge": "SELECT user_id, sum((metadata->>'n')::numeric) AS total FROM events WHERE metadata ? 'n' GROUP BY user_id",
    "distinct_huge": "SELECT user_id, count(DISTINCT action) AS actions, sum((metadata->>'n')::numeric) AS total\n"
    "FROM events WHERE metadata ? 'n' GROUP BY user_id",
    "long_key": "SELECT metadata->>'key' AS key, array_agg(event_id ORDER BY ts, event_id) AS ids\n"
    "FROM events GROUP BY key",
    "long_funnel": "SELECT metadata->>'key' AS key, count(*) AS events,\n"
    "       window_funnel(NULL, ts, action = 'view', action = 'buy') AS level\n"
    "FROM events GROUP BY key",
    "paid": "SELECT event_id, (metadata->>'price')::numeric AS price FROM events WHERE metadata ? 'price'",
}
TOGETHER = [{"a": 1, "b": 1}, {"a": 1, "b": -1}]
TOO_LARGE = [{"n": "9e131071"}, {"n": "9e131071"}, {"n": "1"}]


def project(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}.sql").write_text(FILES[name])
    return folder


def tell(shop: Prices, metadata: Sequence[Mapping[str, object]], prefix: str = "e", user: str = "u") -> None:
    with psycopg.connect(shop.url) as conn:
        append(conn, [
            {"id": f"{prefix}{at}", "user_id": user, "action": "view", "ts": at, "metadata": one}
            for at, one in enumerate(metadata)
        ])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metadata"),
    [("ratio", TOGETHER), ("huge", TOO_LARGE), ("distinct_huge", TOO_LARGE)],
    ids=["a divisor of 0", "more than a numeric holds", "the same with members"],
)
def test_those_that_fail_only_together(
    shop: Prices, tmp_path: Path, name: str, metadata: Sequence[Mapping[str, object]]
) -> None:
    folder = project(tmp_path, name)
    shop.deploy(folder)
    shop.compiler = Compiler(folder)
    tell(shop, metadata)
    tell(shop, metadata[:1], "other", "somebody else")
    shop.apply(name)
    assert shop.waiting() == [(name, "e1")]
    shown = shop.admin.execute(f"SELECT * FROM metrics.{name} ORDER BY 1".encode()).fetchall()
    assert reconcile(shop.worker, folder).clean
    rebuild(shop.worker, folder, [name], lambda progress: None)
    assert shop.waiting() == [(name, "e1")]
    assert shop.admin.execute(f"SELECT * FROM metrics.{name} ORDER BY 1".encode()).fetchall() == shown
    assert reconcile(shop.worker, folder).clean
    shop.admin.execute(f"DELETE FROM refold_builds.{shop.build(name).table_name}".encode())
    reconcile(shop.worker, folder)
    assert shop.waiting() == [(name, "e1")]
    assert shop.admin.execute(f"SELECT * FROM metrics.{name} ORDER BY 1".encode()).fetchall() == shown


def test_a_load_goes_on_in_steps_behind_its_culprits(
    shop: Prices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path, "paid")
    tell(shop, [{"price": "free" if at % 10 == 3 else at} for at in range(100)])
    monkeypatch.setattr(load, "STEP", 30)
    shop.deploy(folder)
    assert shop.waiting() == sorted(("paid", f"e{at}") for at in range(3, 100, 10))
    assert shop.admin.execute("SELECT count(*) FROM metrics.paid").fetchone() == (90,)
    assert reconcile(shop.worker, folder).clean


def test_a_key_that_no_index_can_hold(shop: Prices, tmp_path: Path) -> None:
    folder = project(tmp_path, "long_key")
    tell(shop, [{"key": "a"}, {"key": "".join(chr(0x4E00 + number) for number in range(6000))}, {"key": "a"}])
    shop.deploy(folder)
    assert shop.waiting() == [("long_key", "e1")]
    assert shop.admin.execute("SELECT * FROM metrics.long_key").fetchall() == [("a", ["e0", "e2"])]
    assert reconcile(shop.worker, folder).clean


@pytest.mark.parametrize("name", ["long_key", "long_funnel"])
def test_a_key_that_no_index_can_hold_in_whichever_range(
    shop: Prices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The index comes with the last range; the key may have come with the first."""
    folder = project(tmp_path, name)
    keys = ["".join(chr(0x4E00 + first + number) for number in range(6000)) for first in range(8)]
    tell(shop, [{"key": key} for pair in zip(keys, "abcdefgh", strict=True) for key in pair])
    shop.admin.execute("ANALYZE refold.events")
    monkeypatch.setattr(catch_up, "BUCKET", 4)
    shop.deploy(folder)
    assert shop.waiting() == sorted((name, f"e{at}") for at in range(0, 16, 2))
    assert shop.admin.execute(f"SELECT count(*) FROM metrics.{name}".encode()).fetchone() == (8,)
    assert reconcile(shop.worker, folder).clean


def test_many_are_quarantined_in_portions(shop: Prices, tmp_path: Path) -> None:
    folder = project(tmp_path, "paid")
    shop.deploy(folder)
    tell(shop, [{"price": "free" if at % 2 else at} for at in range(2 * PORTION + 200)])
    compiled = Compiler(folder).of(shop.worker, shop.build("paid"))
    done = apply_next_page(shop.worker, compiled, 10_000)
    assert done is not None and done.full
    assert done.events <= 2 * PORTION
    assert 0 < len(shop.letters()) <= PORTION
    while (done := apply_next_page(shop.worker, compiled, 10_000)) is not None and done.full:
        pass
    build = shop.build("paid")
    assert build.dead_letters == len(shop.letters()) == PORTION + 100
    assert shop.admin.execute(
        "SELECT waiting_letters FROM refold.builds WHERE build_id = %s", (build.build_id,)
    ).fetchone() == (PORTION + 100,)
    assert shop.admin.execute("SELECT count(*) FROM metrics.paid").fetchone() == (PORTION + 100,)
    [incident] = incidents(shop.worker, "i.kind = 'dead_letters'")
    assert incident.evidence["waiting"] == PORTION + 100
    assert "too_many" in incident.evidence
    assert reconcile(shop.worker, folder).clean


def test_what_was_dropped_does_not_count(shop: Prices, tmp_path: Path) -> None:
    folder = project(tmp_path, "paid")
    shop.admin.execute("UPDATE refold.settings SET max_dead_letters = 5, too_many_dead_letters = 'stop'")
    shop.deploy(folder)
    compiled = Compiler(folder).of(shop.worker, shop.build("paid"))
    tell(shop, [{"price": "free"}] * 5)
    apply_next_page(shop.worker, compiled, 100)
    for letter in letters(shop.worker):
        assert drop(shop.worker, letter, "no price")
    tell(shop, [{"price": "free"}, {"price": 1}], "later")
    apply_next_page(shop.worker, compiled, 100)
    assert shop.waiting() == [("paid", "later0")]
    assert shop.admin.execute("SELECT count(*) FROM metrics.paid").fetchone() == (1,)
    tell(shop, [{"price": "free"}] * 5, "again")
    with pytest.raises(BuildError, match="too many events fail"):
        apply_next_page(shop.worker, compiled, 100)


def test_a_live_build_goes_on_beyond_the_bound(shop: Prices, tmp_path: Path) -> None:
    """Whoever can append could stop a metric otherwise; a build that nobody reads stops."""
    folder = project(tmp_path, "paid")
    shop.admin.execute("UPDATE refold.settings SET max_dead_letters = 5")
    shop.deploy(folder)
    compiled = Compiler(folder).of(shop.worker, shop.build("paid"))
    tell(shop, [{"price": "free"}] * 40 + [{"price": 1}])
    apply_next_page(shop.worker, compiled, 100)
    assert len(shop.waiting()) == 40
    assert shop.admin.execute("SELECT count(*) FROM metrics.paid").fetchone() == (1,)
    # What the live one leaves out is no news to its successor; more is.
    rebuild(shop.worker, folder, ["paid"], lambda progress: None)
    assert len(shop.waiting()) == 40
    (folder / "strict.sql").write_text(FILES["paid"])
    with pytest.raises(BuildError, match="too many events fail"):
        shop.deploy(folder)
