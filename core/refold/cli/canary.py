"""`refold canary`: show candidates to some readers before they go live."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import bars, build_as_dict, tell_outcome, tidy
from refold.cli.command_group import CommandGroup
from refold.cli.durations import span
from refold.cli.output import as_json, line, note, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, Projections, folder, session
from refold.errors import InputError
from refold.prose import exact

if TYPE_CHECKING:
    from openfeature.client import OpenFeatureClient

    from refold.store.builds.build import Build
    from refold.store.canaries import Canary

canary = CommandGroup(
    no_args_is_help=True, help="Show candidates to some readers first, and let rules promote or abort them."
)
app.add_typer(canary, name="canary", rich_help_panel=METRICS)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A metric.")]
Steps = Annotated[str, typer.Option("--steps", metavar="P,P,…", help="Percent of readers, step by step.")]
Soak = Annotated[str, typer.Option("--soak", metavar="SPAN", help="Least time at each step, such as 30m.")]
Expect = Annotated[
    list[str] | None,
    typer.Option(
        "--expect",
        metavar="TEXT",
        help="Differences that are right; repeatable: identical, 'columns: users', 'modified <= 1 %', "
        "'days >= 2026-03-01'.",
    ),
]
ENDED = 5
"""Canaries that have ended and that `status` still lists."""


@canary.command()
def start(
    name: Name,
    steps: Steps = "1,10,50,100",
    soak: Soak = "1h",
    expect: Expect = None,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show the build that waits to go live to some readers, or let a held canary go on.

    metrics.NAME then shows the candidate to one part of the readers and the live build to the others; a query never
    mixes them. metrics_canary.NAME shows the candidate to everybody. If the columns differ, only metrics_canary.NAME
    shows it. The candidates that go live with it start together.

    Workers check the canary each minute. They abort it on new dead letters, on differences beyond --expect, and if the
    candidate is late or slow. When the last step has soaked, they promote it; without --expect a person does.

    \b
    Examples:
      refold canary start event_counts --expect 'columns: users'
      refold canary start event_counts --steps 0,100 --soak 1d --expect identical
    """
    from refold.engine.canary.canary import resume
    from refold.engine.canary.canary import start as begin
    from refold.store import canaries
    from refold.store.builds.compiled import Compiler

    with session(database_url, acts=True) as conn:
        running = canaries.of(conn, name)
        if running is not None and running.state == "held":
            found = resume(conn, running)
        else:
            found = begin(
                conn,
                Compiler(folder(projections, quiet=True)),
                name,
                steps=percents(steps),
                soak=span(soak),
                expect=expect or (),
            )
    if json:
        as_json(found.as_dict())
    else:
        tell_started(found)


@canary.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this metric.", show_default=False)] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show the canaries that run, why they wait, and the last ones that ended.

    \b
    Examples:
      refold canary status
      refold canary status event_counts --json
    """
    from refold.store import canaries

    with session(database_url, READERS) as conn:
        found = [one for one in canaries.latest(conn, ENDED) if name is None or name in one.names]
        verdicts = {one.canary_id: _verdicts(conn, one) for one in found} if json else {}
    if json:
        as_json([one.as_dict() | {"verdicts": verdicts[one.canary_id]} for one in found])
        return
    if not found:
        note("no canary: `refold deploy --canary`, or `refold canary start NAME`")
        return
    table(
        ("METRICS", "STATE", "READERS", "STEP", "SINCE", "EXPECTED", "WHY"),
        [
            (
                ", ".join(one.names),
                one.state,
                _readers(one),
                f"{one.step} of {len(one.steps)}",
                one.stepped_at if one.ended_at is None else one.ended_at,
                "; ".join(one.expect) or None,
                one.because,
            )
            for one in found
        ],
        spare=("SINCE", "EXPECTED"),
    )
    for one in found:
        _tell_unexposed(one)


@canary.command()
def hold(
    name: Name,
    because: Annotated[str, typer.Option("--because", metavar="TEXT", help="The reason, for others.")] = "",
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Keep a canary at its step. The rules still abort it; `refold canary start` lets it go on.

    \b
    Examples:
      refold canary hold event_counts --because 'the numbers of March are checked'
    """
    from refold.engine.canary.canary import hold as keep

    with session(database_url, acts=True) as conn:
        found = keep(conn, name, because or "held by a person")
    if json:
        as_json(found.as_dict())
    else:
        line(f"held, seen by {found.readers}: {', '.join(found.names)}")
        _tell_unexposed(found)


@canary.command()
def limit(
    name: Name,
    percent: Annotated[int, typer.Argument(metavar="PERCENT", help="From 0 to 100; 100 lifts the limit.")],
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Let no more than this percentage of readers see a canary, whatever its step. It holds at once.

    0 takes the candidate from all readers but those who chose it themselves, and keeps it for another try. The rules
    still abort the canary; they take no step beyond the limit.

    \b
    Examples:
      refold canary limit event_counts 5
      refold canary limit event_counts 100
    """
    from refold.engine.canary.canary import limit as set_limit

    with session(database_url, acts=True) as conn:
        found = set_limit(conn, name, percent)
    if json:
        as_json(found.as_dict())
    else:
        line(f"seen by {found.readers}: {', '.join(found.names)}")
        _tell_unexposed(found)


@canary.command()
def follow(
    name: Name,
    provider: Annotated[
        str,
        typer.Option("--provider", metavar="MODULE:NAME", help="A provider of OpenFeature, or what returns one."),
    ],
    flag: Annotated[
        str | None,
        typer.Option("--flag", metavar="KEY", help="The flag: a whole number. Default: metrics.NAME.percent."),
    ] = None,
    every: Annotated[str, typer.Option("--every", metavar="SPAN", help="Time between two looks.")] = "30s",
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Limit a canary to the percentage that a feature flag says, until the canary ends.

    Without an answer the last limit stays. Needs the extra: pip install 'refold[flags]'.

    \b
    Examples:
      refold canary follow event_counts --provider my_flags:provider
      refold canary follow event_counts --provider my_flags:provider --every 10s
    """
    if find_spec("openfeature") is None:
        raise InputError("`refold canary follow` needs OpenFeature", remedy="pip install 'refold[flags]'")
    from openfeature import api

    from refold.flags.follow import load_provider

    pause = span(every).total_seconds()
    key = flag or f"metrics.{name}.percent"
    api.set_provider_and_wait(load_provider(provider, Path.cwd()), "refold")
    client = api.get_client("refold")
    try:
        goes_on = _follow(database_url, client, key, name)
        while goes_on and not once:
            time.sleep(pause)
            try:
                goes_on = _follow(database_url, client, key, name)
            except psycopg.OperationalError as error:
                note(f"the database cannot be asked: {error}")
    finally:
        api.shutdown()


@canary.command()
def promote(
    name: Name,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make the candidates live for all readers, whatever the rules say.

    \b
    Examples:
      refold canary promote event_counts
    """
    from refold.engine.canary.canary import promote as go_live

    with session(database_url, acts=True) as conn:
        with bars() as report:
            builds: list[Build] = go_live(conn, folder(projections, quiet=True), name, report)
        tidy(conn)
    if json:
        as_json({"builds": [build_as_dict(build) for build in builds]})
    else:
        tell_outcome(builds, promoted=True, nothing="A worker has promoted it.")


@canary.command()
def abort(
    name: Name,
    because: Annotated[str, typer.Option("--because", metavar="TEXT", help="The reason, for others.")] = "",
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """End a canary: every reader sees the live builds, and the candidates are retired.

    \b
    Examples:
      refold canary abort event_counts --because 'the filter is wrong'
    """
    from refold.engine.canary.canary import abort as end
    from refold.store.builds.compiled import Compiler

    with session(database_url, acts=True) as conn:
        compiler = Compiler(folder(projections, quiet=True))
        found = end(conn, compiler, name, because or "aborted by a person")
    if json:
        as_json({"aborted": found.names})
    else:
        line(f"aborted: {', '.join(found.names)}")


def _follow(database_url: str | None, client: OpenFeatureClient, flag: str, name: str) -> bool:
    """Look at a flag once; return whether the canary goes on."""
    from refold.engine.canary.canary import limit as set_limit
    from refold.flags.follow import asked
    from refold.store import canaries

    percent, why = asked(client, flag, name)
    if percent is None:
        note(f"{flag} has no answer, so the limit stays: {why}")
    with session(database_url) as conn:
        found = canaries.of(conn, name)
        if found is None:
            line(f"no canary of {name} runs any more")
            return False
        if percent is not None and percent != found.at_most:
            found = set_limit(conn, name, percent)
            line(f"{flag} says {percent} %: seen by {found.readers}")
    return True


def percents(text: str) -> list[int]:
    """Parse percentages such as 1,10,50,100.

    Raises:
        InputError: the text is not a list of whole numbers.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"{text!r} is not a list of percentages", remedy="Write for example --steps 1,10,50,100."
        ) from error


def tell_started(found: Canary) -> None:
    """Print what a canary shows, and what comes next."""
    line(f"canary: {', '.join(found.names)}, seen by {found.readers} for at least {exact(found.soak)}")
    _tell_unexposed(found)
    if not found.expect:
        note("without --expect no rule judges the differences, and a person promotes: `refold canary promote`")
    line("Workers check it each minute: `refold canary status`.")


def _readers(one: Canary) -> str | None:
    if one.ended_at is not None:
        return None
    return f"{one.percent} %" if one.exposed else "none"


def _tell_unexposed(found: Canary) -> None:
    if found.apart and found.ended_at is None:
        note(f"only metrics_canary shows {', '.join(found.apart)}: its columns differ, or no build of it is live")


def _verdicts(conn: psycopg.Connection, one: Canary) -> dict[str, Any] | None:
    from refold.store import canaries

    try:
        return canaries.verdicts(conn, one.canary_id)
    except psycopg.errors.InsufficientPrivilege:
        # An observer sees no rows.
        return None
