"""`refold why` and `refold where`: the events behind a row, and the rows that an event is in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refold.cli.app import DRIFT, TRUST, app
from refold.cli.bars import progress
from refold.cli.output import as_json, line, note, table
from refold.cli.session import EVIDENCE, AsJson, DatabaseUrl, Projections, folder, session
from refold.errors import InputError
from refold.model.event.exact_json import document
from refold.prose import counted

if TYPE_CHECKING:
    from refold.inspect.lineage.where import Found, InMetric, InSink
    from refold.inspect.lineage.why import Answer, Behind, Did

NULL = "NULL"


@app.command(rich_help_panel=TRUST)
def why(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="A live projection.")],
    key: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="The key of the row. Further columns choose among rows of one key."),
    ] = None,
    null: Annotated[
        list[str] | None, typer.Option("--null", metavar="COLUMN", help="A column of the key that is NULL; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most events to show.")] = 20,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to an answer that reads many events.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Explain a row: show the events behind it, and count it again from them.

    The command reads the row and its events in one snapshot, as of the cursor of the metric. Dead letters do not
    count. If the answer would read many events, the command says so, and runs only with --yes. The exit status is 1 if
    the row differs from its events.

    \b
    Examples:
      refold why event_counts day=2025-11-28 action=purchase segment=gold
      refold why funnel_stages user_id=user-00001 --limit 100
      refold why event_counts day=2025-11-28 action=purchase --null segment
      refold why enriched_events event_id=t1-00000-0 --json
    """
    from refold.inspect.lineage.cost import Bound
    from refold.inspect.lineage.why import why as explained
    from refold.store.builds.compiled import Compiler

    given = _given(key or [], null or [])
    with session(database_url, EVIDENCE) as conn:
        compiler = Compiler(folder(projections, quiet=True))
        answer = explained(conn, compiler, metric, given, shown=limit, bound=Bound(agreed=yes))
    if json:
        as_json(answer.as_dict())
    else:
        _show(answer)
    if not answer.same:
        raise typer.Exit(DRIFT)


@app.command(rich_help_panel=TRUST)
def where(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The id of an event.")],
    archive: Annotated[
        bool, typer.Option("--archive", help="Read the archive for an event that was purged from the log.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to an answer that reads many events.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Find an event: show the event, the rows of all metrics that it is in, and why it is in no row of the others.

    The command also shows its dead letters, rejected input with its id, and the sinks of these metrics. Of duplicates
    refold keeps the number, and not the ids.

    Of an event that was purged from the log the ledger keeps a hash of the id. With --archive the command reads file
    after file of the archive until one has the event. It then says which, and which rows the event is in.

    \b
    Examples:
      refold where t1-00000-0
      refold where t1-00000-0 --archive
      refold where order-7-paid --json
    """
    from refold.inspect.lineage.cost import Bound
    from refold.inspect.lineage.where import where as found_where
    from refold.store.builds.compiled import Compiler

    with session(database_url, EVIDENCE) as conn:
        compiler = Compiler(folder(projections, quiet=True))
        with progress() as bars:
            task = bars.add_task("reading the archive", total=None, note="", visible=archive)
            found = found_where(
                conn,
                compiler,
                event_id,
                bound=Bound(agreed=yes),
                archive=archive,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )
    if json:
        as_json(found.as_dict())
    else:
        _show_found(found)


def _given(pairs: Sequence[str], nulls: Sequence[str]) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for name, value in [*map(_pair, pairs), *((name, None) for name in nulls)]:
        if name in given:
            raise InputError(f"{name} is given twice", remedy="Give each column once.")
        given[name] = value
    return given


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(
            f"{text} is not of the form column=value",
            remedy="Write the key as in: refold why METRIC day=2026-03-02 action=buy. For NULL write --null COLUMN.",
        )
    return name, value


def _show(answer: Answer) -> None:
    line(f"{answer.metric}  {_key(answer.key)}", "bold")
    for row in answer.rows:
        line()
        names = list(row.shown or row.counted or {})
        if answer.standing:
            table(("COLUMN", "ROW"), [(name, _cell(row.shown, name)) for name in names if name not in answer.key])
            continue
        cells = [
            (name, _cell(row.shown, name), "=" if _cell(row.shown, name) == _cell(row.counted, name) else "≠",
             _cell(row.counted, name))
            for name in names
            if name not in answer.key or row.shown is None or row.counted is None
        ]  # fmt: skip
        if cells:
            table(("COLUMN", "ROW", "", "COUNTED AGAIN"), cells)
    line()
    line(_verdict(answer), "" if answer.same else "bold red")
    for sentence in _remarks(answer):
        line(sentence)
    if answer.behind:
        line()
        _show_events(answer)


def _key(key: Any) -> str:
    return "  ".join(f"{name}={NULL if value is None else value}" for name, value in key.items())


def _cell(row: dict[str, Any] | None, name: str) -> str:
    if row is None:
        return "no row"
    value = row[name]
    return NULL if value is None else value if isinstance(value, str) else _json_text(value)


def _json_text(value: Any) -> str:
    """Return a value of a row as its JSON text."""
    return document(value, str)


def _verdict(answer: Answer) -> str:
    of = "the log" if answer.stream == "events" else answer.stream
    events = counted(answer.events, "event" if answer.stream == "events" else "row")
    if answer.purged:
        of += " and the metric's base"
    if answer.standing:
        return (
            "The event of this row was purged from the log: the row stands as it was made."
            " `refold reconcile --archive` compares it with the archive."
        )
    if answer.same:
        if answer.hidden:
            return f"The same: HAVING hides this row, which {events} of {of} make."
        if not answer.rows:
            return f"The same: there is no row, and {events} of {of} make none."
        return f"The same: counted again from {events} of {of}."
    tables = f" Rows differ in {', '.join(answer.differ)}." if answer.differ else ""
    return f"Not the same: {events} of {of} make another row.{tables} Run `refold reconcile {answer.metric}`."


def _remarks(answer: Answer) -> Iterator[str]:
    for one in answer.told:
        if one.how == "adds":
            others = "" if one.events == answer.events else "; the others bring none, or one that was there"
            yield f"{counted(one.events, 'event')} added a value to {one.column}{others}."
    if answer.purged:
        yield (
            "Events that were purged from the log count too, in the metric's base:"
            " `refold reconcile --archive` proves it."
            " So which event brought a value first, or an extreme, is not told."
        )
    if answer.kept_from is not None:
        yield f"The metric keeps its rows from {answer.kept_from} on."
    if answer.in_run:
        yield "The metric is in the middle of a run: only the events that it has applied count."
    if answer.dead_letters:
        yield (
            f"The metric leaves out {counted(answer.dead_letters, 'dead letter')}, here or in other rows:"
            f" `refold deadletters list {answer.metric}`."
        )
    if answer.stream != "events" and answer.behind:
        yield f"Where a row of {answer.stream} comes from: `refold why {answer.stream} event_id=ROW`."


def _show_events(answer: Answer) -> None:
    chained = answer.stream != "events"
    if len(answer.behind) < answer.events:
        note(f"{len(answer.behind):,} of {counted(answer.events, 'event')}; --limit shows more")
    table(
        (*(("ROW",) if chained else ()), "EVENT", "TS", "USER", "ACTION", "WHAT IT DID"),
        [(*((one.row_id,) if chained else ()), *_event(one)) for one in answer.behind],
        spare=("TS",),
        null=NULL,
    )


def _event(one: Behind) -> tuple[object, ...]:
    return (
        "not in the log any more" if one.event_id is None else one.event_id,
        one.ts,
        one.user_id,
        one.action,
        "; ".join(_did(did) for did in one.did),
    )


def _did(did: Did) -> str:
    value = did.value if isinstance(did.value, str) else _json_text(did.value)
    if did.how == "reaches":
        return f"reaches step {did.step} of {did.column}"
    if did.how == "gives":
        plus = "+" if isinstance(did.value, int | Decimal) and did.value >= 0 else ""
        return f"{did.column} {plus}{value}"
    return f"adds {value} to {did.column}" if did.how == "adds" else f"{did.how} {did.column}: {value}"


def _show_found(found: Found) -> None:
    line(f"event {found.event_id}", "bold")
    if found.purged is not None:
        line(_of_purged(found))
    if found.event is None and found.purged is None:
        why = (
            "The ledger has its id, but the log has lost it: run `refold scrub`."
            if found.registered
            else ("It is not in the log; input with its id was rejected.")
        )
        line(why)
    if found.event is not None:
        event = found.event
        line(f"{event.action} by {event.user_id or 'no user'} at {event.ts.isoformat(sep=' ')}")
        line(
            f"recorded at {event.recorded_at.isoformat(sep=' ')}; position {event.position:,}, version {event.version}"
        )
        line(_json_text(event.metadata))
    if found.metrics:
        line()
        rows = [cells for one in found.metrics for cells in _in_metric(one)]
        table(("METRIC", "STATE", "ROW OR REASON"), rows)
    if found.dead_letters:
        line()
        letters = [(one.dead_letter_id, one.metric, one.state, one.attempts, one.error) for one in found.dead_letters]
        table(("DEAD LETTER", "METRIC", "STATE", "ATTEMPTS", "ERROR"), letters)
    if found.refused:
        line()
        refused = [(one.answer, one.source, one.line, one.times, one.reason) for one in found.refused]
        table(("REJECTED", "SOURCE", "LINE", "TIMES", "REASON"), refused)
    if found.sinks:
        line()
        table(("SINK", "METRIC", "GRAIN", "GIVEN"), [(s.sink, s.metric, s.grain, _given_by(s)) for s in found.sinks])


def _of_purged(found: Found) -> str:
    """Say what is known of an event that was purged."""
    purged = found.purged
    assert purged is not None
    if purged.erased and purged.file is not None:
        return f"It was purged from the log, and anonymised; the archive has what is left of it in {purged.file}."
    if purged.erased and purged.looked:
        return "It was erased: nothing but the hash of its id is kept, and its id is refused for ever."
    if purged.erased:
        return (
            "It was erased, and its id is refused for ever. --archive reads the archive for what an anonymised event"
            " has left."
        )
    if purged.file is not None:
        return f"It was purged from the log, and metrics count it; the archive has it in {purged.file}."
    if purged.looked:
        return "It was purged from the log, and no file of the archive has it: run `refold archive verify --deep`."
    return "It was purged from the log, and metrics count it. --archive reads the archive for it."


def _in_metric(one: InMetric) -> Iterator[tuple[str, str, str]]:
    if not one.rows:
        yield one.metric, one.state, one.because or ""
    for row in one.rows:
        yield one.metric, one.state, _key(row.key) + ("" if row.shown else "  (not shown: there is no such row now)")


def _given_by(sink: InSink) -> str:
    if sink.given is None:
        return "by keys: `refold sinks show` tells how far it is"
    return "yes" if sink.given else "not yet"
