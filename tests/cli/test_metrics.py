"""`refold metrics` without a server: the page on stdout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .conftest import Refold


def test_it_prints_what_a_scraper_gets(refold: Refold, metric: Callable[[str, str], Path]) -> None:
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    refold("deploy")
    done = refold("metrics")
    assert done.status == 0 and done.err == ""
    assert "\nrefold_up 1\n" in done.out and 'refold_unread_events{projection="counts"} 0\n' in done.out
    assert refold("metrics", "--openmetrics").out.endswith("# EOF\n")
    single = refold("metrics", "--projection", "counts").out
    assert "refold_workers" not in single and "refold_failing" in single


def test_check_says_how_much_it_is(refold: Refold) -> None:
    done = refold("metrics", "--check")
    assert done.status == 0 and " names, " in done.out and "refold_up" not in done.out


def test_a_database_that_is_away_is_no_error_of_the_page(bare: Refold) -> None:
    away = "postgresql://nobody@127.0.0.1:1/none"
    done = bare("metrics", "--database-url", away)
    assert done.status == 1
    assert [one for one in done.out.splitlines() if not one.startswith("#")] == ["refold_up 0"]
    assert bare("metrics", "--check", "--database-url", away).status == 1


def test_options_that_exclude_each_other(refold: Refold) -> None:
    for options in (("--listen", "127.0.0.1:0", "--check"), ("--beyond-loopback",), ("--allow-host", "x")):
        done = refold("metrics", *options)
        assert done.status == 2 and "Omit" in done.err
    assert refold("metrics", "--listen", "9464").status == 2
