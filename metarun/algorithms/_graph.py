"""A knowledge graph as a prior: vectors of classes or tasks, smoothed towards what their relatives are.

The nodes are what training knows, classes or kinds of tasks, each with a learned vector, and concepts above them, which
have none of their own. With N(v) the neighbours of v and v itself, a step of propagation is

    h_v ← Σ_{u ∈ N(v)} α_uv h_u,    α_uv = softmax_u(log w_uv + λ_kind(uv) + ε_uv)  over the u that have a vector,

w being the weight of the edge that is given (1, or the user's), λ and ε learned from zero: all neighbours begin equal.
λ is one number for each kind of edge (member to concept, concept to member, known to known, to itself), ε one for each
direction of each edge. So concepts get their vectors from their members in the first step, and give them back in the
next. A vector c, of a new class or task, which is no node, attends to the nodes it is like and moves towards them,

    a_v = softmax_v(−τ Σ_f m_f (c_f − h_vf)² / s + b_rank(v)),    p = Σ_v a_v h_v,
    g = σ(β + ω ‖c − p‖² / s)  for each feature,    c' = c + g ∘ (p − c).

s is the mean squared distance of the nodes from their mean, so that units do not matter. τ, m, b (known or concept), β
and ω are learned. `propagate` and `smooth` do not depend on the order of the nodes or of the vectors.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metarun import base
from metarun.algorithms import _edge_list
from metarun.base import PyTree

UP, DOWN, PEER, SELF = range(4)  # kinds of edges
FIRST_SHARPNESS = 8.0  # τ before training: of a thousand nodes some tens get most of the attention
FIRST_GATE = -2.0  # β before training: a vector moves an eighth of the way
SMALLEST = 1e-12  # of the spread of the nodes, s


class Graph(NamedTuple):
    """Its nodes and edges as numbers. The known nodes come first, then those without a vector of their own."""

    relations: base.Relations
    nodes: int
    senders: np.ndarray  # int32 [edge], each edge in both directions
    receivers: np.ndarray  # int32 [edge]
    kinds: np.ndarray  # int32 [edge], UP, DOWN or PEER
    weights: np.ndarray  # float32 [edge], w


def build(graph: str, objective: base.Objective, of_tasks: bool, name: str) -> Graph | None:
    """The graph "family", or that of an edge list, a path; None for "none".

    Args:
      of_tasks: whether the nodes must be kinds of tasks, and not classes.
      name: of the algorithm, for the message.

    Raises:
      ValueError: the family has no such nodes, or relates none of them.
      DataError: the edge list is missing or wrong.
    """
    if graph == "none":
        return None
    relations, wanted = objective.relations, "kinds of tasks" if of_tasks else "classes"
    if relations is None or relations.of_tasks != of_tasks:
        raise ValueError(
            f"{name} smooths over a graph of {wanted}, and this task family names no {wanted}",
            "set graph: none, or choose a task family that names them",
        )
    if graph == "family":
        names, edges = list(relations.names), [(*edge, 1.0) for edge in relations.edges]
        if not edges:
            raise ValueError(
                f"this task family does not relate its {wanted}",
                "set graph to the path of an edge list, or to none",
            )
    else:
        read = _edge_list.read(Path(graph), relations.names)
        names = list(dict.fromkeys([*relations.names, *(name for edge in read for name in edge[:2])]))
        places = {name: place for place, name in enumerate(names)}
        edges = [(places[edge.member], places[edge.concept], edge.weight) for edge in read]
    return to_arrays(relations, len(names), edges)


def to_arrays(relations: base.Relations, names: int, edges: list[tuple[int, int, float]]) -> Graph:
    """Both directions of every edge; nodes that have neither a vector nor an edge are left out."""
    known = relations.known
    used = sorted({place for edge in edges for place in edge[:2]} - set(range(known)))
    place = np.arange(names)
    place[used] = known + np.arange(len(used))
    members, concepts = place[[edge[0] for edge in edges]], place[[edge[1] for edge in edges]]
    peers = np.maximum(members, concepts) < known
    kinds = [np.where(peers, PEER, kind) for kind in (UP, DOWN)]
    return Graph(
        relations,
        known + len(used),
        np.concatenate([members, concepts]).astype(np.int32),
        np.concatenate([concepts, members]).astype(np.int32),
        np.concatenate(kinds).astype(np.int32),
        np.tile(np.array([edge[2] for edge in edges], np.float32), 2),
    )


def init(
    graph: Graph, steps: int, vectors: Float[Array, "example feature"], places: Int[Array, "example"]
) -> tuple[PyTree, PyTree]:
    """(trained, frozen). A known node begins at the mean of its vectors.

    One that has none begins where propagation puts it, at its relatives; else at the mean of the others.
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
    frozen = {
        "senders": jnp.asarray(graph.senders),
        "receivers": jnp.asarray(graph.receivers),
        "kinds": jnp.asarray(graph.kinds),
        "weights": jnp.asarray(graph.weights, vectors.dtype),
        # [node], 0 known, 1 concept: so the checkpoint does not fit an edge list of other concepts
        "ranks": jnp.int32(jnp.arange(graph.nodes) >= known),
    }
    filled, present = propagate(graph, trained, frozen, steps, counts == 0, refilled=True)
    inferred = jnp.where(present[:known, None], filled[:known], vectors.mean(axis=0)[None])
    return trained | {"nodes": jnp.where(counts[:, None] > 0, means, inferred)}, frozen


def propagate(
    graph: Graph,
    trained: PyTree,
    frozen: PyTree,
    steps: int,
    absent: Bool[Array, "known"],
    refilled: bool = False,
) -> tuple[Float[Array, "node feature"], Bool[Array, "node"]]:
    """The vectors after the steps, and which nodes have one.

    Known nodes that are absent have no vector before and, unless they are `refilled` as concepts are, none after: they
    are out of the graph with all their edges.
    """
    senders, receivers = frozen["senders"], frozen["receivers"]
    concepts = len(frozen["ranks"]) - graph.relations.known
    present = jnp.pad(~absent, (0, concepts))
    barred = jnp.pad(absent & (not refilled), (0, concepts))
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
) -> Float[Array, "way feature"]:
    """c' of each vector c; the known nodes `hidden` are out of the graph, as if there were no such class.

    A vector stays as it is where no node is left.
    """
    known = graph.relations.known
    absent = jnp.zeros(known, bool)
    if hidden is not None:
        absent = absent.at[hidden].set(True)
    nodes, present = propagate(graph, trained, frozen, steps, absent)
    scale = spread(nodes, present)
    attention = attend(trained, vectors, nodes, present, frozen["ranks"] > 0, scale)
    message = attention @ nodes
    distance = jnp.square(vectors - message).sum(axis=1, keepdims=True) / scale
    gate = jax.nn.sigmoid(trained["gate"][None] + trained["gate_distance"] * distance)
    return jnp.where(present.any(), vectors + gate * (message - vectors), vectors)


def spread(nodes: Float[Array, "node feature"], present: Bool[Array, "node"]) -> Float[Array, ""]:
    """s, over the nodes that are present."""
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
) -> Float[Array, "way node"]:
    """a of each vector, without −τ Σ m c² / s of its own, which softmax does not see."""
    metric = jnp.exp(trained["sharpness"] + trained["metric"]) / scale
    near = 2 * vectors @ (metric[None] * nodes).T - (jnp.square(nodes) @ metric)[None]
    ranks = trained["ranks"][is_concept.astype(jnp.int32)]
    return jax.nn.softmax(jnp.where(present, near + ranks[None], jnp.finfo(nodes.dtype).min), axis=-1)


def memory_loss(
    trained: PyTree, vectors: Float[Array, "way feature"], places: Int[Array, "way"]
) -> Float[Array, ""]:
    """The mean of ‖h_v − c‖² / s over vectors c of known nodes v: it holds the nodes to what they stand for.

    The vectors are constants in it: the nodes follow them, as a memory that is written to.
    """
    nodes = trained["nodes"]
    scale = jax.lax.stop_gradient(spread(nodes, jnp.ones(len(nodes), bool)))
    return jnp.square(nodes[places] - jax.lax.stop_gradient(vectors)).sum(axis=1).mean() / scale
