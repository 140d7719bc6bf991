"""Shuffled edges are a control: they say as much as before, about other nodes."""

import pytest

from metarun.blocks import shuffled_edges
from metarun.tasks import mixture

MODES = ("sinusoid", "line", "quadratic", "absolute", "tanh")


@pytest.mark.parametrize("modes", [MODES[:3], MODES])
def test_no_two_of_a_few_nodes_stay_related_where_that_is_possible(modes):
    relations = mixture.relate(modes)
    edges = [(member, concept, 1.0) for member, concept in relations.edges]
    shuffled = shuffled_edges.shuffle(edges, relations.known)
    own, others = (shuffled_edges.find_related(some, relations.known) for some in (edges, shuffled))
    assert own and not own & others
    assert [edge[1:] for edge in shuffled] == [edge[1:] for edge in edges]
    assert shuffled_edges.shuffle(edges, relations.known) == shuffled


def test_a_graph_that_no_order_changes_is_refused():
    with pytest.raises(ValueError, match="no control of this graph"):
        shuffled_edges.shuffle([(0, 2, 1.0), (1, 2, 1.0)], 2)


def test_nodes_are_related_by_an_edge_or_by_a_common_neighbour():
    edges = [(0, 1, 1.0), (1, 5, 2.0), (2, 5, 1.0), (3, 6, 1.0), (6, 5, 1.0)]
    assert shuffled_edges.find_related(edges, 4) == {(0, 1), (1, 2)}


def test_many_nodes_change_places_and_no_edge_is_lost():
    edges = [(member, 200 + member // 4, 1.0) for member in range(200)]
    shuffled = shuffled_edges.shuffle(edges, 200)
    assert sorted(edge[0] for edge in shuffled) == list(range(200)) and shuffled != edges
    own, others = (shuffled_edges.find_related(some, 200) for some in (edges, shuffled))
    assert len(own & others) < 0.1 * len(own)
