"""`refold init` and `refold migrate`: create a project, and install the schema."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from refold.cli.app import START, app
from refold.cli.output import as_json, line
from refold.cli.session import AsJson, DatabaseUrl, database
from refold.errors import InputError
from refold.store.schema.migrate import migrate as install
from refold.store.schema.resources import projections_dir, sql_dir

_PROJECT = Path(__file__).parent / "project"


@app.command(rich_help_panel=START)
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Project directory; created if missing.")],
    starters: Annotated[
        bool, typer.Option("--starters", help="Also copy the projections and views that come with refold.")
    ] = False,
) -> None:
    """Create a project: a folder for metrics, one example of each kind of file, and a README.

    An existing file is never overwritten.

    \b
    Examples:
      refold init shop
      refold init . --starters
    """
    files = dict(_files(_PROJECT))
    if starters:
        files |= {Path("projections") / name: path for name, path in _files(projections_dir())}
        files |= {Path("sql/views") / name: path for name, path in _files(sql_dir() / "views")}
    taken = sorted(str(directory / name) for name in files if (directory / name).exists())
    if taken:
        raise InputError(
            f"these files exist already: {', '.join(taken)}", remedy="Choose another directory, or move the files away."
        )
    try:
        for name, source in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, directory / name)
    except OSError as error:
        raise InputError(f"cannot write into {directory}: {error.strerror or error}") from error
    for name in sorted(files):
        line(f"made {directory / name}")
    line()
    line("Next:")
    if directory.resolve() != Path.cwd():
        line(f"  cd {directory}")
    line("  refold deploy                                    make the metrics live")
    line("  refold query 'SELECT * FROM purchases_by_day'    query one")
    line("  refold ingest --help                             load events")
    line("  refold worker                                    keep the metrics up to date")


def _files(root: Path) -> list[tuple[Path, Path]]:
    """Return the files below a folder: relative path and path."""
    found = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [(path.relative_to(root), path) for path in sorted(found)]


@app.command(rich_help_panel=START)
def migrate(json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Install refold's schema in a database, or upgrade it to this version.

    The command is idempotent and safe to run concurrently and beside running workers. The login role must be a
    superuser, or own the database and have CREATEROLE.

    \b
    Example:
      REFOLD_DATABASE_URL=postgresql://me@db/shop refold migrate
    """
    url = database(database_url)
    install(url)
    with psycopg.connect(url) as conn:
        server = conn.info.parameter_status("server_version") or ""
        name = conn.info.dbname
    if json:
        as_json({"database": name, "server_version": server.split(" ")[0]})
    else:
        line(f"refold is installed in {name} (PostgreSQL {server.split(' ')[0]})")
