"""The cursor's parts one by one; what they do together is in test_cursor_model.py."""

from itertools import combinations, product

import pytest

from refold.model.stream.cursor import EMPTY, LAST_ORDINAL, Cursor, Key, Read, Snapshot, advance, next_read, passed_over


def snap(text: str) -> Snapshot:
    return Snapshot.parse(text)


def every_snapshot(limit: int) -> list[Snapshot]:
    """All snapshots with xmax <= limit and xmin as low as Postgres may report it, or tight."""
    found = set()
    for xmax in range(1, limit + 1):
        for size in range(xmax):
            for xip in combinations(range(1, xmax), size):
                found.add(Snapshot(xip[0] if xip else xmax, xmax, xip))
                found.add(Snapshot(1, xmax, xip))
    return sorted(found, key=str)


@pytest.mark.parametrize("text", ["1:1:", "5:5:", "5:8:", "5:8:5,7", "1005:2000:1005,1006,1999"])
def test_text_survives_the_round_trip(text: str) -> None:
    assert str(snap(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1:1",
        "0:0:",
        "5:4:",
        "5:8:4",
        "5:8:8",
        "5:8:7,6",
        "5:8:6,6",
        "5:8:6,",
        "-5:8:",
        "5:8:\n",
        "1_0:20:",
    ],
)
def test_what_is_not_a_snapshot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a snapshot"):
        snap(text)


def test_visible_is_what_had_finished() -> None:
    snapshot = snap("5:9:5,7")
    assert [x for x in range(1, 12) if snapshot.visible(x)] == [1, 2, 3, 4, 6, 8]
    assert not any(EMPTY.visible(x) for x in range(1, 12))


def test_includes_is_the_superset() -> None:
    for a, b in product(every_snapshot(5), repeat=2):
        seen_a = {x for x in range(1, 6) if a.visible(x)}
        seen_b = {x for x in range(1, 6) if b.visible(x)}
        # '5:6:5' and '5:5:' are one set; the rule of the guard in the database ranks them by xmax.
        assert b.includes(a) == (seen_a <= seen_b and a.xmax <= b.xmax)


def test_capped_drops_exactly_what_is_not_below_ones_own_txid() -> None:
    for snapshot, own in product(every_snapshot(5), range(1, 8)):
        capped = snapshot.capped(own)
        assert [x for x in range(1, 9) if capped.visible(x)] == [
            x for x in range(1, 9) if snapshot.visible(x) and x < own
        ]
        assert snapshot.includes(capped)
        assert capped.xmax <= own


def test_applied_is_done_or_within_the_run_up_to_progress() -> None:
    cursor = Cursor(snap("5:6:5"), snap("7:9:7"), Key(6, 40, 1))
    assert cursor.applied(Key(4, 99, 0))
    assert cursor.applied(Key(5, 99, 0))
    assert cursor.applied(Key(6, 40, 1))
    assert not cursor.applied(Key(6, 40, 2))
    assert not cursor.applied(Key(7, 1, 0))
    assert not cursor.applied(Key(8, 1, 0))
    assert not Cursor(snap("5:6:5"), snap("7:9:7")).applied(Key(5, 1, 0))


def every_cursor(limit: int, progress: list[Key]) -> list[Cursor]:
    """All cursors over txids below `limit`, with and without a run, at one of `progress` or at none."""
    snapshots = [s for s in every_snapshot(limit) if s.xmin == (s.xip[0] if s.xip else s.xmax)]
    runs = [(s, t) for s, t in product(snapshots, repeat=2) if t.includes(s)]
    return [Cursor(s) for s in snapshots] + [Cursor(s, t, p) for s, t in runs for p in (None, *progress)]


def test_covers_never_claims_more_than_is_applied() -> None:
    keys = [Key(x, 1, o) for x in range(1, 4) for o in (0, 1)]
    cursors = {c: {k for k in keys if c.applied(k)} for c in every_cursor(4, [keys[2], keys[5]])}
    assert all(a >= b for (x, a), (y, b) in product(cursors.items(), repeat=2) if x.covers(y))
    assert all(c.covers(c) for c in cursors)


def test_covers_is_exact_enough_to_promote() -> None:
    done, target = snap("5:6:5"), snap("9:9:")
    running = Cursor(done, target, Key(6, 1, 0))
    assert Cursor(target).covers(running)
    assert Cursor(target).covers(Cursor(done))
    assert not Cursor(done).covers(running)
    assert not Cursor(done, target, Key(6, 0, 0)).covers(running)
    assert Cursor(done, target, Key(6, 2, 0)).covers(running)


T1, T2, T3 = snap("5:5:"), snap("7:9:7"), snap("12:12:")
AT, LATER = Key(5, 3, LAST_ORDINAL), Key(6, 3, LAST_ORDINAL)


@pytest.mark.parametrize(
    ("cursor", "upstream", "read"),
    [
        pytest.param(Cursor(T1), Cursor(T2), Read(T1, T2, None, None), id="a run to where the upstream is"),
        pytest.param(Cursor(T1), Cursor(T2, T3, LATER), Read(T1, T2, None, None), id="done before its run"),
        pytest.param(Cursor(T1), Cursor(T1), None, id="nothing new"),
        pytest.param(Cursor(T1), Cursor(snap("4:5:"), T2, AT), Read(T1, T2, None, AT), id="same set, other xmin"),
        pytest.param(Cursor(T1), Cursor(T1, T2, AT), Read(T1, T2, None, AT), id="joins the upstream's run"),
        pytest.param(Cursor(T1), Cursor(T1, T2), None, id="a run without progress"),
        pytest.param(Cursor(T2), Cursor(T1), None, id="the upstream is behind"),
        pytest.param(Cursor(T2), Cursor(T1, T3, LATER), None, id="behind, in a run past us"),
        pytest.param(Cursor(T3), Cursor(T1, T2, LATER), None, id="behind, in a run short of us"),
        pytest.param(Cursor(T1, T2, AT), Cursor(T1, T2, LATER), Read(T1, T2, AT, LATER), id="follows in the run"),
        pytest.param(Cursor(T1, T2, AT), Cursor(T1, T2, AT), None, id="caught up in the run"),
        pytest.param(Cursor(T1, T2, LATER), Cursor(T1, T2, AT), None, id="ahead in the run"),
        pytest.param(Cursor(T1, T2, AT), Cursor(T2), Read(T1, T2, AT, None), id="the run is finished upstream"),
        pytest.param(Cursor(T1, T2, AT), Cursor(T3, T3), Read(T1, T2, AT, None), id="the upstream is further"),
        pytest.param(Cursor(T1, T2, AT), Cursor(T1, T3, LATER), None, id="another run: wait"),
        pytest.param(
            Cursor(T1),
            Cursor(T1, T2, Key(6, 3, 0)),
            Read(T1, T2, None, Key(6, 2, LAST_ORDINAL)),
            id="stops before an event that the upstream stands in",
        ),
    ],
)
def test_next_read(cursor: Cursor, upstream: Cursor, read: Read | None) -> None:
    assert next_read(cursor, upstream) == read


def test_every_read_is_complete_upstream_and_every_page_of_it_counted_exactly() -> None:
    """All pairs of small cursors, the upstream inside an event, behind, or on another run included."""
    rows = [Key(x, 1, o) for x in range(1, 4) for o in (0, 1)]
    cursors = every_cursor(4, [Key(1, 1, LAST_ORDINAL), Key(2, 1, 0), Key(2, 1, LAST_ORDINAL)])
    reads = [(c, u, r) for c, u in product(cursors, repeat=2) if (r := next_read(c, u)) is not None]
    assert len({read.upto for _, _, read in reads}) > 2
    for cursor, upstream, read in reads:
        page = [
            row
            for row in rows
            if read.target.visible(row.txid)
            and not read.done.visible(row.txid)
            and (read.after is None or row > read.after)
            and (read.upto is None or row <= read.upto)
        ]
        assert all(upstream.applied(row._replace(ordinal=LAST_ORDINAL)) for row in page)
        before = {row for row in rows if cursor.applied(row)}
        assert before.isdisjoint(page)
        for size in range(1, len(page) + 1):
            full = advance(cursor, read, page[size - 1], full=True)
            assert {row for row in rows if full.applied(row)} == before.union(page[:size])
        short = advance(cursor, read, page[-1] if page else None, full=False)
        assert {row for row in rows if short.applied(row)} == before.union(page)


def test_advance() -> None:
    cursor = Cursor(T1, T2, AT)
    free, bound = Read(T1, T2, AT, None), Read(T1, T2, AT, LATER)
    last = Key(6, 1, 0)
    assert advance(cursor, free, last, full=True) == Cursor(T1, T2, last)
    assert advance(cursor, free, last, full=False) == Cursor(T2)
    assert advance(cursor, free, None, full=False) == Cursor(T2)
    assert advance(cursor, bound, last, full=True) == Cursor(T1, T2, last)
    assert advance(cursor, bound, last, full=False) == Cursor(T1, T2, LATER)
    assert advance(cursor, bound, None, full=False) == Cursor(T1, T2, LATER)


@pytest.mark.parametrize(
    ("read", "last", "full"),
    [
        (Read(T1, T2, AT, None), None, True),
        (Read(T1, T2, AT, None), AT, False),
        (Read(T1, T2, AT, LATER), Key(6, 4, 0), False),
        (Read(T2, T3, AT, None), Key(10, 1, 0), False),
        (Read(T1, T2, None, None), Key(6, 1, 0), False),
    ],
)
def test_advance_refuses_a_page_of_another_read(read: Read, last: Key | None, full: bool) -> None:
    with pytest.raises(ValueError, match=r"last key|outside|not made"):
        advance(Cursor(T1, T2, AT), read, last, full)


@pytest.mark.parametrize(
    ("now", "own", "known", "capped"),
    [
        ("90:120:95", 100, "1:1:", "95:100:95"),
        ("90:120:95", 100, "90:110:95,100", "95:110:95,100"),
        ("90:120:95,115", 100, "90:130:95", "95:120:95,100,115"),
        ("90:95:", 100, "90:99:", "90:95:"),
    ],
)
def test_the_cap_knows_what_was_committed(now: str, own: int, known: str, capped: str) -> None:
    assert str(Snapshot.parse(now).capped(own, Snapshot.parse(known))) == capped


def test_a_union_is_what_had_finished_here_or_there() -> None:
    for a, b in product(every_snapshot(5), repeat=2):
        both = a.union(b)
        assert all(both.visible(x) == (a.visible(x) or b.visible(x)) for x in range(1, 8)), (a, b)


def test_a_cursor_passes_over_transactions_and_nothing_else() -> None:
    """Against the sets of keys: two rows for each transaction, of which a run may have applied one."""
    keys = [Key(txid, txid * 10 + at, 0) for txid in range(1, 6) for at in (1, 2)]
    everything = Cursor(snap("9:9:"))
    for cursor, gone in product(every_cursor(4, [key for key in keys if key.position % 10 == 1]), every_snapshot(4)):
        moved = passed_over(cursor, gone)
        expected = {key for key in keys if cursor.applied(key) or gone.visible(key.txid)}
        assert {key for key in keys if moved.applied(key)} == expected, (cursor, gone)
        # The pages from there on bring every other row, once.
        seen: list[Key] = []
        while (read := next_read(moved, everything)) is not None:
            left = [
                key for key in keys
                if read.target.visible(key.txid) and not read.done.visible(key.txid)
                and (read.after is None or key > read.after)
            ]  # fmt: skip
            page = left[:2]
            seen += page
            moved = advance(moved, read, page[-1] if page else None, len(page) == 2)
        assert sorted(seen) == sorted(set(keys) - expected), (cursor, gone)
