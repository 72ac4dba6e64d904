"""Graphs as dictionaries: search, shortest paths, order, components."""

import heapq
from collections import deque


def neighbours(graph, node):
    """Where an edge leads from ``node``."""
    return graph.get(node, {})


def breadth_first(graph, start):
    """Nodes that can be reached, the nearest first."""
    seen, waiting = {start}, deque([start])
    while waiting:
        node = waiting.popleft()
        yield node
        for other in neighbours(graph, node):
            if other not in seen:
                seen.add(other)
                waiting.append(other)


def depth_first(graph, start):
    """Nodes that can be reached, each path to its end first."""
    seen, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting.extend(reversed(list(neighbours(graph, node))))


def shortest_path(graph, start, goal):
    """The cheapest path and its cost; ``(None, inf)`` where there is none."""
    costs, before, waiting = {start: 0}, {}, [(0, start)]
    while waiting:
        cost, node = heapq.heappop(waiting)
        if node == goal:
            return path_to(before, goal), cost
        if cost > costs[node]:
            continue
        for other, weight in neighbours(graph, node).items():
            total = cost + weight
            if total < costs.get(other, float("inf")):
                costs[other], before[other] = total, node
                heapq.heappush(waiting, (total, other))
    return None, float("inf")


def path_to(before, goal):
    """Walk back from ``goal``."""
    path = [goal]
    while path[-1] in before:
        path.append(before[path[-1]])
    return path[::-1]


def topological_order(graph):
    """Nodes so that every edge leads forward.

    :raises ValueError: there is a cycle
    """
    incoming = {node: 0 for node in graph}
    for node in graph:
        for other in neighbours(graph, node):
            incoming[other] = incoming.get(other, 0) + 1
    ready = deque(sorted(node for node, count in incoming.items() if not count))
    order = []
    while ready:
        node = ready.popleft()
        order.append(node)
        for other in neighbours(graph, node):
            incoming[other] -= 1
            if not incoming[other]:
                ready.append(other)
    if len(order) < len(incoming):
        raise ValueError("there is a cycle")
    return order


def components(graph):
    """Sets of nodes that hang together, whatever way the edges lead."""
    both = {node: set() for node in graph}
    for node in graph:
        for other in neighbours(graph, node):
            both[node].add(other)
            both.setdefault(other, set()).add(node)
    left = set(both)
    while left:
        found, waiting = set(), [left.pop()]
        while waiting:
            node = waiting.pop()
            found.add(node)
            waiting.extend(both[node] - found)
        left -= found
        yield found
