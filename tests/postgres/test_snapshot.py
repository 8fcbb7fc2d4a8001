"""A block that sees one instant, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold.postgres.snapshot import snapshot

Connection = psycopg.Connection[Any]


def test_later_statements_see_what_the_first_saw(admin: Connection, connect: Callable[..., Connection]) -> None:
    admin.execute("CREATE TABLE public.one (a integer)")
    other = connect(autocommit=True)
    with snapshot(admin):
        assert admin.execute("SELECT count(*) FROM public.one").fetchone() == (0,)
        other.execute("INSERT INTO public.one VALUES (1)")
        assert admin.execute("SELECT count(*) FROM public.one").fetchone() == (0,)
    assert admin.execute("SELECT count(*) FROM public.one").fetchone() == (1,)


def test_nothing_is_written(admin: Connection) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), snapshot(admin):
        admin.execute("CREATE TABLE public.one (a integer)")
