"""The location of refold's files that are not Python: SQL, migrations, projections.

A wheel carries them in ``refold/_bundled/``; in a checkout (also one installed with
``pip install -e``) they are the top-level folders.
"""

from pathlib import Path

from refold.errors import RefoldError

_PACKAGE = Path(__file__).resolve().parents[2]
_BUNDLED = _PACKAGE / "_bundled"
_CHECKOUT = _PACKAGE.parent.parent


def sql_dir() -> Path:
    """Return the folder of SQL files: functions, triggers, roles, views; one object per file."""
    return _directory("sql")


def migrations_dir() -> Path:
    """Return the folder of migrations: alembic's script location."""
    return _directory("migrations")


def projections_dir() -> Path:
    """Return the folder of the projections that come with refold."""
    return _directory("projections")


def _directory(name: str) -> Path:
    for root in (_BUNDLED, _CHECKOUT):
        if (root / name).is_dir():
            return root / name
    raise RefoldError(
        f"refold's installation is incomplete: there is no {name}/ in {_BUNDLED} or in {_CHECKOUT}",
        remedy="Reinstall refold.",
    )
