"""Ends what a campaign has started when the campaign itself was killed, and cannot: `python -m chaos.guardian HOME`.

Whatever belongs to a campaign has its directory in its command line, or works in it. The guardian waits for the end of
its standard input, which comes when the campaign's process is gone, however that went.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def guard(home: Path) -> subprocess.Popen[bytes]:
    """Starts a guardian; to close its standard input is to let it go.

    Args:
        home: the campaign's directory.
    """
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(home)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def end_all(home: Path) -> None:
    """Kills the processes of a campaign; its server by the signal at which that takes its children along."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            program, *arguments = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
            pid, postgres = int(process.name), Path(program).name.startswith("postgres")
            if postgres and arguments[:1] == ["-D"] and (process / "cwd").readlink().is_relative_to(home):
                os.kill(pid, signal.SIGQUIT)
                os.kill(pid, signal.SIGCONT)
            elif not postgres and pid != os.getpid() and any(str(home) in argument for argument in arguments):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.stdin.read()
    end_all(Path(sys.argv[1]))
