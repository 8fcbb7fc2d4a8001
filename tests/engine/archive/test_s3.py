"""S3, as moto has it: the same steps, and a store that refuses."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from refold.engine.archive.failures import NotOwner, StoreFailed
from refold.engine.archive.object_store import open_store
from refold.engine.archive.restore import restore
from refold.engine.archive.verify import verify
from refold.errors import InputError
from tests.engine.archive.conftest import SLICE, Shop
from tests.support.object_store import KEY, SECRET, ObjectStore, object_store
from tests.support.tampering import tamper


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with object_store() as store:
        yield store


@pytest.fixture
def bucket(shop: Shop, lake: ObjectStore) -> Shop:
    shop.location = f"s3://lake/shop?endpoint_override={quote(lake.url, safe='')}&region=us-east-1&scheme=http"
    shop.store = open_store(shop.location)
    return shop


def test_from_writing_to_restoring(bucket: Shop, lake: ObjectStore) -> None:
    bucket.claim()
    assert len(bucket.run().verified) == 3
    first = bucket.manifest()[0]
    stored = lake.content(f"shop/{first.location}")
    assert stored is not None and len(stored) == first.size
    assert verify(bucket.worker, by="the test", deep=True).wrong == []
    tamper(bucket.admin, f"DROP TABLE refold.events_{SLICE:015}")
    assert restore(bucket.worker, f"refold.events_{SLICE:015}", by="the test").events == 5
    client = lake.client()
    client.delete_object(Bucket="lake", Key=f"shop/{first.location}")
    client.close()
    assert [one.found for one in verify(bucket.worker, by="the test").wrong] == ["the store has no such file"]
    assert len(bucket.run().verified) == 1
    with pytest.raises(StoreFailed, match="is there already"):
        bucket.store.put(bucket.manifest()[2].location, None, lambda: None)  # type: ignore[arg-type]


def test_a_store_that_refuses(bucket: Shop, lake: ObjectStore) -> None:
    bucket.claim()
    lake.judge = lambda method, path: (403, "AccessDenied") if method in ("PUT", "POST") and "log" in path else None
    with pytest.raises(StoreFailed, match="cannot write") as refused:
        bucket.run()
    assert SECRET not in str(refused.value)
    assert bucket.states() == [(1, "begun")]
    lake.judge = lambda method, path: None
    assert len(bucket.run().verified) == 3
    assert verify(bucket.worker, by="the test").strangers == {}


def test_a_bucket_that_is_empty_is_not_ones_own(bucket: Shop, lake: ObjectStore) -> None:
    bucket.claim()
    client = lake.client()
    client.delete_object(Bucket="lake", Key="shop/_refold_archive.json")
    client.close()
    with pytest.raises(NotOwner, match="not mounted, or another folder"):
        bucket.run()


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("s3://key:hidden@bucket/x", "password"),
        ("s3://bucket/x?secret_key=hidden", "password"),
        ("ftp://host/x", "not known"),
        ("relative/path", "not an absolute path"),
    ],
)
def test_addresses_that_are_refused(location: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        open_store(location)
    assert "hidden" not in str(refused.value)
