"""How alembic reaches the database: refold's own `migrate` hands it an engine.

For a developer's `alembic revision --autogenerate` and `alembic check` it is the database at
REFOLD_DATABASE_URL.
"""

import os
from typing import Any

from alembic import context
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.util import CommandError
from sqlalchemy import Column, Connection, Engine, create_engine, text
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.pool import NullPool

from refold.store.schema.migrate import for_alembic
from refold.store.schema.tables import SCHEMA, PgSnapshot, Xid8, metadata

# Types that SQLAlchemy would warn about when it reads them back.
ischema_names.update(pg_snapshot=PgSnapshot, xid8=Xid8, jsonpath=JSONPATH)


def engine() -> Engine:
    given: Engine | None = context.config.attributes.get("engine")
    if given is not None:
        return given
    url = os.environ.get("REFOLD_DATABASE_URL")
    if url is None:
        raise CommandError("REFOLD_DATABASE_URL names no database")
    return create_engine("postgresql+psycopg://", creator=lambda: for_alembic(url), poolclass=NullPool)


def partitions(connection: Connection) -> set[str]:
    """The segments of the log: the database makes them by itself, so no model describes them."""
    found = connection.execute(
        text(
            "SELECT relname FROM pg_class"
            " WHERE relispartition AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)"
        ),
        {"schema": SCHEMA},
    )
    return set(found.scalars())


class Comparison(PostgresqlImpl):
    """alembic asks the database whether two defaults are equal; no nextval() equals another."""

    __dialect__ = "postgresql"

    def compare_server_default(
        self,
        inspector_column: Column[Any],
        metadata_column: Column[Any],
        rendered_metadata_default: str | None,
        rendered_inspector_default: str | None,
    ) -> bool:
        if "nextval(" in (rendered_inspector_default or ""):
            return rendered_inspector_default != rendered_metadata_default
        return super().compare_server_default(
            inspector_column, metadata_column, rendered_metadata_default, rendered_inspector_default
        )


def migrate(connection: Connection) -> None:
    # Every object belongs to the owner, whoever logs in to migrate.
    connection.execute(text("SET ROLE refold_owner"))
    segments = partitions(connection)

    def is_described(name: str | None, kind: str, parents: object) -> bool:
        if kind == "schema":
            return name == SCHEMA
        if kind == "index" and name is not None and name.startswith("key_"):
            # A deployed projection asked for it (refold.engine.deployment.key_indexes).
            return False
        return kind != "table" or name not in segments

    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=is_described,
        compare_type=True,
        compare_server_default=True,
    )
    context.run_migrations()


if context.is_offline_mode():
    raise CommandError("the migrations need a database: some look at what is there before they change it")
with engine().begin() as connection:
    migrate(connection)
