"""The producers' files, which the count goes by."""

from __future__ import annotations

from pathlib import Path
from random import Random

from chaos.journal import Event, Journal, read
from chaos.made import Maker


def made(count: int) -> list[Event]:
    return Maker("p", Random(1)).clean(count)


def test_what_was_answered_is_acknowledged_and_the_rest_only_attempted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a")
    first, second, third = made(3)
    journal.acknowledged(journal.attempted("a", [first, second]), ["accepted", "conflict"])
    journal.attempted("a", [third])
    count = read([tmp_path / "a"])
    assert count.attempted == 3
    assert count.acknowledged == {first["id"]}
    assert [offer.answer for offer in count.offered] == ["accepted", "conflict", None]


def test_what_a_killed_producer_left_of_a_line_counts_as_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before, after = made(2)
    batch = Journal(path).attempted("a", [before])
    with path.open("ab") as file:
        file.write(b'{"batch": 17, "answ')
    journal = Journal(path)
    again = journal.attempted("a", [after])
    journal.acknowledged(again, ["accepted"])
    assert again != batch
    assert read([path]).acknowledged == {after["id"]}


def test_an_invalid_event_is_none_that_the_log_could_hold(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a")
    (event,) = made(1)
    event["metadata"]["invalid"] = True
    journal.acknowledged(journal.attempted("a", [event]), ["invalid"])
    count = read([tmp_path / "a"])
    assert (count.attempted, count.acknowledged, len(count.offered)) == (0, set(), 1)
