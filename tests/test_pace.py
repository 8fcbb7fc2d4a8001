"""How often pages are taken: as ever, but for the time in which an old snapshot makes them dearer."""

from refold.worker.pace import BREATH, MOST, ROUNDS, SHARE, Pace


def rests(pace: Pace, *seconds: float) -> float:
    """The last of the rests after rounds that took so long."""
    last = 0.0
    for one in seconds:
        last = pace.rest(one)
    return last


def test_a_round_that_is_dear_by_itself_changes_nothing() -> None:
    pace = Pace()
    assert rests(pace, *[0.004] * ROUNDS, *[0.5] * ROUNDS) == BREATH


def test_under_an_old_snapshot_it_follows_the_cost() -> None:
    pace = Pace()
    rests(pace, *[0.004] * ROUNDS)
    pace.held(True)
    assert rests(pace, *[0.004] * ROUNDS) == BREATH
    assert abs(rests(pace, *[0.010] * ROUNDS) - SHARE * 0.006) < 1e-9
    # One burst between others costs nobody a second.
    assert rests(pace, *[0.010] * ROUNDS, 0.9) < MOST / 10
    assert rests(pace, *[3.0] * ROUNDS) == MOST
    pace.held(False)
    assert rests(pace, 0.010) == BREATH


def test_a_worker_that_starts_under_one_takes_what_it_finds_for_usual() -> None:
    pace = Pace()
    pace.held(True)
    assert rests(pace, *[0.010] * ROUNDS) == BREATH
    assert rests(pace, *[0.011] * ROUNDS) > BREATH
