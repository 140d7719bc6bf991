"""The control of a knowledge graph: the same edges, after the known nodes have changed places."""

import itertools
from collections import defaultdict

import numpy as np

Edge = tuple[int, int, float]  # (member, concept, weight), the first two as places in a list of names

SEED = 0  # every run shuffles alike
# Among so few known nodes one random order may leave most relations as they are, or all. So several are tried.
FEW, DRAWS = 100, 100


def shuffle(edges: list[Edge], known: int) -> list[Edge]:
    """Return the edges after the known nodes, the first ones, have changed places at random.

    No node gets an edge to itself or one twice. If the known nodes are few, it is the order of DRAWS in which the
    fewest pairs of them stay related.

    Raises:
      ValueError: all pairs stay related in every order.
    """
    generator = np.random.default_rng(SEED)
    if known > FEW:
        return move(edges, generator.permutation(known))
    own = find_related(edges, known)
    tried = [move(edges, generator.permutation(known)) for _ in range(DRAWS)]
    kept = [len(own & find_related(moved, known)) for moved in tried]
    if own and min(kept) == len(own):
        what = "edges: shuffled is no control of this graph: the same nodes are related in every order"
        raise ValueError(what, "take propagation_steps: 0 as the control")
    return tried[kept.index(min(kept))]


def move(edges: list[Edge], order: np.ndarray) -> list[Edge]:
    """Return the edges after the first nodes have moved to the places of an order."""
    places = dict(enumerate(order.tolist()))
    return [
        (places.get(member, member), places.get(concept, concept), weight)
        for member, concept, weight in edges
    ]


def find_related(edges: list[Edge], known: int) -> set[tuple[int, int]]:
    """Return the pairs of known nodes that an edge joins, or two edges to the same node."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for member, concept, _ in edges:
        neighbours[member] |= {member, concept}
        neighbours[concept] |= {member, concept}
    groups = (sorted(node for node in group if node < known) for group in neighbours.values())
    return {pair for group in groups for pair in itertools.combinations(group, 2)}
