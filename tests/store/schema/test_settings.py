"""The row of settings, typed: as in a new database, as it stands, and none left out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import psycopg

from refold.store.schema.settings import Settings, read_settings
from refold.store.schema.tables import metadata

Connection = psycopg.Connection[Any]

REFOLDS_OWN = {"singleton", "system_identifier", "hash_probe"}


def test_a_new_database_has_the_defaults(admin: Connection) -> None:
    assert read_settings(admin) == Settings()


def test_what_an_operator_sets_is_read(admin: Connection) -> None:
    admin.execute("UPDATE refold.settings SET lag_limit = 7, too_many_dead_letters = 'stop', dead_letter_share = 0.25")
    assert read_settings(admin) == replace(
        Settings(), lag_limit=7, too_many_dead_letters="stop", dead_letter_share=0.25
    )


def test_every_column_that_is_an_operators_has_its_field() -> None:
    columns = {column.name for column in metadata.tables["refold.settings"].columns}
    assert {field.name for field in fields(Settings)} == columns - REFOLDS_OWN
