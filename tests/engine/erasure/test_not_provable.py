"""A proof gives the date before which nobody can prove the absence of what backups and buckets keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from refold.engine.erasure import not_provable
from refold.store.schema.settings import Settings
from tests.engine.erasure.conftest import Shop


def days_from_now(days: int) -> set[str]:
    """A day may end between two looks at the clock."""
    return {str((datetime.now(UTC) + timedelta(days=days + more)).date()) for more in (0, 1)}


@pytest.mark.live("shop")
def test_the_proof_says_until_when_backups_have_the_person(shop: Shop) -> None:
    shop.admin.execute("UPDATE refold.settings SET backups_kept = '35 days'")
    first, *_ = shop.erase().evidence["proof"]["not_provable"]
    assert "kept for 35 days" in first
    assert first.split("not provable before ")[1].rstrip(".") in days_from_now(36)


def test_what_a_bucket_keeps() -> None:
    assert ["cannot see" in one for one in not_provable.versions(Settings())] == [True]
    assert not_provable.versions(Settings(versions_kept=timedelta(0))) == []
    [told] = not_provable.versions(Settings(versions_kept=timedelta(days=1)))
    assert "for 1 day:" in told
    assert told.split("not provable before ")[1].rstrip(".") in days_from_now(2)
