"""`/lineage`: what reads what, from captures to sinks, with how far each reader is behind, and down to columns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from refold.dashboard.ask import Ask, NotThere
from refold.dashboard.wording import says, span
from refold.inspect.health import Health
from refold.inspect.lineage.graph import Edge, Graph, Node, lineage_graph
from refold.inspect.sinks import SinkStatus, sink_statuses
from refold.model.projection.plan import LOG
from refold.store.builds.build import EVENT_GRAIN
from refold.suggest import did_you_mean

DRAWN = 100
"""Most nodes that are drawn and listed; of more, the neighbours of one."""
FRESH_S = 30.0
"""Seconds for which the graph is good; lag and verdicts are as of now."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node with its neighbours, and what is known of it now.

    Args:
        node: the node.
        reads: ids of the nodes that it reads.
        read_by: ids of the nodes that read it.
        tone: tone of its verdict; empty if it has none.
        word: its verdict or state; empty if it has none.
        lag: how far it is behind; empty if that is not known.
    """

    node: Node
    reads: list[str]
    read_by: list[str]
    tone: str
    word: str
    lag: str


@dataclass(frozen=True, slots=True)
class LineagePage:
    """What the page shows.

    Args:
        health: the health of all metrics.
        places: the nodes, what flows first coming first.
        names: name of each node of the whole graph, by its id.
        around: id of the node whose neighbours are shown; empty: all.
        depth: `1`, `2` or `all` steps.
        detail: `tables` or `columns`.
        cut: how many nodes are left out because they are too many.
        whole: whether definitions were read: otherwise captures, analysts' views and columns are left out.
        graph: the graph that is shown.
    """

    health: Health
    places: list[Place]
    names: dict[str, str]
    around: str
    depth: str
    detail: str
    cut: int
    whole: bool
    graph: Graph

    def as_dict(self) -> dict[str, Any]:
        """Return the page as a dict for JSON."""
        return {
            "around": self.around or None,
            "depth": self.depth,
            "detail": self.detail,
            "left_out": self.cut,
            "whole": self.whole,
            "now": {one.node.id: {"verdict": one.word, "lag": one.lag} for one in self.places},
            **self.graph.as_dict(),
        }

    @property
    def drawing(self) -> str:
        """Return the graph as JSON for the script that draws it."""
        columns = self.detail == "columns"
        return json.dumps(
            {
                "nodes": [
                    {
                        "id": one.node.id,
                        "name": one.node.name,
                        "kind": _KINDS.get(one.node.kind, one.node.upkeep or one.node.kind),
                        "columns": [column.name for column in one.node.columns] if columns else [],
                    }
                    for one in self.places
                ],
                "edges": [[edge.above, edge.below] for edge in self.graph.edges],
                "columns": [list(one) for one in sorted(set(self._column_edges()))] if columns else [],
            }
        )

    @property
    def live(self) -> str:
        """Return what changes from moment to moment as JSON for the same script."""
        return json.dumps({one.node.id: [one.tone, one.word, one.lag] for one in self.places})

    def _column_edges(self) -> Iterable[tuple[str, str, str, str, bool]]:
        """Return edges between columns: node and column above, node and column below, whether values flow.

        What decides about all rows of a node leads to the node itself, with no column.
        """
        shown = {one.node.id for one in self.places}
        for one in self.places:
            if one.node.lineage is None:
                continue
            for source in one.node.lineage.rows:
                if source.relation in shown:
                    yield source.relation, source.column, one.node.id, "", False
            for column, sources in one.node.lineage.columns.items():
                for source in sources or ():
                    if source.relation in shown:
                        yield source.relation, source.column, one.node.id, column, source.type == "DIRECT"


_KINDS = {"capture": "capture", "log": "the log", "view": "view", "sink": "sink"}


def read(ask: Ask) -> LineagePage:
    """Read the page.

    Raises:
        NotThere: there is no node of that name.
    """
    health = ask.health()
    detail = ask.choice("detail", "tables", "columns") if ask.evidence else "tables"
    depth = ask.choice("depth", "2", "1", "all")
    columns = detail == "columns"
    sinks = ask.read(sink_statuses)
    graph = (
        ask.shared.get(
            ("lineage", columns),
            lambda: ask.read(lambda conn: lineage_graph(conn, ask.compiler, columns=columns)),
            fresh_s=FRESH_S,
        )
        if ask.evidence
        else observed(health, sinks)
    )
    names = {node.id: node.name for node in graph.nodes}
    around = _found(names, ask.query.get("around", "").strip())
    kept = {around, *near(graph, around, depth)} if around else set(names)
    nodes = [node for node in graph.nodes if node.id in kept]
    # The chosen one is never left out.
    shown = sorted(nodes, key=lambda node: node.id != around)[:DRAWN]
    chosen = {node.id for node in shown}
    part = Graph(
        tuple(node for node in nodes if node.id in chosen),
        tuple(edge for edge in graph.edges if edge.above in chosen and edge.below in chosen),
    )
    states = {f"sink:{one.sink}": one for one in sinks}
    places = [_place(node, graph, health, states.get(node.id)) for node in part.nodes]
    return LineagePage(health, places, names, around, depth, detail, len(nodes) - len(shown), ask.evidence, part)


def observed(health: Health, sinks: Iterable[SinkStatus]) -> Graph:
    """Return the graph as far as an observer may know it: the log, streams, metrics and sinks. Pure."""
    nodes = [Node(LOG, "log", "The log: every event once.")]
    edges = []
    live = {one.metric: one for one in health.live}
    for name in _upstream_first({one.metric: one.reads for one in live.values()}):
        one = live[name]
        nodes.append(Node(name, "stream" if one.upkeep in EVENT_GRAIN else "metric", None, one.upkeep))
        edges.append(Edge(one.reads, name))
    for sink in sinks:
        node = Node(sink.sink, "sink", f"{sink.kind}, {sink.grain}")
        nodes.append(node)
        edges.append(Edge(sink.projection, node.id))
    known = {node.id for node in nodes}
    return Graph(tuple(nodes), tuple(edge for edge in edges if {edge.above, edge.below} <= known))


def _upstream_first(reads: dict[str, str]) -> list[str]:
    def depth(name: str) -> int:
        return 0 if name not in reads else 1 + depth(reads[name])

    return sorted(reads, key=lambda name: (depth(name), name))


def near(graph: Graph, center: str, depth: str) -> set[str]:
    """Return the nodes above and below one, so many steps away; siblings stay away. Pure."""
    found: set[str] = set()
    for up in (True, False):
        edge_of: dict[str, list[str]] = {}
        for edge in graph.edges:
            here, there = (edge.below, edge.above) if up else (edge.above, edge.below)
            edge_of.setdefault(here, []).append(there)
        front, steps = {center}, 0
        while front and (depth == "all" or steps < int(depth)):
            front = {there for here in front for there in edge_of.get(here, ())} - found
            found |= front
            steps += 1
    return found


def _found(names: dict[str, str], given: str) -> str:
    if not given or given in names:
        return given
    found = next((node_id for node_id, name in names.items() if name == given), "")
    if not found:
        raise NotThere(f"Nothing here is called {given}.{did_you_mean(given, list(names.values()))}")
    return found


def _place(node: Node, graph: Graph, health: Health, sink: SinkStatus | None) -> Place:
    reads = [edge.above for edge in graph.edges if edge.below == node.id]
    read_by = [edge.below for edge in graph.edges if edge.above == node.id]
    build = health.metric(node.name) if node.kind in ("stream", "metric") else None
    if build is not None:
        said = says(build)
        tone = {"unproved": "unproved", "incomplete": "incomplete"}.get(build.word, said.tone)
        lag = "loading" if build.unread is None else "0 s" if build.unread == 0 else span(build.lag_s)
        return Place(node, reads, read_by, tone, said.word, lag)
    if sink is not None:
        tone = "behind" if sink.troubled else "calm" if sink.condition == "paused" else "right"
        return Place(node, reads, read_by, tone, sink.state, "" if sink.oldest_s is None else span(sink.oldest_s))
    return Place(node, reads, read_by, "", "", "")
