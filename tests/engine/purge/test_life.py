"""Metrics after a purge: renamed, dropped, changed, rolled back; each counts all events that ever were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refold.engine.deployment.deploy import deploy
from refold.engine.deployment.drop import drop
from refold.engine.deployment.rename import rename
from refold.engine.deployment.rollback import rollback
from refold.model.projection.definition import load_directory
from refold.service.worker.loop import Worker
from refold.store.builds.compiled import Compiler
from tests.engine.purge.conftest import ENDS, PROJECT, Yard

pytestmark = pytest.mark.live("archived")


@pytest.mark.slow
def test_through_all_that_a_person_does(yard: Yard, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def holds(end: int | None = None) -> None:
        """More events come, perhaps another segment goes, and every metric is right."""
        yard.definitions, yard.compiler = load_directory(folder), Compiler(folder)
        if end is not None:
            yard.skip_to(end)
        yard.append(10)
        Worker(yard.url, folder).run(drain=True)
        if end is not None:
            yard.seal()
            yard.archive()
            yard.purge()
        yard.look()
        assert yard.wrong() == {}

    yard.purge()
    (folder / "daily.sql").rename(folder / "days.sql")
    rename(yard.worker, folder, "daily", "days")
    holds(ENDS[3])
    drop(yard.worker, ["days", "by_user", "seen", "clicks", "paths"])
    yard.append(10)
    Worker(yard.url, folder).run(drain=True)
    deploy(yard.worker, folder, load_directory(folder), lambda progress: None)
    holds()
    for name, old, new in (("by_user", "max((metadata", "min((metadata"), ("clicks", "<> 'noise'", "<> 'view'")):
        path = folder / f"{name}.sql"
        path.write_text(path.read_text().replace(old, new))
    deploy(yard.worker, folder, load_directory(folder), lambda progress: None)
    holds()
    yard.append(10)
    rollback(yard.worker, folder, "by_user", lambda progress: None)
    for name in ("by_user", "clicks"):
        shutil.copy(PROJECT / f"{name}.sql", folder)
    holds(ENDS[4])
    assert yard.reconcile().clean
