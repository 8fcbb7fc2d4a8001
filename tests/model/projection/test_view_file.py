"""A file of sql/views makes the view that it is named after, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.errors import RefoldError, ViewError
from refold.model.projection.view_file import in_schema, load_views, mentions, unqualified, view_file

RIGHT = """
DROP VIEW IF EXISTS metrics.top;
create or replace view Metrics.Top with (security_barrier) as select ';' as a, $$;$$ as b;
COMMENT ON VIEW metrics.top IS 'It''s; one';  -- one; comment
COMMENT ON COLUMN "metrics"."top".a IS 'x';
ALTER VIEW metrics.top SET (security_barrier = false);
GRANT SELECT (a), SELECT ON TABLE metrics.top TO somebody; REVOKE ALL ON metrics.top FROM nobody;
"""


def test_what_a_file_may_do() -> None:
    file = view_file("top", RIGHT, Path("top.sql"))
    assert [one.verb for one in file.statements] == ["DROP", "CREATE", "COMMENT", "COMMENT", "ALTER", "GRANT", "REVOKE"]
    assert [one.line for one in file.statements] == [2, 3, 4, 5, 6, 7, 7]


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ("CREATE VIEW metrics.other AS SELECT 1 AS a", 1, "CREATE is about metrics.other", "own file: other.sql"),
        ("CREATE VIEW metrics.tops AS SELECT 1 AS a", 1, "metrics.tops", "Write metrics.top, or name"),
        ("CREATE VIEW top AS SELECT 1 AS a", 1, "CREATE is about top", "Write metrics.top."),
        ("CREATE VIEW metrics.top AS SELECT 1 AS a;\n\nDROP VIEW metrics.x", 3, "DROP is about metrics.x", "Remove it"),
        (
            "DROP VIEW metrics.top CASCADE; CREATE VIEW metrics.top AS SELECT 1",
            1,
            "CASCADE drops more",
            "refold drops it",
        ),
        ("DROP VIEW metrics.top, metrics.x", 1, "drops more", "Remove the DROP"),
        ("ALTER VIEW metrics.top RENAME TO x", 1, "more than options", "another file"),
        ("ALTER VIEW metrics.top SET SCHEMA public", 1, "more than options", "another file"),
        ("ALTER VIEW metrics.top set  schema public", 1, "more than options", "another file"),
        ("COMMENT ON VIEW metrics.x IS 'x'", 1, "COMMENT is about metrics.x", "Remove it."),
        ("CREATE MATERIALIZED VIEW metrics.top AS SELECT 1 AS a", 1, "something else", "metric in projections/"),
        ("UPDATE refold.builds SET state = 'retired'", 1, "something else", "create one view"),
        ("DO $$BEGIN DROP VIEW metrics.x; END$$", 1, "something else", "create one view"),
        ("-- Nothing yet.", None, "makes no view metrics.top", "CREATE OR REPLACE VIEW metrics.top AS"),
        ("CREATE VIEW metrics.top AS SELECT 'x", None, "cannot read this SQL", "not closed"),
    ],
)
def test_what_it_may_not_do(text: str, line: int | None, message: str, remedy: str) -> None:
    with pytest.raises(ViewError) as refused:
        view_file("top", text, Path("top.sql"))
    assert message in str(refused.value)
    assert refused.value.line == line
    assert remedy in (refused.value.remedy or "")


def test_names_of_metrics_are_taken(tmp_path: Path) -> None:
    for name in ("counts", "freshness", "top", "wrong"):
        (tmp_path / f"{name}.sql").write_text(f"CREATE VIEW metrics.{name} AS SELECT 1 AS a")
    (tmp_path / "wrong.sql").write_text("SELECT 1")
    mistakes: list[RefoldError] = []
    assert [one.name for one in load_views(tmp_path, {"counts"}, mistakes)] == ["top"]
    assert ["taken by a metric" in str(one) for one in mistakes] == [True, False, False]
    assert "taken by refold itself" in str(mistakes[1])
    assert load_views(tmp_path / "none", (), mistakes) == []


def test_names_within_a_text() -> None:
    text = "SELECT metrics.a.n, 'metrics.a' FROM Metrics.A, \"metrics\".b, x.metrics.a, metrics.c"
    assert in_schema(text, {"a", "b"}, "t") == "SELECT t.a.n, 'metrics.a' FROM t.A, t.b, x.metrics.a, metrics.c"
    assert (mentions(text, {"c"}), mentions(text, {"d"})) == (True, False)
    query = "CREATE VIEW metrics.top AS WITH b AS (SELECT 1 AS one) SELECT * FROM {}, b"
    assert [unqualified(query.format(name), {"a", "b", "top"}) for name in ("a", "metrics.a", "top")] == [
        "a", None, "top"
    ]  # fmt: skip
