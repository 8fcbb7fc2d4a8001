"""`refold deploy` with contracts, and `refold contracts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .conftest import Refold

Connection = psycopg.Connection[Any]

PURCHASE: dict[str, Any] = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "number"}, "currency": {"enum": ["EUR", "USD"]}},
}


def write(name: str, schema: dict[str, Any], **about: Any) -> None:
    Path("events").mkdir(exist_ok=True)
    Path(f"events/{name}.json").write_text(
        json.dumps({"x-refold": {"version": 1, "level": "enforce"} | about} | schema)
    )


@pytest.fixture
def shop(refold: Refold) -> Refold:
    """A project with a metric and a contract, not deployed."""
    Path("projections").mkdir()
    Path("projections/counts.sql").write_text("SELECT action, count(*) AS events FROM events GROUP BY action")
    write("purchase", PURCHASE)
    return refold


def append(shop: Refold, *amounts: Any, version: int = 1) -> Any:
    events = [
        {"id": f"{version}-{at}-{amount}", "action": "purchase", "ts": "2026-03-02T08:00:00Z", "version": version,
         "metadata": {"amount": amount}}
        for at, amount in enumerate(amounts)
    ]  # fmt: skip
    Path("events.ndjson").write_text("\n".join(map(json.dumps, events)))
    return shop("ingest", "events.ndjson", "--json").json


def test_from_a_file_to_a_refusal(shop: Refold, admin: Connection) -> None:
    planned = shop("deploy", "--dry-run")
    assert planned.status == 0, planned.err
    assert "purchase v1  new     enforce: refold refuses events that break it" in planned.out
    assert admin.execute("SELECT FROM refold.contracts").rowcount == 0
    done = shop("deploy")
    assert done.status == 0, done.err
    assert "purchase v1: a contract, enforce: refold refuses events that break it" in done.out
    append(shop, 1, "9")
    assert admin.execute("SELECT reason FROM refold.rejected").fetchall() == [
        ("amount: must be a number, not a string (contract purchase v1)",)
    ]
    again = shop("deploy", "--json").json["contracts"]
    assert [(one["contract"], one["action"]) for one in again] == [("purchase v1", "unchanged")]


def test_a_deploy_of_contracts_alone_does_not_say_that_it_does_nothing(shop: Refold) -> None:
    Path("events/purchase.json").rename("purchase.json")
    shop("deploy")
    Path("purchase.json").rename("events/purchase.json")
    for options in (["--dry-run"], []):
        told = shop("deploy", *options).out
        assert "Nothing to do" not in told
        # What holds first comes first.
        places = [told.index(one) for one in ("purchase v1", "counts", "The live metrics match the files.")]
        assert places == sorted(places)
    assert told.index("purchase v1: a contract") < told.index("The live")
    for options in (["--dry-run"], []):
        assert "Nothing to do: the live metrics match the files." in shop("deploy", *options).out
        assert list(shop("deploy", *options, "--json").json)[:2] == ["contracts", "plan"]


def test_the_reason_names_an_upcaster(shop: Refold) -> None:
    file = Path("projections/counts.sql")
    file.write_text("SELECT action, sum((metadata ->> 'amount')::numeric) AS spent FROM events GROUP BY action")
    shop("deploy")

    def reason() -> str:
        [one] = shop("deploy", "--dry-run", "--json").json["plan"]
        return str(one["because"])

    step = Path("events/purchase.v1_to_v2.sql")
    step.write_text("metadata || jsonb_build_object('amount', 1)")
    assert reason() == "an upcaster of purchase changed"
    shop("deploy")
    step.write_text("metadata || jsonb_build_object('amount', 2)")
    assert reason() == "an upcaster of purchase changed"
    file.write_text("SELECT action, max((metadata ->> 'amount')::numeric) AS spent FROM events GROUP BY action")
    assert reason() == "its file changed"


def test_a_level_may_change_and_a_version_may_not(shop: Refold, admin: Connection) -> None:
    shop("deploy")
    write("purchase", PURCHASE, level="warn", owner="payments")
    assert "purchase v1: a contract, enforce → warn: refold counts events that break it" in shop("deploy").out
    # What checks nothing may change.
    write("purchase", {**PURCHASE, "description": "Somebody pays."}, level="warn", owner="payments")
    assert "purchase v1  unchanged" in shop("deploy").out
    write("purchase", {**PURCHASE, "required": [], "properties": {"amount": {"type": "string"}}}, level="off")
    refused = shop("deploy")
    assert refused.status == 2
    for line in (
        "events/purchase.json: purchase v1 is registered and never changes, but this file differs:",
        '  required: was ["amount"], is []',
        '  properties.amount.type: was "number", is "string"',
        '  properties.currency: was {"enum": ["EUR", "USD"]}, is gone',
        'Write "version": 2 for the new form, and keep the registered one as purchase.v1.json.',
    ):
        assert line in refused.err
    assert admin.execute("SELECT level, about FROM refold.contracts").fetchall() == [("warn", {"owner": "payments"})]


def test_contracts_come_with_the_builds_or_not_at_all(shop: Refold, admin: Connection) -> None:
    Path("projections/counts.sql").write_text("SELECT action, no_such_column FROM events GROUP BY 1, 2")
    assert shop("deploy").status == 2
    assert admin.execute("SELECT FROM refold.contracts").rowcount == 0


@pytest.mark.parametrize(
    ("schema", "about", "error", "remedy"),
    [
        ({"uniqueItems": True}, {}, "uniqueItems: is no keyword that refold checks", "the database does not check it"),
        ({"properties": {"a": {"format": "email"}}}, {}, "properties.a.format: is no keyword", "Write a pattern."),
        ({"properties": {"a": {"typ": "string"}}}, {}, "properties.a.typ: is no keyword", "Did you mean type?"),
        ({"properties": {"a": {"type": "sting"}}}, {}, "'sting' is no type", "Did you mean string?"),
        ({"properties": {"a": {"minimum": 1}}}, {}, "properties.a.minimum: needs the type number", '"type": "number"'),
        ({"properties": {"a": {"type": "string", "pattern": "(?=x)"}}}, {}, "properties.a.pattern: looks around", ""),
        ({"properties": {"a": {"type": "string", "maxLength": 900}}}, {}, "may be at most 255", "Leave it out"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, {}, "'b' is not in $defs", "#/$defs/NAME"),
        ({"type": "array"}, {}, "must have the type object", '"type": "object"'),
        ({}, {"level": "enforced"}, "must be off, warn or enforce, not 'enforced'", "Did you mean enforce?"),
        ({}, {"version": 0}, "x-refold.version: must be a whole number", ""),
        ({}, {"verison": 1}, "x-refold.verison: is not known.", "Did you mean version?"),
        ({}, {"since": "soon"}, "x-refold.since: must be a day", '"since": "2026-03-01"'),
    ],
)
def test_mistakes_name_file_path_and_remedy(
    shop: Refold, schema: dict[str, Any], about: dict[str, Any], error: str, remedy: str
) -> None:
    write("purchase", {"type": "object"} | schema, **about)
    refused = shop("deploy", "--dry-run")
    assert refused.status == 2
    assert "events/purchase.json: " in refused.err
    assert error in refused.err
    assert remedy in refused.err


def test_the_name_of_a_file_says_its_version(shop: Refold) -> None:
    write("purchase.v2", PURCHASE, version=3)
    assert "is 3, but the file's name says v2" in shop("deploy").err
    write("purchase.v2", PURCHASE, version=2)
    write("bought", PURCHASE, version=2, action="purchase")
    assert "is the contract purchase v2 too" in shop("deploy").err
    Path("events/bought.json").unlink()
    assert shop("deploy").status == 0
    Path("events/purchase.v2.json").unlink()
    assert "contracts without a file here are left alone: purchase v2" in shop("deploy").err


def test_a_new_version_takes_all_events_of_older_ones(shop: Refold, admin: Connection) -> None:
    shop("deploy")
    write("purchase.v1", PURCHASE)
    write("purchase", {**PURCHASE, "required": ["amount", "currency"]}, version=2)
    refused = shop("deploy")
    assert refused.status == 2
    assert "events/purchase.json: purchase v2 does not take all events of v1:" in refused.err
    assert "  currency: could be missing, and is required" in refused.err
    assert "refold deploy --accept-incompatible purchase" in refused.err
    wrong = shop("deploy", "--accept-incompatible", "purchases")
    assert (wrong.status, "Did you mean purchase?" in wrong.err) == (2, True)
    assert admin.execute("SELECT count(*) FROM refold.contracts").fetchone() == (1,)
    assert shop("deploy", "--accept-incompatible", "purchase").status == 0
    ((arguments,),) = admin.execute(
        "SELECT arguments FROM refold.actions WHERE outcome = 'done' AND command = 'deploy'"
        " AND arguments ? 'accept_incompatible'"
    ).fetchall()
    assert arguments["accept_incompatible"] == ["purchase"]
    # What is registered is not compared again; a third version is, with the first too.
    assert shop("deploy").status == 0
    write("purchase.v2", {**PURCHASE, "required": ["amount", "currency"]}, version=2)
    write("purchase", {**PURCHASE, "required": ["currency"]}, version=3)
    refused = shop("deploy")
    assert "purchase v3 does not take all events of v1" in refused.err
    assert "v2:" not in refused.err


def test_what_cannot_be_decided_counts_as_incompatible(shop: Refold) -> None:
    shop("deploy")
    Path("events/purchase.json").unlink()
    write("purchase", {**PURCHASE, "properties": {**PURCHASE["properties"], "sku": {}}}, version=2)
    assert shop("deploy").status == 0
    code = {"type": "string", "pattern": "^[a-z]+$"}
    write("view", {**PURCHASE, "properties": {"amount": {"type": "string"}, "code": code}})
    assert shop("deploy").status == 0
    write(
        "view", {**PURCHASE, "properties": {"amount": {"type": "string"}, "code": {**code, "pattern": "^."}}}, version=2
    )
    refused = shop("deploy")
    assert "view v2 does perhaps not take all events of v1:" in refused.err
    assert "code: matched ^[a-z]+$, must match ^." in refused.err


def test_check_changes_nothing_and_tells_by_its_exit_status(shop: Refold, admin: Connection) -> None:
    assert shop("contracts", "check").status == 1
    assert admin.execute("SELECT FROM refold.contracts").rowcount == 0
    shop("deploy")
    same = shop("contracts", "check", "--json")
    assert (same.status, [one["action"] for one in same.json]) == (0, ["unchanged"])
    write("purchase", PURCHASE, level="off")
    assert shop("contracts", "check").status == 1
    write("purchase", {**PURCHASE, "required": []})
    assert shop("contracts", "check").status == 2
    assert admin.execute("SELECT level FROM refold.contracts").fetchall() == [("enforce",)]


def test_a_draft_is_a_contract_that_all_events_keep(shop: Refold, admin: Connection) -> None:
    admin.execute(
        """
        INSERT INTO refold.events (event_id, action, ts, metadata, version)
        SELECT 'e' || n, 'purchase', now(),
               jsonb_build_object('amount', n + 0.5, 'quantity', n, 'currency', (array['EUR', 'USD'])[1 + n % 2],
                                  'note', 'note ' || n, 'coupon', nullif(n % 2, 0))
               || CASE WHEN n > 50 THEN jsonb_build_object('tags', jsonb_build_array(n)) ELSE '{}' END, 3
        FROM generate_series(1, 100) AS n
        """
    )
    listed = shop("contracts", "infer")
    assert "purchase  " in listed.out
    drafted = shop("contracts", "infer", "--action", "purchase")
    assert drafted.json == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "x-refold": {"version": 3, "level": "warn"},
        "type": "object",
        "required": ["amount", "coupon", "currency", "note", "quantity"],
        "properties": {
            "amount": {"type": "number"},
            "coupon": {"type": ["null", "integer"]},
            "currency": {"enum": ["EUR", "USD"]},
            "note": {"type": "string"},
            "quantity": {"type": "integer"},
            "tags": {"type": "array"},
        },
    }
    assert "from 100 events of version 3" in drafted.err
    Path("events/purchase.json").write_text(drafted.out)
    assert shop("deploy").status == 0
    ((kept,),) = admin.execute(
        "SELECT bool_and(e.metadata @@ c.predicate) FROM refold.events AS e JOIN refold.contracts AS c"
        " USING (action, version)"
    ).fetchall()
    assert kept
    wrong = shop("contracts", "infer", "--action", "purchases")
    assert (wrong.status, "Did you mean purchase?" in wrong.err) == (2, True)
    assert shop("contracts", "infer", "--since", "1h", "--events", "10", "--json").json[0]["x-events"] == 10


def test_the_report_tells_what_is_not_covered_and_what_broke(shop: Refold) -> None:
    shop("deploy")
    append(shop, 1, "9")
    append(shop, 1, version=2)
    Path("events.ndjson").write_text(
        '{"id": "v", "action": "view", "ts": "2026-03-02T08:00:00Z"}\n'
        '{"id": "x", "action": "purchase", "ts": "2026-03-02T08:00:00Z", "metadata": {"amount": 1, "sku": "a"}}\n'
        '{"id": "y", "action": "purchase", "ts": "2026-03-02T08:00:00Z"}\n'
    )
    shop("ingest", "events.ndjson")
    told = shop("contracts", "report", "--json").json
    assert [(one["action"], one["version"]) for one in told["without_contract"]] == [("purchase", 2), ("view", 1)]
    assert told["fields_without_contract"] == [{"action": "purchase", "version": 1, "fields": ["sku"]}]
    assert [(one["version"], one["rule"], one["refused"], one["events"]) for one in told["violations"]] == [
        (1, "amount: is missing", True, 1),
        (1, "amount: must be a number", True, 1),
        (2, "version: unknown", False, 1),
    ]
    # It breaks two rules, and counts for the first.
    Path("events.ndjson").write_text(
        '{"id": "y", "action": "purchase", "ts": "2026-03-02T08:00:00Z", "metadata": {"amount": "1", "currency": "x"}}'
    )
    shop("ingest", "events.ndjson")
    told = shop("contracts", "report", "--json").json
    assert [(one["rule"], one["events"]) for one in told["violations"]] == [
        ("amount: must be a number", 2),
        ("amount: is missing", 1),
        ("version: unknown", 1),
    ]
    text = shop("contracts", "report", "--action", "purchase", "--since", "1h").out
    assert "amount: must be a number" in text
    assert "view" not in text
    assert [(one["action"], one["violations"]) for one in shop("contracts", "list", "--json").json] == [("purchase", 3)]
    assert "purchase        1  enforce" in shop("contracts", "list").out


def test_show_says_it_in_words(shop: Refold) -> None:
    assert "no contract: `refold contracts infer` drafts one" in shop("contracts", "list").err
    shop("deploy")
    shown = shop("contracts", "show", "purchase").out
    assert "amount must be a number" in shown
    assert 'currency must be one of "EUR", "USD"' in shown
    assert shop("contracts", "show", "purchase", "--json").json == PURCHASE
    assert "Did you mean purchase?" in shop("contracts", "show", "purchse").err
    assert "There is one for 1." in shop("contracts", "show", "purchase", "--version", "2").err
