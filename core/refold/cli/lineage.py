"""`refold lineage`: the path of events, from captures over the log, streams and metrics to views and sinks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import METRICS, app
from refold.cli.output import as_json, block, line, table
from refold.cli.session import EVIDENCE, DatabaseUrl, Projections, folder, session

if TYPE_CHECKING:
    from refold.inspect.lineage.graph import Graph, Node
    from refold.model.lineage.columns import ColumnLineage, Source, Type


class Format(StrEnum):
    """Formats of the graph."""

    text = "text"
    json = "json"
    dot = "dot"
    openlineage = "openlineage"


@app.command(rich_help_panel=METRICS)
def lineage(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only what is above and below this metric, view or sink.")
    ] = None,
    columns: Annotated[bool, typer.Option("--columns", help="Show what is behind each column, too.")] = False,
    format_: Annotated[
        Format, typer.Option("--format", help="text; json; dot for Graphviz; openlineage, one event on each line.")
    ] = Format.text,
    projections: Projections = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Show the path of events: captures, the log, streams, metrics, analysts' views and sinks.

    What is behind a column is found in the SQL. A transform is observed: the command changes one field of an event at
    a time, for 20 events, which gives a lower bound. What cannot be told is shown as unknown.

    \b
    Examples:
      refold lineage
      refold lineage event_counts --columns
      refold lineage --format dot | dot -Tsvg > lineage.svg
      refold lineage --format openlineage
    """
    from refold.engine.lineage.openlineage import snapshot_events
    from refold.inspect.lineage.graph import as_dot, lineage_graph
    from refold.store.builds.compiled import Compiler

    with session(database_url, EVIDENCE) as conn:
        compiler = Compiler(folder(projections, quiet=True))
        graph = lineage_graph(conn, compiler, columns=columns or format_ is Format.openlineage)
        if name is not None:
            graph = graph.around(name)
        events = snapshot_events(conn, graph, whole=name is None) if format_ is Format.openlineage else []
    if format_ is Format.json:
        as_json(graph.as_dict())
    elif format_ is Format.dot:
        block(as_dot(graph))
    elif format_ is Format.openlineage:
        for event in events:
            typer.echo(json.dumps(event))
    else:
        _show(graph, columns=columns)


def _show(graph: Graph, *, columns: bool) -> None:
    below: dict[str, list[str]] = {}
    for edge in graph.edges:
        below.setdefault(edge.above, []).append(edge.below)
    known = {node.id: node for node in graph.nodes}
    reached = {edge.below for edge in graph.edges}
    for node in graph.nodes:
        # Of several captures above it, the log follows the last.
        if node.id not in reached:
            for text in _tree(node, known, below, 0):
                line(text)
    if columns:
        for node in graph.nodes:
            if node.lineage is not None:
                line()
                _show_columns(node, node.lineage)


def _tree(node: Node, known: dict[str, Node], below: dict[str, list[str]], depth: int) -> Iterator[str]:
    upkeep = f", {node.upkeep}" if node.upkeep else ""
    description = f"  {node.description.splitlines()[0]}" if node.description else ""
    yield f"{'  ' * depth}{node.name} ({node.kind}{upkeep}){description}"
    for name in below.get(node.id, ()):
        yield from _tree(known[name], known, below, depth + 1)


def _show_columns(node: Node, found: ColumnLineage) -> None:
    line(f"{node.name}", "bold")
    if found.unknown is not None:
        line(f"unknown: {found.unknown}")
        return
    if found.observed is not None:
        line(f"observed on {found.observed} events")
    rows = [(name, "unknown" if sources is None else _told(sources)) for name, sources in found.columns.items()]
    if found.rows:
        rows.append(("(which rows)", _told(found.rows)))
    table(("COLUMN", "MADE OF"), rows)


def _told(sources: tuple[Source, ...]) -> str:
    def named(kind: Type) -> list[str]:
        chosen = (one for one in sources if one.type == kind)
        return [f"{one.relation}.{one.column} ({one.subtype.lower().replace('_', ' ')})" for one in chosen]

    direct, decides = named("DIRECT"), named("INDIRECT")
    told = ", ".join(direct) or ("" if decides else "no column")
    return told + ("; " if told and decides else "") + (f"decided by {', '.join(decides)}" if decides else "")
