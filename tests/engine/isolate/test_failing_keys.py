"""Events that make a first load by key fail are found key by key: many of them cost little more than one."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from refold import append
from refold.engine.reconcile.reconcile import reconcile

from .prices import Prices

FILES = {
    "recomputed": "-- key: user_id\n"
    "SELECT user_id, sum(public.counted(metadata->>'price')) / count(DISTINCT action) AS price\n"
    "FROM events GROUP BY user_id",
    "funnel": "SELECT user_id, sum(public.counted(metadata->>'price')) AS price,\n"
    "       window_funnel(NULL, ts, action = 'view', action = 'buy') AS level\n"
    "FROM events GROUP BY user_id",
}
COUNTED = """
CREATE SEQUENCE public.calls;
GRANT ALL ON SEQUENCE public.calls TO PUBLIC;
CREATE FUNCTION public.counted(text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM nextval('public.calls'); RETURN $1::numeric; END $$
"""
USERS, EACH = 300, 6


@pytest.mark.slow
@pytest.mark.parametrize("bad", [1, 40])
@pytest.mark.parametrize("name", FILES)
def test_each_event_is_evaluated_a_few_times(shop: Prices, tmp_path: Path, name: str, bad: int) -> None:
    shop.admin.execute(COUNTED)
    (tmp_path / f"{name}.sql").write_text(FILES[name])
    every = USERS // bad
    failing = {every * number for number in range(bad)}
    events = [
        {
            "id": f"e{user}-{at}", "user_id": f"u{user}", "action": "view", "ts": 1000 * at + user,
            "metadata": {"price": "free" if at == 3 and user in failing else at},
        }
        for at in range(EACH) for user in range(USERS)
    ]  # fmt: skip
    with psycopg.connect(shop.url) as conn:
        append(conn, events)
    shop.deploy(tmp_path)
    assert shop.waiting() == sorted((name, f"e{user}-3") for user in failing)
    calls = shop.admin.execute("SELECT last_value FROM public.calls").fetchone()
    assert calls is not None
    # Some at the deploy, one load that fails, the halves (log2(bad) + 2), and one that goes through.
    assert calls[0] < len(events) * 12
    assert reconcile(shop.worker, tmp_path).clean
