"""`refold explain`: how refold keeps a projection up to date, why, and the SQL that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.syntax import Syntax

from refold.cli.app import METRICS, app
from refold.cli.output import as_json, block, line, note, out, table
from refold.cli.session import INSPECTORS, AsJson, DatabaseUrl, Projections, folder, session
from refold.cli.view_costs import ViewCost, cost_of, view_file
from refold.errors import DefinitionError
from refold.model.sql_text import EVERYTHING
from refold.prose import counted
from refold.suggest import did_you_mean
from refold.visible import visible

if TYPE_CHECKING:
    from refold.model.projection.definition import Definition, Loading
    from refold.model.projection.plan import Plan
    from refold.model.stream.page_sql import Stream
    from refold.model.upkeep.statements import Statements


@dataclass(frozen=True, slots=True)
class Explanation:
    """A plan, its source, and its SQL.

    Args:
        plan: the plan.
        source: the file, or the table of the build.
        fingerprint: the fingerprint of the definition.
        statements: the SQL.
        kept_from: the first day whose rows a build keeps; None: all.
        kept: the condition on events for that; None: there is none.
    """

    plan: Plan
    source: str
    fingerprint: str
    statements: Statements
    kept_from: str | None = None
    kept: str | None = None

    def sections(self) -> list[tuple[str, str, str]]:
        """Return name, purpose and SQL of every statement that refold runs."""
        of = self.statements
        found = [
            ("create", "the tables of a build", _joined(*of.create, *of.keys)),
            ("load", "the first load, in large steps", _joined(*of.load)),
            ("index", "created after the first load", _joined(*of.indexes)),
            ("page", "applies the next events", of.page),
            ("backlog", "applies the next events of a backlog", of.backlog),
        ]
        for relation in of.relations:
            audit = relation.differences(EVERYTHING, EVERYTHING)
            found.append(("audit", f"finds rows of {relation.table} that differ from the query", audit))
            heal = _joined(relation.delete(), relation.insert())
            found.append(("heal", f"recomputes the keys of {relation.table} that differ", heal))
        found.append(("view", f"analysts read it as metrics.{self.plan.name}", of.view))
        return [(name, purpose, sql.replace("%%", "%")) for name, purpose, sql in found if sql]


@app.command(rich_help_panel=METRICS)
def explain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A projection, or a view in sql/views.")],
    projections: Projections = None,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Explain the live build in the database instead of the file.")
    ] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show how refold keeps a metric up to date, why, and the SQL that it runs.

    The command reads the file and needs no database, unless --deployed is given. Parameters appear as %(name)s: the
    build's cursor, bounds and limits. For a view in sql/views the command shows the cost of each read, and the metric
    that would reduce it.

    \b
    Examples:
      refold explain event_counts
      refold explain event_counts --deployed
      refold explain event_counts --json
      refold explain funnel_conversion --deployed
    """
    from refold.model.projection.definition import load

    chosen = folder(projections, quiet=True)
    file = _file_of_view(name, chosen)
    if file is not None:
        loading = load(chosen)
        view = of_view(file, loading.definitions, database_url, deployed=deployed)
        if json:
            as_json(view.as_dict())
        else:
            view.show()
        _tell_others(loading)
        return
    if deployed:
        explanation = of_build(name, chosen, database_url)
    else:
        loading = load(chosen)
        explanation = of_file(name, chosen, loading)
    if json:
        as_json(_as_dict(explanation))
    else:
        _show(explanation)
    if not deployed:
        _tell_others(loading)


def _tell_others(loading: Loading) -> None:
    """Print how many files have mistakes, which did not matter here."""
    wrong = len(loading.wrong_files())
    if wrong:
        told = f"{counted(wrong, 'other file')} {'has' if wrong == 1 else 'have'} mistakes"
        note(f"{told}; `refold deploy --dry-run` shows them")


def of_file(name: str, directory: Path, loading: Loading) -> Explanation:
    """Explain a projection as its file defines it; its tables are named as in a first build.

    Args:
        name: the projection.
        directory: folder of projections, for messages.
        loading: the loaded folder.

    Raises:
        DefinitionError: the file does not exist, or it or the file of a stream that it reads is wrong.
    """
    from refold.model.stream.page_sql import LOG_STREAM, Stream
    from refold.model.upkeep.names import table_name

    definition = loading.only(name)
    if definition is None:
        raise DefinitionError(
            f"there is no projection {name}{_similar(name, list(loading.names))}",
            path=directory,
            remedy=f"There are: {', '.join(sorted(loading.names)) or 'none'}. --deployed explains a live build.",
        )
    stream = LOG_STREAM
    if definition.upstream is not None:
        above = loading.definitions[definition.upstream]
        stream = Stream(f'refold_builds."{table_name(above.name, above.fingerprint, 1)}"', ordinal=True)
    return Explanation(definition.plan, str(definition.path), definition.fingerprint, _statements(definition, stream))


def _file_of_view(name: str, directory: Path) -> Path | None:
    """Return the file of an analysts' view beside the projections; None if it has none, or is a projection."""
    from refold.model.projection.definition import EXTENSIONS
    from refold.model.projection.files import files_named

    return None if files_named(directory, name, *EXTENSIONS) else view_file(directory, name)


def of_view(file: Path, definitions: Mapping[str, Definition], url: str | None, *, deployed: bool) -> ViewCost:
    """Explain an analysts' view.

    Args:
        file: file of the view.
        definitions: the projections of the same project.
        url: URL of the database.
        deployed: whether to measure the cost of a read in the database.
    """
    from refold.engine.publish.scans import scans

    found = None
    if deployed:
        with session(url) as conn:
            found = scans(conn, [file.stem])
    return cost_of(file, definitions, found)


def of_build(name: str, directory: Path, url: str | None) -> Explanation:
    """Explain the live build of a projection."""
    from refold.model.stream.slices import slice_day
    from refold.model.upkeep.retained import condition
    from refold.store.builds.build import by_id, live_builds
    from refold.store.builds.compiled import Compiler, stream_of
    from refold.store.builds.lookup import known

    with session(url, INSPECTORS) as conn:
        build = known(name, {one.projection: one for one in live_builds(conn)})
        compiled = Compiler(directory).of(conn, build)
        if build.upstream_id is not None:
            assert compiled.stream == stream_of(by_id(conn, build.upstream_id))
    kept_from = kept = None
    if build.retained_from is not None:
        kept_from, kept = slice_day(build.retained_from), condition(compiled.plan, build.build_id)
    table_ = f"refold_builds.{build.table_name}"
    return Explanation(compiled.plan, table_, build.fingerprint, compiled.statements, kept_from, kept)


def _statements(definition: Definition, stream: Stream) -> Statements:
    from refold.model.upkeep.generate import generate
    from refold.model.upkeep.names import table_name
    from refold.model.upkeep.transform import statements as transform_statements

    own = table_name(definition.name, definition.fingerprint, 1)
    if definition.transform is not None:
        return transform_statements(definition.transform, stream, own)
    return generate(definition.plan, stream, own)


def _similar(name: str, names: list[str]) -> str:
    hint = did_you_mean(name, names)
    return f".{hint}" if hint else ""


def _joined(*statements: str) -> str:
    return ";\n\n".join(statements)


def _facts(explanation: Explanation) -> list[tuple[str, object]]:
    plan = explanation.plan
    return [
        ("projection", plan.name),
        ("what", plan.description),
        ("from", explanation.source),
        ("fingerprint", explanation.fingerprint),
        ("upkeep", plan.upkeep),
        ("because", plan.because),
        ("reads", f"{plan.stream} ({', '.join(plan.reads)})"),
        ("key", ", ".join(part.name for part in plan.key)),
        ("kept from", explanation.kept_from and f"{explanation.kept_from} (`refold retain`), as if WHERE had:"),
        ("", explanation.kept),
        ("aggregates", ", ".join(f"{p.name} ({p.combine})" for p in plan.partials)),
    ]


def _show(explanation: Explanation) -> None:
    for label, value in _facts(explanation):
        if value:
            block(f"{label:<12}{value}")
    line()
    table(("COLUMN", "KEPT AS", "WHAT"), [(c.name, c.sql, c.comment) for c in explanation.plan.columns])
    for name, purpose, sql in explanation.sections():
        line()
        line(f"-- {name}: {purpose}", "bold cyan")
        if out.is_terminal:
            out.print(Syntax(visible(sql, lines=True), "postgresql", background_color="default", word_wrap=True))
        else:
            block(sql)


def _as_dict(explanation: Explanation) -> dict[str, object]:
    plan = explanation.plan
    return {
        "projection": plan.name,
        "description": plan.description,
        "source": explanation.source,
        "fingerprint": explanation.fingerprint,
        "upkeep": plan.upkeep,
        "because": plan.because,
        "reads": plan.stream,
        "kept_from": explanation.kept_from,
        "kept": explanation.kept,
        "key": [{"name": part.name, "sql": part.sql} for part in plan.key],
        "columns": [{"name": c.name, "sql": c.sql, "comment": c.comment} for c in plan.columns],
        "statements": [{"name": name, "purpose": what, "sql": sql} for name, what, sql in explanation.sections()],
    }
