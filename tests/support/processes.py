"""Workers and deploys in processes of their own, so that they can be killed and frozen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WORKER = """
import json, logging, sys
from pathlib import Path
from refold.service.worker.loop import Worker
logging.basicConfig(level=logging.WARNING)
url, folder, drain, options = json.loads(sys.argv[1])
Worker(url, Path(folder), **options).run(drain=drain)
"""

_DEPLOY = """
import json, sys
from pathlib import Path
from refold.postgres.connect import connect
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
url, folder = json.loads(sys.argv[1])
with connect(url, "refold_worker", autocommit=True) as conn:
    deploy(conn, Path(folder), load_directory(Path(folder)), lambda progress: None)
"""

_REBUILD = """
import json, sys
from pathlib import Path
from refold.postgres.connect import connect
from refold.engine.deployment.deploy import rebuild
url, folder, names = json.loads(sys.argv[1])
with connect(url, "refold_worker", autocommit=True) as conn:
    rebuild(conn, Path(folder), names, lambda progress: None, cascade=True)
"""

_RECOVER = """
import json, sys
from pathlib import Path
from refold.postgres.connect import connect
from refold.engine.recovery.recovery import recover
url, folder = json.loads(sys.argv[1])
with connect(url, "refold_worker", autocommit=True) as conn:
    recover(conn, Path(folder))
"""

Process = subprocess.Popen[str]


@contextmanager
def worker(
    url: str, folder: Path, *, drain: bool = True, env: dict[str, str] | None = None, **options: object
) -> Iterator[Process]:
    """A worker process; killed at the end if it still runs.

    Args:
        url: the database.
        folder: the transforms.
        drain: end when there is nothing left to do.
        env: added to the environment.
        options: of `refold.service.worker.loop.Worker`.
    """
    yield from _process(_WORKER, [url, str(folder), drain, options], env)


@contextmanager
def deploying(url: str, folder: Path, *, env: dict[str, str] | None = None) -> Iterator[Process]:
    """A process that deploys a folder; killed at the end if it still runs."""
    yield from _process(_DEPLOY, [url, str(folder)], env)


@contextmanager
def rebuilding(url: str, folder: Path, names: list[str], *, env: dict[str, str] | None = None) -> Iterator[Process]:
    """A process that rebuilds projections and what reads them; killed at the end if it still runs."""
    yield from _process(_REBUILD, [url, str(folder), names], env)


@contextmanager
def recovering(url: str, folder: Path, *, env: dict[str, str] | None = None) -> Iterator[Process]:
    """A process that brings a restored database back; killed at the end if it still runs."""
    yield from _process(_RECOVER, [url, str(folder)], env)


def _process(program: str, arguments: list[object], env: dict[str, str] | None) -> Iterator[Process]:
    command = [sys.executable, "-W", "error", "-c", program, json.dumps(arguments)]
    process = subprocess.Popen(command, env=os.environ | (env or {}), stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
