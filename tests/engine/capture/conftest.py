from pathlib import Path

import pytest

from tests.support.capturing import TABLE, Captured, Connection


@pytest.fixture
def captured(tmp_path: Path, database_url: str, admin: Connection) -> Captured:
    """The table shop.orders, and a folder of captures."""
    admin.execute(TABLE.encode())
    folder = tmp_path / "captures"
    folder.mkdir()
    return Captured(folder, database_url, admin)
