"""A folder of projections that a test writes, deploys and feeds, and the database it is deployed to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from refold import append
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.service.worker.loop import Worker
from refold.store.builds.build import Build, find

Connection = psycopg.Connection[tuple[Any, ...]]


class Scratch:
    """A project of this test's own; the fixture `scratch` makes it."""

    def __init__(self, folder: Path, url: str, worker: Connection) -> None:
        self.folder = folder
        self.url = url
        self.worker = worker
        self._number = 0

    def write(self, **files: str | None) -> None:
        for name, text in files.items():
            is_sql = text is None or "import" not in text
            path = self.folder / f"{name}.{'sql' if is_sql else 'py'}"
            path.unlink() if text is None else path.write_text(text)

    def deploy(self, *, live: bool = True, **files: str | None) -> None:
        self.write(**files)
        deploy(self.worker, self.folder, load_directory(self.folder), lambda progress: None, promote=live)

    def deploy_one(self, name: str, text: str) -> None:
        self.deploy(**{name: text})  # type: ignore[arg-type]

    def append(self, number: int = 1, **fields: Any) -> None:
        events = [{"id": f"e{self._number + n}", "action": "a", "ts": n, **fields} for n in range(number)]
        self._number += number
        with psycopg.connect(self.url) as conn:
            append(conn, events)

    def drain(self) -> None:
        Worker(self.url, self.folder).run(drain=True)

    def rows(self, metric: str) -> list[tuple[Any, ...]]:
        return self.worker.execute(f"SELECT * FROM metrics.{metric} ORDER BY 1".encode()).fetchall()

    def build(self, name: str) -> Build:
        return find(self.worker, "b.projection = %s", name)[-1]
