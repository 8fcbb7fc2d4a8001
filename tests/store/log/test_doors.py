"""One meaning, whatever the door: Python, SQL and files answer alike, and store alike."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refold import Answer, Log, Receipt, append
from refold.model.event.source_event import SourceEvent, metadata_json, parse_json_line
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source
from refold.sources.files.run import Tally, ingest
from refold.store.log.append import BULK
from tests.support import event_cases
from tests.support.event_cases import EventCase

Connection = psycopg.Connection[Any]


def by_python(conn: Connection, raw: str) -> tuple[str, str | None]:
    """A program that reads JSON lines as it should and appends what it reads."""
    try:
        event = parse_json_line(raw)
    except ValueError as error:
        return "invalid", str(error)
    (receipt,) = append(conn, [event])
    return str(receipt.answer), receipt.reason


def by_sql(conn: Connection, raw: str) -> tuple[str, str | None]:
    try:
        with conn.transaction():
            row = conn.execute("SELECT answer, reason FROM refold.append(('[' || %s || ']')::jsonb)", (raw,)).fetchone()
    except (psycopg.errors.DataError, psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex) as error:
        return "refused", str(error)
    assert row is not None
    return str(row[0]), row[1]


def wrong(case: EventCase, answer: str, reason: str | None, expected: str) -> bool:
    if answer != expected:
        return True
    same_rule = expected == case.answer == "invalid"
    return same_rule and case.reason is not None and case.reason not in (reason or "")


@pytest.mark.parametrize("door", [by_python, by_sql])
def test_cases(producer: Connection, door: Callable[[Connection, str], tuple[str, str | None]]) -> None:
    found = []
    for case in event_cases.load():
        with producer.transaction(force_rollback=True):
            answer, reason = door(producer, case.raw)
        expected = case.jsonb if door is by_sql else case.answer
        if wrong(case, answer, reason, expected):
            found.append((case.name, expected, case.reason, answer, reason))
        elif answer in ("conflict", "invalid") and (len(reason or "") > 300 or "\n" in (reason or "")):
            found.append((case.name, "one short line", None, answer, reason))
    assert found == []


def test_cases_accepted_by_both_are_stored_alike(producer: Connection) -> None:
    """The second door calls what came through the first a duplicate; and in bulk too."""
    found = []
    for case in event_cases.load():
        if case.answer != "accepted":
            continue
        for first, second in ((by_python, by_sql), (by_sql, by_python)):
            with producer.transaction(force_rollback=True):
                answers = first(producer, case.raw)[0], second(producer, case.raw)[0]
            if answers != ("accepted", "duplicate"):
                found.append((case.name, first, answers))
    assert found == []


TAKEN_FROM_A_FILE = {
    "two objects",
    "ts blank before the offset",
    "ts small t",
    "ts small z",
    "ts decimal comma",
    "ts compact",
}
"""Cases that are no events elsewhere: exports of other systems write so."""


def of_a_file(case: EventCase) -> EventCase:
    """What becomes of a case in a file of which nobody said what its numbers count."""
    if case.name in TAKEN_FROM_A_FILE:
        return replace(case, answer="accepted", reason=None)
    if case.answer == "accepted":
        ts = parse_json_line(case.raw)["ts"]
        if type(ts) is int and not 631_152_000_000 <= ts < 7_258_118_400_000:
            return replace(case, answer="invalid", reason="as milliseconds: name its format")
    return case


def test_cases_in_a_file(database_url: str, admin: Connection) -> None:
    """Many of them have one id; so what is no event is rejected as invalid, and nothing else is.

    A file alone may hold seconds where milliseconds are meant: there a number from before 1990 needs --ts-format.
    """
    cases = [of_a_file(case) for case in event_cases.load()]
    file = io.BytesIO("".join(case.raw + "\n" for case in cases).encode())
    with open_source("-", format="jsonl", name="cases", stdin=file) as source, Log(database_url) as log:
        tally = ingest(log, source, Mapper(Mapping(), source), Tally(), batch=50)
    two_in_a_line = 1
    invalid = sum(case.answer == "invalid" for case in cases)
    assert (tally.received, tally.invalid) == (len(cases) + two_in_a_line, invalid)
    rows = admin.execute("SELECT line, reason FROM refold.rejected WHERE answer = 'invalid' ORDER BY line").fetchall()
    expected = [(at, case) for at, case in enumerate(cases, 1) if case.answer == "invalid"]
    assert [line for line, _ in rows] == [at for at, _ in expected]
    assert [
        (case.name, reason)
        for (_, case), (_, reason) in zip(expected, rows, strict=True)
        if (case.reason or "") not in reason
    ] == []


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
numbers = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
instants = st.datetimes(
    datetime(1, 1, 2),
    datetime(9999, 12, 30),
    timezones=st.builds(
        timezone, st.timedeltas(timedelta(hours=-15), timedelta(hours=15)).map(lambda d: d - d % timedelta(minutes=1))
    ),
)
valid_events = st.builds(
    SourceEvent,
    id=texts,
    user_id=st.none() | texts,
    action=texts,
    ts=instants,
    metadata=st.dictionaries(texts, values, max_size=4),
    version=st.integers(1, 32_767),
)


def in_python(conn: Connection, event: SourceEvent, offset: timedelta) -> Receipt:
    return append(conn, [event])[0]


def in_bulk(conn: Connection, event: SourceEvent, offset: timedelta) -> Receipt:
    others = [SourceEvent(id=f"{event.id}-{n}", action="x", ts=event.ts) for n in range(BULK)]
    return append(conn, [event, *others])[0]


def in_sql(conn: Connection, event: SourceEvent, offset: timedelta) -> Receipt:
    """As another program may write the same event: other offset, other order of keys, escapes for all but ASCII."""
    fields = {
        "version": event.version,
        "ts": event.ts.astimezone(timezone(offset)).isoformat(sep=" "),
        "action": event.action,
        "user_id": event.user_id,
        "id": event.id,
    }
    backwards = dict(reversed(event.metadata.items()))
    text = json.dumps(fields)[:-1] + ', "metadata": ' + metadata_json(backwards) + "}"
    row = conn.execute(
        "SELECT event_id, answer, reason FROM refold.append(('[' || %s || ']')::jsonb)", (text,)
    ).fetchone()
    assert row is not None
    return Receipt(row[0], Answer(row[1]), row[2])


DOORS = (in_python, in_bulk, in_sql)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(event=valid_events, first=st.sampled_from(DOORS), minutes=st.integers(-15 * 60, 15 * 60))
def test_a_valid_event_is_the_same_through_all_doors(
    producer: Connection, event: SourceEvent, first: Callable[..., Receipt], minutes: int
) -> None:
    offset = timedelta(minutes=minutes)
    with producer.transaction(force_rollback=True):
        assert first(producer, event, offset).answer is Answer.accepted
        for door in DOORS:
            assert door(producer, event, offset) == Receipt(event.id, Answer.duplicate)
        producer.execute("RESET ROLE")
        row = producer.execute(
            "SELECT user_id, action, ts, metadata::text, version FROM refold.events WHERE event_id = %s", (event.id,)
        ).fetchone()
        producer.execute("SET ROLE refold_producer")
    assert row is not None
    assert (*row[:3], row[4]) == (event.user_id, event.action, event.ts, event.version)
    assert json.loads(row[3], parse_float=Decimal) == json.loads(metadata_json(event.metadata), parse_float=Decimal)


def test_instants_of_both_agree_to_the_microsecond(admin: Connection) -> None:
    """Also where a double could not hold them: centuries away from 2000."""
    # East of Greenwich the last of them has no datetime in Python.
    admin.execute("SET TimeZone = 'UTC'")
    for ms in (-62_135_596_800_000, -62_135_596_799_999, -1, 0, 1, 951_782_400_000, 253_402_300_799_999):
        expected = SourceEvent.model_validate({"id": "a", "action": "b", "ts": ms}).ts
        assert admin.execute("SELECT refold.parse_timestamp(to_jsonb(%s::bigint))", (ms,)).fetchone() == (expected,)
    for text in ("0001-01-01T00:00:00.000001Z", "9999-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999-00:00"):
        expected = SourceEvent.model_validate({"id": "a", "action": "b", "ts": text}).ts
        assert admin.execute("SELECT refold.parse_timestamp(to_jsonb(%s::text))", (text,)).fetchone() == (
            expected.astimezone(UTC),
        )
