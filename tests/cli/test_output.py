"""Tables on a terminal that is too narrow for them, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from refold.cli.output import taken, that_fit
from refold.prose import counted

COLUMNS = ("PROJECTION", "TABLE", "LAG", "ERROR")


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (80, ["PROJECTION", "TABLE", "LAG", "ERROR"]),
        (71, ["PROJECTION", "TABLE", "ERROR"]),
        (60, ["PROJECTION", "ERROR"]),
    ],
)
def test_a_narrow_terminal_goes_without_the_spare_columns(room: int, shown: list[str]) -> None:
    widths = (12, 20, 6, 200)
    assert [COLUMNS[at] for at in that_fit(COLUMNS, widths, ("LAG", "TABLE"), room)] == shown


def test_the_last_column_breaks() -> None:
    assert taken((10, 200), (0, 1)) == 42
    assert taken((10, 5), (0, 1)) == 17


def test_counted() -> None:
    assert [counted(number, "row") for number in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]


def _on_a_terminal(program: str, columns: int) -> str:
    """What a program writes to a terminal of that width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=follower, stdout=follower, stderr=follower,
        env=environment | {"NO_COLOR": "1", "TERM": "xterm"},
    )  # fmt: skip
    os.close(follower)
    seen = b""
    while True:
        try:
            read = os.read(leader, 65536)
        except OSError:  # the terminal closes with its last process
            break
        if not read:
            break
        seen += read
    os.close(leader)
    assert process.wait(timeout=30) == 0, seen
    return seen.decode().replace("\r\n", "\n")


def test_names_stay_in_one_piece() -> None:
    """Broken over five lines they can be neither read nor copied."""
    table = (
        "from refold.cli.output import table; table(('PROJECTION', 'TABLE', 'VIEWS', 'ERROR'),"
        " [('purchases_by_day', 'purchases_by_day__76d21825__1', 'itself + 12', 'invalid input ' * 8)],"
        " spare=('VIEWS',))"
    )
    shown = _on_a_terminal(table, 84)
    assert "purchases_by_day  purchases_by_day__76d21825__1  invalid input" in shown
    assert "not shown in 84 columns: VIEWS" in shown
    assert shown.count("invalid") == 8, "the last column breaks, and nothing of it is lost"
    assert "itself + 12" in _on_a_terminal(table, 120)


def test_a_terminal_shows_the_beginning_of_what_a_pipe_has_whole() -> None:
    program = "from refold.cli.rejected import _short; print(_short('x' * 500))"
    assert _on_a_terminal(program, 200).strip() == f"{'x' * 79}…"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert piped.stdout.strip() == "x" * 500


def test_where_nothing_fits_everything_breaks_and_nothing_is_cut_off() -> None:
    shown = _on_a_terminal(
        "from refold.cli.output import table; table(('A', 'B', 'C'), [('x' * 70, 'y' * 70, 'z' * 70)])", 60
    )
    assert [shown.count(letter) for letter in "xyz"] == [70, 70, 70]
