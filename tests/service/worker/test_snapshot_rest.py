"""How often pages are taken: as ever, but for the time in which an old snapshot makes them dearer."""

import pytest

from refold.service.worker.snapshot_rest import BREATH, MOST, PAGES, SHARE, Pace


def rests(pace: Pace, *seconds: float, builds: int = 1) -> float:
    """The last of the rests after rounds in which the page of each build took so long."""
    last = 0.0
    for one in seconds:
        last = pace.rest(dict.fromkeys(range(builds), one))
    return last


def test_pages_that_are_dear_by_themselves_change_nothing() -> None:
    pace = Pace()
    assert rests(pace, *[0.004] * PAGES, *[0.5] * PAGES) == BREATH


def test_under_an_old_snapshot_it_follows_the_cost() -> None:
    pace = Pace()
    rests(pace, *[0.004] * PAGES)
    pace.held(True)
    assert rests(pace, *[0.004] * PAGES) == BREATH
    assert rests(pace, *[0.010] * PAGES) == pytest.approx(SHARE * 0.006)
    # One burst between others costs nobody a second.
    assert rests(pace, *[0.010] * PAGES, 0.9) < MOST / 10
    assert rests(pace, *[3.0] * PAGES) == MOST
    pace.held(False)
    assert rests(pace, 0.010) == BREATH


def test_a_round_of_more_builds_is_no_dearer_page() -> None:
    pace = Pace()
    rests(pace, *[0.004] * PAGES, builds=9)
    rests(pace, *[0.004] * PAGES)
    pace.held(True)
    assert rests(pace, *[0.004] * PAGES, builds=9) == BREATH
    assert rests(pace, *[0.005] * PAGES, builds=9) == pytest.approx(SHARE * 9 * 0.001)


def test_a_worker_that_starts_under_one_takes_what_it_finds_for_usual() -> None:
    pace = Pace()
    pace.held(True)
    assert rests(pace, *[0.010] * PAGES) == BREATH
    assert rests(pace, *[0.012] * PAGES) > BREATH
