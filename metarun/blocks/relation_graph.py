"""A knowledge graph as a prior: vectors of classes or tasks move towards those of their relatives.

The nodes are what training knows, classes or kinds of tasks, each with a learned vector, and concepts above them, which
have no vector of their own. With N(v) the neighbours of v and v itself, a step of propagation is

    h_v ← Σ_{u ∈ N(v)} α_uv h_u,    α_uv = softmax_u(log w_uv + λ_kind(uv) + ε_uv)  over the u that have a vector,

where w is the weight that an edge is given (1, or the user's); λ and ε are learned from zero, so that all neighbours
begin equal. λ is one number for each kind of edge (member to concept, concept to member, known to known, to itself), ε
is one number for each direction of each edge. Concepts get their vectors from their members in the first step, and pass
them on in the next. A new class or task is no node. Its vector c attends to the nodes that it resembles and moves
towards them,

    a_v = softmax_v(−τ Σ_f m_f (c_f − h_vf)² / s + b_rank(v)),    p = Σ_v a_v h_v,
    g = σ(β + ω ‖c − p‖² / s)  for each feature,    c' = c + g ∘ (p − c).

s is the mean squared distance of the nodes from their mean, so that units do not matter. τ, m, b (known or concept), β
and ω are learned. `propagate` and `smooth` do not depend on the order of the nodes or of the vectors.

A new class may bring an edge to a concept u, such as its alphabet. The logit of v = u in the softmax then has one more
learned term, κ, so that the class moves towards what it is told to belong to as well as to what it resembles.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metarun import base
from metarun.base import PyTree
from metarun.blocks import edge_list, shuffled_edges
from metarun.blocks.shuffled_edges import Edge

UP, DOWN, PEER, SELF = range(4)  # kinds of edges
FIRST_SHARPNESS = 8.0  # τ before training: some tens of a thousand nodes get most of the attention
FIRST_GATE = -2.0  # β before training: a vector moves an eighth of the way
FIRST_TOLD = 5.0  # κ before training: the concept that a class is told weighs as much as 148 nodes as near
SMALLEST = 1e-12  # the least spread of the nodes, s


class Graph(NamedTuple):
    """Nodes and edges as numbers. The known nodes come first, then those without a vector of their own."""

    relations: base.Relations
    nodes: int  # how many
    senders: np.ndarray  # int32 [edge], each edge in both directions
    receivers: np.ndarray  # int32 [edge]
    kinds: np.ndarray  # int32 [edge], UP, DOWN or PEER
    weights: np.ndarray  # float32 [edge], w
    # int32 [name], the node of each name of `relations`; -1: it has neither a vector nor an edge
    places: np.ndarray


def build(
    graph: str,
    problem: base.Problem,
    subjects: Literal["classes", "tasks"],
    name: str,
    edges: Literal["given", "shuffled"] = "given",
) -> Graph | None:
    """Build the graph "family", or that of an edge list, whose path it is; None for "none".

    Args:
      subjects: what the nodes must be, classes or kinds of tasks.
      name: the algorithm's, for the message.
      edges: those of the graph, or with the known nodes in other places.

    Raises:
      ValueError: the family has no such nodes, or does not relate them, or no other places change the relations.
      DataError: the edge list is missing or wrong.
    """
    if graph == "none":
        return None
    relations, subject = problem.relations, "kinds of tasks" if subjects == "tasks" else "classes"
    if relations is None or relations.subjects != subjects:
        raise ValueError(
            f"{name} smooths over a graph of {subject}, and this task family names no {subject}",
            "set graph: none, or choose a task family that names them",
        )
    if graph != "family":
        return index_nodes(relations, *read_edges(graph, relations), edges == "shuffled")
    if not relations.edges:
        raise ValueError(
            f"this task family does not relate its {subject}",
            "set graph to the path of an edge list, or to none",
        )
    own_edges = [(member, concept, 1.0) for member, concept in relations.edges]
    return index_nodes(relations, len(relations.names), own_edges, edges == "shuffled")


def read_edges(path: str, relations: base.Relations) -> tuple[int, list[Edge]]:
    """Return how many names family and edge list have together, the family's first, and the edges between them."""
    rows = edge_list.read(Path(path), relations.names)
    names = list(dict.fromkeys([*relations.names, *(name for row in rows for name in row[:2])]))
    places = {name: place for place, name in enumerate(names)}
    return len(names), [(places[row.member], places[row.concept], row.weight) for row in rows]


def index_nodes(relations: base.Relations, names: int, edges: list[Edge], shuffled: bool = False) -> Graph:
    """Return the graph with both directions of every edge, without names that have neither a vector nor an edge."""
    known = relations.known
    edges = shuffled_edges.shuffle(edges, known) if shuffled else edges
    concept_places = sorted({place for edge in edges for place in edge[:2]} - set(range(known)))
    nodes = np.arange(names)  # the node of each name
    nodes[concept_places] = known + np.arange(len(concept_places))
    members, concepts = nodes[[edge[0] for edge in edges]], nodes[[edge[1] for edge in edges]]
    used = np.isin(np.arange(names), [*range(known), *concept_places])
    peers = np.maximum(members, concepts) < known
    kinds = [np.where(peers, PEER, kind) for kind in (UP, DOWN)]
    return Graph(
        relations,
        known + len(concept_places),
        np.concatenate([members, concepts]).astype(np.int32),
        np.concatenate([concepts, members]).astype(np.int32),
        np.concatenate(kinds).astype(np.int32),
        np.tile(np.array([edge[2] for edge in edges], np.float32), 2),
        np.where(used, nodes, -1)[: len(relations.names)].astype(np.int32),
    )


def init(
    graph: Graph,
    steps: int,
    vectors: Float[Array, "example feature"],
    places: Int[Array, "example"],
    told: bool = False,
) -> tuple[PyTree, PyTree]:
    """Return (trained, frozen). A known node begins at the mean of its vectors.

    A known node without a vector begins where propagation from its relatives puts it; if that gives it none, it begins
    at the mean of all vectors.

    Args:
      told: whether new classes bring edges; then κ is trained.
    """
    known, size = graph.relations.known, vectors.shape[1]
    counts = jnp.zeros(known, vectors.dtype).at[places].add(1)
    means = jnp.zeros((known, size), vectors.dtype).at[places].add(vectors) / jnp.maximum(counts, 1)[:, None]
    trained = {
        "nodes": means,
        "kinds": jnp.zeros(4, vectors.dtype),
        "edges": jnp.zeros(len(graph.senders), vectors.dtype),
        "sharpness": jnp.log(jnp.asarray(FIRST_SHARPNESS, vectors.dtype)),
        "metric": jnp.zeros(size, vectors.dtype),
        "ranks": jnp.zeros(2, vectors.dtype),
        "gate": jnp.full(size, FIRST_GATE, vectors.dtype),
        "gate_distance": jnp.zeros((), vectors.dtype),
    }
    if told:
        trained["told"] = jnp.asarray(FIRST_TOLD, vectors.dtype)
    frozen = {
        "senders": jnp.asarray(graph.senders),
        "receivers": jnp.asarray(graph.receivers),
        "kinds": jnp.asarray(graph.kinds),
        "weights": jnp.asarray(graph.weights, vectors.dtype),
        # [node], 0 known, 1 concept: a checkpoint then does not fit an edge list with other concepts
        "ranks": jnp.int32(jnp.arange(graph.nodes) >= known),
    }
    filled, present = propagate(graph, trained, frozen, steps, counts == 0, refill=True)
    inferred = jnp.where(present[:known, None], filled[:known], vectors.mean(axis=0)[None])
    return trained | {"nodes": jnp.where(counts[:, None] > 0, means, inferred)}, frozen


def propagate(
    graph: Graph,
    trained: PyTree,
    frozen: PyTree,
    steps: int,
    absent: Bool[Array, "known"],
    refill: bool = False,
) -> tuple[Float[Array, "node feature"], Bool[Array, "node"]]:
    """Return the vectors after the steps, and which nodes have one.

    An absent node is out of the graph with all its edges. With `refill` it only begins without a vector, and gets one
    from its neighbours, as concepts do.
    """
    senders, receivers = frozen["senders"], frozen["receivers"]
    concepts = len(frozen["ranks"]) - graph.relations.known
    present = jnp.pad(~absent, (0, concepts))
    barred = jnp.pad(absent & (not refill), (0, concepts))
    vectors = jnp.pad(trained["nodes"], ((0, concepts), (0, 0)))
    vectors = jnp.where(present[:, None], vectors, 0)
    logits = jnp.log(frozen["weights"]) + trained["kinds"][frozen["kinds"]] + trained["edges"]
    bound = jax.lax.stop_gradient(jnp.maximum(logits.max(), trained["kinds"][SELF]))
    weights, own = jnp.exp(logits - bound), jnp.exp(trained["kinds"][SELF] - bound)
    for _ in range(steps):
        sent, kept = jnp.where(present[senders], weights, 0), jnp.where(present, own, 0)
        total = kept.at[receivers].add(sent)
        mixed = (kept[:, None] * vectors).at[receivers].add(sent[:, None] * vectors[senders])
        present = (total > 0) & ~barred
        vectors = jnp.where(present[:, None], mixed, 0) / jnp.where(present, total, 1)[:, None]
    return vectors, present


def smooth(
    graph: Graph,
    trained: PyTree,
    frozen: PyTree,
    steps: int,
    vectors: Float[Array, "way feature"],
    hidden: Int[Array, "way"] | None = None,
    told: Int[Array, "way"] | None = None,
) -> Float[Array, "way feature"]:
    """Return c' for each vector c. The known nodes `hidden` are out of the graph, as if there were no such class.

    If no node is left, the vectors stay as they are.

    Args:
      told: the concept that each class brings an edge to, as a place in the names of the relations; -1: none.
    """
    known = graph.relations.known
    absent = jnp.zeros(known, bool)
    if hidden is not None:
        absent = absent.at[hidden].set(True)
    nodes, present = propagate(graph, trained, frozen, steps, absent)
    scale = measure_spread(nodes, present)
    bonus = None if told is None else trained["told"] * point_at(graph, told, vectors.dtype)
    attention = attend(trained, vectors, nodes, present, frozen["ranks"] > 0, scale, bonus)
    message = attention @ nodes
    distance = jnp.square(vectors - message).sum(axis=1, keepdims=True) / scale
    gate = jax.nn.sigmoid(trained["gate"][None] + trained["gate_distance"] * distance)
    return jnp.where(present.any(), vectors + gate * (message - vectors), vectors)


def point_at(graph: Graph, told: Int[Array, "way"], dtype) -> Float[Array, "way node"]:
    """Return 1 at the node that each class is told, and 0 elsewhere; zeros for a class without such a node."""
    nodes = jnp.where(told >= 0, jnp.asarray(graph.places)[told], -1)
    return jax.nn.one_hot(nodes, graph.nodes, dtype=dtype)


def measure_spread(nodes: Float[Array, "node feature"], present: Bool[Array, "node"]) -> Float[Array, ""]:
    """Return s over the nodes that are present."""
    count = jnp.maximum(present.sum(), 1)
    mean = jnp.where(present[:, None], nodes, 0).sum(axis=0) / count
    squares = jnp.square(nodes - mean[None]).sum(axis=1)
    return jnp.maximum(jnp.where(present, squares, 0).sum() / count, SMALLEST)


def attend(
    trained: PyTree,
    vectors: Float[Array, "way feature"],
    nodes: Float[Array, "node feature"],
    present: Bool[Array, "node"],
    is_concept: Bool[Array, "node"],
    scale: Float[Array, ""],
    bonus: Float[Array, "way node"] | None = None,
) -> Float[Array, "way node"]:
    """Return a for each vector. The term −τ Σ m c² / s is left out, because it shifts all logits of a vector alike.

    Args:
      bonus: is added to the logits.
    """
    metric = jnp.exp(trained["sharpness"] + trained["metric"]) / scale
    closeness = 2 * vectors @ (metric[None] * nodes).T - (jnp.square(nodes) @ metric)[None]
    ranks = trained["ranks"][is_concept.astype(jnp.int32)]
    logits = closeness + ranks[None] if bonus is None else closeness + ranks[None] + bonus
    return jax.nn.softmax(jnp.where(present, logits, jnp.finfo(nodes.dtype).min), axis=-1)


def memory_loss(
    trained: PyTree, vectors: Float[Array, "way feature"], places: Int[Array, "way"]
) -> Float[Array, ""]:
    """Return the mean of ‖h_v − c‖² / s over the vectors c of known nodes v. It keeps a node near its vectors.

    The vectors are constants here: the nodes follow them, like a memory that is written to.
    """
    nodes = trained["nodes"]
    scale = jax.lax.stop_gradient(measure_spread(nodes, jnp.ones(len(nodes), bool)))
    return jnp.square(nodes[places] - jax.lax.stop_gradient(vectors)).sum(axis=1).mean() / scale
