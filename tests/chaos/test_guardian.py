"""A campaign that is killed leaves nothing running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from chaos.guardian import guard


def sleeper(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *arguments])


def test_it_ends_what_belongs_to_the_campaign_and_nothing_else(tmp_path: Path) -> None:
    belongs, other = sleeper(str(tmp_path / "projections")), sleeper(str(tmp_path.parent))
    guardian = guard(tmp_path)
    try:
        assert belongs.poll() is None
        guardian.communicate(timeout=20)
        assert belongs.wait(20) == -9
        assert other.poll() is None
    finally:
        for process in (belongs, other):
            process.kill()
            process.wait()
