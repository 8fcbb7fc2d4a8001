"""The graph of what is live; a duty needs it too, so it is made in `refold.engine.lineage`."""

from refold.engine.lineage.graph import Column, Edge, Graph, Node, as_dot, lineage_graph

__all__ = ["Column", "Edge", "Graph", "Node", "as_dot", "lineage_graph"]
