"""The nodes of a NIR graph in order: graphs within it opened, branches and recurrences told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from threefactor.errors import InputError
from threefactor.readable import clipped

__all__ = ["Wired", "wired"]

Edge = tuple[str, str]
DEEPEST = 20


@dataclass(frozen=True)
class Wired:
    """A graph without cycles, but for synapses of neurons onto themselves.

    Attributes:
        nodes: by name; those of a graph within the graph as "graph.node".
        order: the names, each after those that it gets something from; without recurrent synapses.
        before: for each name, what it gets something from, in the order of the edges.
        after: for each name, what gets something from it.
        recurrent: for a node of neurons, the node with weights that brings its spikes back.
    """

    nodes: dict[str, Any]
    order: list[str]
    before: dict[str, list[str]]
    after: dict[str, list[str]]
    recurrent: dict[str, str]


def wired(nir: Any, graph: Any) -> Wired:
    """Read the wires of a graph.

    Raises:
        InputError: naming the nodes that are wired in a way that no network of ours can be.
    """
    nodes, edges = _opened(nir, graph, "", 0)
    for edge, count in Counter(edges).items():
        if count > 1:
            raise InputError(
                f"the edge {edge[0]!r} -> {edge[1]!r} is there {count} times; NIR has each once"
            )
    for kind in (nir.Input, nir.Output):
        found = [name for name, node in nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise InputError(
                f"the graph has the {kind.__name__} nodes {found}; expected one node of this kind"
            )
    before: dict[str, list[str]] = {name: [] for name in nodes}
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    recurrent = _recurrences(nir, nodes, before, after)
    for neuron, synapse in recurrent.items():
        before[neuron].remove(synapse)
        after[neuron].remove(synapse)
        del before[synapse], after[synapse]
    order = _ordered(nir, nodes, before)
    for name in order:
        for kind, ends, way in ((nir.Input, before, "from"), (nir.Output, after, "to")):
            if isinstance(nodes[name], kind) == bool(ends[name]):
                told = sorted(ends[name]) or "none"
                raise InputError(
                    f"node {name!r}, a nir.{type(nodes[name]).__name__}, has edges {way} {told}; "
                    f"expected {'none' if ends[name] else 'at least one'}"
                )
    return Wired(nodes, order, before, after, recurrent)


def _opened(nir: Any, graph: Any, prefix: str, depth: int) -> tuple[dict[str, Any], list[Edge]]:
    """Return the nodes and edges of a graph, those of graphs within it in their place."""
    if depth > DEEPEST:
        raise InputError(f"graphs lie within graphs {depth} deep, as in one that holds itself")
    if not isinstance(graph.nodes, dict) or not all(isinstance(n, str) for n in graph.nodes):
        raise InputError(f"the graph's nodes are {clipped(graph.nodes)}; expected nodes by name")
    nodes: dict[str, Any] = {}
    edges: list[Edge] = []
    entries: dict[str, str] = {}
    exits: dict[str, str] = {}
    for name, node in graph.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            nodes[prefix + name] = node
            continue
        inner, wires = _opened(nir, node, f"{prefix}{name}.", depth + 1)
        ends = []
        for kind in (nir.Input, nir.Output):
            found = [n for n, one in inner.items() if isinstance(one, kind)]
            if len(found) != 1:
                raise InputError(
                    f"the graph {prefix + name!r} within the graph has the {kind.__name__} nodes "
                    f"{found}; expected one node of this kind"
                )
            ends.append(found[0])
        entries[name], exits[name] = ends
        nodes |= inner
        edges += wires
    for source, target in _edges(graph):
        for name in (source, target):
            if name not in graph.nodes:
                raise InputError(
                    f"the edge {source!r} -> {target!r} leads to a node that is not there"
                )
        edges.append((exits.get(source, prefix + source), entries.get(target, prefix + target)))
    for end in (*entries.values(), *exits.values()):
        edges = _without(end, edges)
        del nodes[end]
    return nodes, edges


def _edges(graph: Any) -> Iterator[Edge]:
    pairs = graph.edges if isinstance(graph.edges, (list, tuple, set)) else [graph.edges]
    for edge in pairs:
        two = isinstance(edge, (list, tuple)) and len(edge) == 2
        if not two or not all(isinstance(end, str) for end in edge):
            raise InputError(f"the graph has the edge {clipped(edge)}; expected two names of nodes")
        yield tuple(edge)


def _without(name: str, edges: list[Edge]) -> list[Edge]:
    """Take a node out that gives on what it gets."""
    sources = [source for source, target in edges if target == name]
    targets = [target for source, target in edges if source == name]
    rest = [edge for edge in edges if name not in edge]
    return rest + [(source, target) for source in sources for target in targets]


def _recurrences(
    nir: Any,
    nodes: dict[str, Any],
    before: dict[str, list[str]],
    after: dict[str, list[str]],
) -> dict[str, str]:
    """Return the nodes with weights that get spikes of one node of neurons, and feed it alone."""
    found: dict[str, str] = {}
    for name, node in nodes.items():
        if not isinstance(node, nir.Affine | nir.Linear | nir.Conv2d):
            continue
        if len(before[name]) != 1 or before[name] != after[name]:
            continue
        (neuron,) = before[name]
        if not isinstance(nodes[neuron], nir.LIF | nir.IF):
            continue
        if neuron in found:
            raise InputError(
                f"the spikes of node {neuron!r} come back to it through {found[neuron]!r} and "
                f"{name!r}; one recurrent synapse of a layer can be read: add their weights"
            )
        found[neuron] = name
    return found


def _ordered(nir: Any, nodes: dict[str, Any], before: dict[str, list[str]]) -> list[str]:
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as problem:
        cycle = problem.args[1]
    told = " -> ".join(map(repr, cycle))
    if not any(isinstance(nodes[name], nir.LIF | nir.IF) for name in cycle):
        raise InputError(
            f"the nodes {told} form a cycle without LIF or IF neurons, in which no step "
            "comes before another"
        )
    raise InputError(
        f"the nodes {told} form a cycle; recurrence can be read from the neurons of one layer "
        "through one node with weights back to themselves"
    )
