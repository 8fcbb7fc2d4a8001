"""Healing a stream some of whose damaged rows its readers cannot process."""

from __future__ import annotations

from pathlib import Path

from live import wrong
from refold.reconcile import reconcile

from .prices import Prices


def test_a_damaged_row_that_its_reader_cannot_process_is_healed(shop: Prices, tmp_path: Path) -> None:
    """To find what the reader must have again its key is evaluated for the row as it stands; there it fails."""
    (tmp_path / "raw.sql").write_text("SELECT event_id, metadata ->> 'price' AS price FROM events")
    per_worth = "SELECT public.price(price) AS worth, count(*) AS events FROM raw GROUP BY worth"
    (tmp_path / "per_worth.sql").write_text(per_worth)
    shop.sell(10)
    shop.deploy(tmp_path)
    table = shop.build("raw").table_name
    damage = f"UPDATE refold_builds.{table} SET price = CASE event_id WHEN 'e3' THEN 'free' ELSE '19' END"
    shop.worker.execute(f"{damage} WHERE event_id IN ('e3', 'e4')".encode())
    report = reconcile(shop.worker, tmp_path, depth="slice")
    assert (report.skipped, set(report.counts)) == ([], {("raw", table, "drifted")})
    assert wrong(shop.url, tmp_path, {}) == {}
    assert reconcile(shop.worker, tmp_path).clean
