"""A project as people and their editors leave it, from the files to the figures."""

from __future__ import annotations

import uuid
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg

from refold import append
from refold.engine.deployment.plan import changes
from refold.engine.publish.analyst_views import apply_analyst_views
from refold.model.projection.definition import load_directory
from refold.service.duties import purity
from refold.service.worker.loop import Worker
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from refold.store.incidents import find as incidents
from tests.support.law import broken, deploy_project, worker_connection

BOM = "\ufeff"
FILES = {
    "projections/shop/Kinds.SQL.orig": "SELECT",
    "projections/shop/per_action.SQL": BOM
    + "-- What was done.\r\nSELECT Action, COUNT(*) AS n FROM EVENTS GROUP BY ACTION;\r\n-- Thank you.\r\n",
    "projections/shop/ranks.sql": "-- key: USER_ID -- one at a time\n"
    "SELECT user_id, event_id, rank() OVER (PARTITION BY user_id ORDER BY ts) AS place FROM events\n;\n/* End. */",
    "projections/._orders.py": "\x05",
    "projections/_money.py": "from decimal import Decimal\ndef cents(amount): return Decimal(amount) * 100\n",
    "projections/orders.py": BOM
    + '''
from __future__ import annotations

import dataclasses
import enum
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID

import _money
from pydantic import BaseModel
from refold import Event, transform


class Order(BaseModel):
    kind: Kind
    plain: Plain | None
    size: Size
    buyer: Buyer | None
    pair: tuple[int, str]
    point: Point
    tags: set[str]
    lines: list[Line]
    by_kind: dict[Kind, Decimal]
    cents: Decimal
    took: timedelta | None
    way: Literal["in", "out"]


class Kind(enum.StrEnum):
    NEW = "new"
    OLD = "old"


class Plain(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Buyer(BaseModel):
    id: UUID
    since: datetime
    kind: Kind


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Line:
    item: str
    price: Decimal


@transform()
def orders(event: Event) -> Order | None:
    """Orders with all that a model may hold."""
    if event.action != "buy":
        return None
    return Order(
        kind="new",
        plain="red" if event.user_id else None,
        size=2,
        buyer=Buyer(id=UUID(int=7), since=event.ts, kind=Kind.OLD),
        pair=(1, "a"),
        point=Point(1, 2.5),
        tags={"c", "a", "b"},
        lines=[Line("pen", Decimal("1.10"))],
        by_kind={Kind.OLD: Decimal("1.50")},
        cents=_money.cents("1.10"),
        # Without it a row is written in another way.
        took=timedelta(hours=30) if event.user_id else None,
        way="in",
    )
''',
    "sql/views/shop/Busy.SQL": BOM
    + 'CREATE OR REPLACE VIEW metrics."Busy" AS SELECT max(n) AS n FROM metrics.per_action;',
    "sql/views/._Busy.sql": "\x05",
}
EVENTS = [
    {"id": f"e{at}", "user_id": user, "action": action, "ts": f"2026-03-02T10:0{at}:00Z"}
    for at, (user, action) in enumerate([("u", "view"), ("u", "buy"), (None, "buy")])
]


def test_a_project_as_people_leave_it(tmp_path: Path, database_url: str) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    folder = tmp_path / "projections"
    # One event is loaded, the others come in a page.
    with psycopg.connect(database_url) as conn:
        append(conn, EVENTS[:2])
    deploy_project(database_url, folder)
    with psycopg.connect(database_url) as conn:
        append(conn, EVENTS[2:])
    Worker(database_url, folder).run(drain=True)
    with worker_connection(database_url) as conn:
        apply_analyst_views(conn, tmp_path / "sql" / "views")
        assert conn.execute("SELECT action, n FROM metrics.per_action ORDER BY 1").fetchall() == [
            ("buy", 2),
            ("view", 1),
        ]
        assert conn.execute("SELECT event_id, place FROM metrics.ranks ORDER BY 1").fetchall() == [
            ("e0", 1),
            ("e1", 2),
            ("e2", 1),
        ]
        assert conn.execute('SELECT n FROM metrics."Busy"').fetchall() == [(2,)]
        columns = conn.execute("SELECT * FROM metrics.orders ORDER BY plain").fetchall()
        for row, plain, minute, took in zip(columns, ["red", None], [1, 2], [timedelta(hours=30), None], strict=True):
            assert row == (
                "new",
                plain,
                2,
                {"id": str(uuid.UUID(int=7)), "since": f"2026-03-02T10:0{minute}:00Z", "kind": "old"},
                [1, "a"],
                [1, 2.5],
                ["a", "b", "c"],
                [{"item": "pen", "price": 1.1}],
                {"old": 1.5},
                Decimal("110.00"),
                took,
                "in",
            )
        assert conn.execute("SELECT DISTINCT by_kind::text, lines::text FROM metrics.orders").fetchall() == [
            ('{"old": 1.50}', '[{"item": "pen", "price": 1.10}]')
        ]
        compiler = Compiler(folder)
        live = find(conn, "b.state = 'live'")
        assert [broken(conn, compiler, build.build_id) for build in live] == [[], [], []]
        purity.run(conn, compiler)
        assert incidents(conn, "i.kind = 'impure_transform'") == []

        (folder / "_money.py").write_text("def cents(amount): return 0\n")
        plan = {one.projection: (one.action, one.because) for one in changes(load_directory(folder), live)}
        assert plan == {
            "per_action": ("unchanged", ""),
            "ranks": ("unchanged", ""),
            "orders": ("changed", "a module that it imports changed"),
        }
