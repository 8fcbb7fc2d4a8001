"""From files to metrics: whatever is in the files and wherever it is killed, what was promised is what happens."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from refold import append
from refold.engine.backfill import run as lane
from refold.inspect.backfill.effects import Effect
from tests.support.backfilling import LANE_POINTS, check, give, stage, write
from tests.support.live import SHOP, drain, make_live, wrong

Connection = psycopg.Connection[Any]

MORE = {
    "spread": "SELECT action, avg((metadata->>'amount')::numeric) AS mean, min(ts) AS first, max(ts) AS last,"
    " bool_or(user_id IS NULL) AS anonymous, count(*) AS events FROM events GROUP BY action HAVING count(*) > 2",
    "reached": "SELECT user_id, window_funnel(interval '2 hours', ts, action = 'view', action = 'purchase') AS level"
    " FROM events GROUP BY user_id",
    "large": "SELECT event_id, user_id, amount FROM purchases WHERE amount > 50",
    "largest": "SELECT user_id, max(amount) AS amount, count(*) AS n FROM large GROUP BY user_id",
    "gaps": "-- key: user_id\nSELECT user_id, ts, ts - lag(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS gap"
    " FROM events",
}
"""What the shop lacks: HAVING, avg, funnels, facts over facts, several rows of a key."""
KEYS = {
    "daily": ("day", "action"), "totals": ("user_id",), "paths": ("user_id",), "grades": ("grade",),
    "grade_paths": ("user_id",), "spread": ("action",), "reached": ("user_id",), "largest": ("user_id",),
    "gaps": ("user_id",), "purchases": ("event_id",), "graded": ("event_id",), "large": ("event_id",),
}  # fmt: skip

record = st.tuples(st.integers(0, 30), st.integers(0, 1)) | st.just(None)
"""Number and content of an event; None: a record that is none."""
files = st.lists(st.lists(record, max_size=25), min_size=1, max_size=3).filter(any)
kills = st.lists(st.tuples(st.sampled_from(LANE_POINTS), st.integers(1, 3)), max_size=3)
_examples = count()


def event(example: int, number: int, content: int) -> dict[str, Any]:
    return {
        "id": f"{example}-{number}",
        "user_id": None if number % 7 == 0 else f"u{number % 4}",
        "action": ("view", "cart", "purchase")[(number + content) % 3],
        "ts": 1_772_409_600_000 + (example * 31 + number) * 1_700_000 - (number % 5) * 90_000_000,
        "metadata": {"amount": (number * 37 + content) % 150},
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "projections"
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in MORE.items():
        (folder / f"{name}.sql").write_text(text)
    return folder


class Killed(BaseException):
    """Stands for the end of the process: the transaction is rolled back."""


def rows_of(conn: Connection, metric: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(f"SELECT * FROM metrics.{metric}".encode()).fetchall()


def difference(key: Sequence[str], before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """What changed in a metric, counted without refold."""

    def kept(rows: list[dict[str, Any]]) -> Counter[Any]:
        return Counter((tuple(row[name] for name in key), repr(sorted(row.items(), key=str))) for row in rows)

    gone, come = kept(before) - kept(after), kept(after) - kept(before)
    old, new = (Counter(found for found, _ in side.elements()) for side in (gone, come))
    sums: dict[str, Any] = {}
    for sign, rows in ((-1, before), (1, after)):
        for row in rows:
            for name, value in row.items():
                if name not in key and isinstance(value, int | Decimal) and not isinstance(value, bool):
                    sums[name] = sums.get(name, 0) + sign * value
    return {
        "added": sum((new - old).values()),
        "removed": sum((old - new).values()),
        "changed": sum((new & old).values()),
        "sums": {name: value for name, value in sums.items() if value},
    }


def promised(effect: Effect) -> dict[str, Any]:
    return {"added": effect.added, "removed": effect.removed, "changed": effect.changed, "sums": effect.sums}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_end_is_what_was_promised(
    database_url: str, admin: Connection, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_live(database_url, project)

    @given(known=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), max_size=15), records=files, deaths=kills)
    @settings(
        max_examples=max(settings().max_examples // 20, 4),
        # Without Phase.shrink: an example takes a second, and is short enough to read.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        report_multiple_bugs=False,
    )
    def holds(
        known: list[tuple[int, int]], records: list[list[tuple[int, int] | None]], deaths: list[tuple[str, int]]
    ) -> None:
        example = next(_examples)
        name = f"history_{example}"
        admin.execute("UPDATE refold.file_backfills SET state = 'aborted', ended_at = now() WHERE ended_at IS NULL")
        held: dict[str, dict[str, Any]] = {}
        for number, content in known:
            one = event(example, number, content)
            held.setdefault(one["id"], one)
        append(admin, held.values())
        drain(database_url, project)
        before = {metric: rows_of(admin, metric) for metric in KEYS}

        # The independent count.
        answers: Counter[str] = Counter()
        offered = [[None if one is None else event(example, *one) for one in part] for part in records]
        for offer in (offer for part in offered for offer in part):
            if offer is None:
                answers["invalid"] += 1
            elif offer["id"] not in held:
                held[offer["id"]] = offer
                answers["new"] += 1
            else:
                answers["same" if held[offer["id"]] == offer else "conflicts"] += 1

        paths = [
            write(tmp_path / f"{name}-{at}.jsonl", ["no JSON" if one is None else one for one in part])
            for at, part in enumerate(offered)
        ]
        staged = stage(database_url, name, *paths)
        found = check(database_url, staged, project)
        told = found.answers
        assert (told.new, told.duplicates + told.repeated, told.conflicts, told.invalid) == tuple(
            answers[kind] for kind in ("new", "same", "conflicts", "invalid")
        )

        left = list(deaths)

        def failpoint(point: str) -> None:
            if left and left[0][0] == point:
                left[0] = (point, left[0][1] - 1)
                if left[0][1] == 0:
                    left.pop(0)
                    raise Killed

        monkeypatch.setattr(lane, "failpoint", failpoint)
        done = staged
        for _ in range(len(deaths) + 1):
            try:
                done = give(database_url, staged, batch=5)
                break
            except Killed:
                continue
        assert (done.state, done.accepted, done.duplicates, done.conflicts, done.invalid) == (
            "done", answers["new"], answers["same"], answers["conflicts"], answers["invalid"],
        )  # fmt: skip
        kept = admin.execute(
            "SELECT event_id, user_id, action, (extract(epoch FROM ts) * 1000)::bigint, metadata FROM refold.events"
            " WHERE event_id LIKE %s",
            (f"{example}-%",),
        ).fetchall()
        assert sorted(kept) == sorted(
            (one["id"], one["user_id"], one["action"], one["ts"], one["metadata"]) for one in held.values()
        )
        drain(database_url, project)
        assert wrong(database_url, project) == {}
        for effect in found.effects:
            assert effect.told, effect
            if effect.metric in KEYS:
                really = difference(KEYS[effect.metric], before[effect.metric], rows_of(admin, effect.metric))
                assert promised(effect) == really, effect.metric

    holds()
