"""`refold url`: print the URL of the database, as a role."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

import typer
from psycopg.conninfo import conninfo_to_dict

from refold.cli.app import DATA, app
from refold.cli.session import DatabaseUrl, database


class Role(StrEnum):
    """The role that the sessions of a URL act as."""

    analyst = "analyst"
    worker = "worker"
    producer = "producer"
    owner = "owner"


@app.command(rich_help_panel=DATA)
def url(
    role: Annotated[
        Role | None, typer.Option("--role", help="Role to act as; an analyst's search_path includes `metrics`.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Print the database's URL for psql, BI tools and notebooks. It includes any password.

    \b
    Examples:
      psql "$(refold url)"
      psql "$(refold url --role analyst)"
      export REFOLD_DATABASE_URL=$(refold url)
    """
    resolved = database(database_url)
    typer.echo(resolved if role is None else acting_as(resolved, role))


def acting_as(given: str, role: Role) -> str:
    """Return a libpq URL whose sessions act as one of refold's roles.

    Args:
        given: libpq URL or connection string.
        role: role to act as.
    """
    parts = {name: str(value) for name, value in conninfo_to_dict(given).items()}
    settings = [f"-c role=refold_{role.value}", "-c TimeZone=UTC"]
    if role is Role.analyst:
        settings.append("-c search_path=pg_catalog,metrics,pg_temp")
    parts["options"] = " ".join([*([parts["options"]] if "options" in parts else []), *settings])
    user = quote(parts.pop("user", ""), safe="")
    password = parts.pop("password", None)
    login = user + (":" + quote(password, safe="") if password is not None else "")
    name = quote(parts.pop("dbname", ""), safe="")
    rest = "&".join(f"{key}={quote(value, safe='/')}" for key, value in parts.items())
    return f"postgresql://{login}{'@' if login else ''}/{name}?{rest}"
