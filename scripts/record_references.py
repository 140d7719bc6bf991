"""Record what learners give by the formulas of their authors, in PyTorch's autograd and in float64.

    .venv-torch/bin/python scripts/record_references.py [--check]

It writes tests/algorithms/references.npz, against which tests/algorithms/test_references.py holds metarun's learners.
It needs torch and no metarun; `python bench/bench.py --install-torch` makes the environment. With `--check` it writes
nothing, and fails where a number differs from the stored one by more than 1e-12.

The formulas were written from the papers and from the public code that is named beside each; no code was copied.
An array has the name CASE/given/NAME or CASE/expected/NAME, and the NAME of a weight is its path in metarun.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Case = tuple[Tensors, Tensors]  # what a learner is given, and what is expected of it

FILE = Path(__file__).parents[1] / "tests" / "algorithms" / "references.npz"
TOLERANCE = 1e-12  # of --check
INPUTS, UNITS, OUTPUTS, EXTRA, CONTEXT = 2, 3, 2, 2, 2  # sizes of the network
RATE, STEPS = 0.07, 2  # of the inner loop
OUTER_RATE = 0.01  # of the three steps of Adam
PROXIMITY, DAMPING, CURVATURE_DAMPING = 2.0, 1.0, 10.0  # of iMAML
FIRST_MOMENTS = 0.4  # the sum of the weights of the second moments that Reptile carries into a task
DECAY = 0.999  # of these moments


def draw(generator: np.random.Generator, **shapes: tuple[int, ...]) -> Tensors:
    """Return tensors of normal numbers."""
    return {name: torch.from_numpy(generator.standard_normal(shape)) for name, shape in shapes.items()}


def draw_network(generator: np.random.Generator, inputs: int = INPUTS, extra: int = 0) -> Tensors:
    """Return the weights of a network with one hidden layer."""
    weights = {"hidden_0/kernel": (inputs + extra, UNITS), "hidden_0/bias": (UNITS,)}
    weights |= {"head/kernel": (UNITS, OUTPUTS), "head/bias": (OUTPUTS,)}
    return draw(generator, **weights, **({"extra_inputs": (extra,)} if extra else {}))


def draw_tasks(generator: np.random.Generator) -> Tensors:
    """Return the support and the query of a regression."""
    shapes = {f"{part}/inputs": (count, INPUTS) for part, count in (("support", 4), ("query", 3))}
    shapes |= {f"{part}/targets": (count, OUTPUTS) for part, count in (("support", 4), ("query", 3))}
    return draw(generator, **shapes)


def embed(weights: Tensors, inputs: Tensor, context: Tensor | None = None) -> Tensor:
    """Return the hidden layer, with the vectors that all examples share behind their inputs."""
    shared = [weights["extra_inputs"]] if "extra_inputs" in weights else []
    shared += [] if context is None else [context]
    rows = [vector.expand(inputs.shape[0], -1) for vector in shared]
    return torch.tanh(
        torch.cat([inputs, *rows], dim=1) @ weights["hidden_0/kernel"] + weights["hidden_0/bias"]
    )


def measure(weights: Tensors, tasks: Tensors, part: str, context: Tensor | None = None) -> Tensor:
    """Return the mean squared error over a part of the task."""
    outputs = embed(weights, tasks[f"{part}/inputs"], context) @ weights["head/kernel"] + weights["head/bias"]
    return ((outputs - tasks[f"{part}/targets"]) ** 2).mean()


def differentiate(loss: Tensor, tensors: Tensors, graph: bool = False) -> Tensors:
    """Return the gradient of a scalar in the tensors."""
    slopes = torch.autograd.grad(loss, list(tensors.values()), create_graph=graph)
    return dict(zip(tensors, slopes, strict=True))


def require(tensors: Tensors) -> Tensors:
    """Return copies that a gradient can be taken in."""
    return {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}


def descend(weights: Tensors, tasks: Tensors, rates: Tensors, order: str = "second") -> Tensors:
    """Return the weights after the inner steps; those without a rate stay."""
    for _ in range(STEPS):
        chosen = {name: weights[name] for name in rates}
        slopes = differentiate(measure(weights, tasks, "support"), chosen, graph=True)
        slopes = slopes if order == "second" else {name: slope.detach() for name, slope in slopes.items()}
        weights = weights | {name: weights[name] - rates[name] * slopes[name] for name in rates}
    return weights


def name_all(**groups: Tensors) -> Tensors:
    """Return the tensors of all groups, GROUP/NAME."""
    return {
        f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()
    }


def record_maml(
    generator: np.random.Generator, order: str = "second", only: str = "", extra: int = EXTRA
) -> Case:
    """MAML (Finn et al. 2017, 1703.03400; cbfinn/maml), FOMAML, and ANIL (1909.09157) with the head only.

    The additional inputs are those of lmzintgraf/cavia and vuoristo/MMAML-Regression.
    """
    weights, tasks = draw_network(generator, extra=extra), draw_tasks(generator)
    start = require(weights)
    rates = {name: torch.tensor(RATE) for name in start if name.startswith(only)}
    adapted = descend(start, tasks, rates, order)
    loss = measure(adapted, tasks, "query")
    return weights | tasks, name_all(adapted=adapted, gradient=differentiate(loss, start)) | {"loss": loss}


def record_meta_sgd(generator: np.random.Generator) -> Case:
    """Meta-SGD (Li et al. 2017, 1707.09835): the gradient in the start and in a rate for each number."""
    weights, tasks = draw_network(generator), draw_tasks(generator)
    rates = {name: 0.05 + 0.1 * tensor.abs() for name, tensor in draw_network(generator).items()}
    start, own_rates = require(weights), require(rates)
    loss = measure(descend(start, tasks, own_rates), tasks, "query")
    both = name_all(params=start, rates=own_rates)
    given = name_all(params=weights, rates=rates) | tasks
    return given, {f"gradient/{name}": slope for name, slope in differentiate(loss, both).items()} | {
        "loss": loss
    }


def record_cavia(generator: np.random.Generator) -> Case:
    """CAVIA (Zintgraf et al. 2019, 1810.03642; lmzintgraf/cavia): the context starts at zeros and adapts alone."""
    weights, tasks = draw_network(generator, INPUTS + CONTEXT), draw_tasks(generator)
    start, context = require(weights), torch.zeros(CONTEXT, requires_grad=True)
    for _ in range(STEPS):
        loss = measure(start, tasks, "support", context)
        context = context - torch.autograd.grad(loss, context, create_graph=True)[0]
    loss = measure(start, tasks, "query", context)
    expected = name_all(gradient=differentiate(loss, start)) | {"context": context, "loss": loss}
    return weights | tasks, expected


def record_protonet(generator: np.random.Generator) -> Case:
    """Prototypical networks (Snell et al. 2017, 1703.05175): softmax over negative squared distances to means."""
    weights, tasks = draw_network(generator), draw_tasks(generator)
    labels = {"support/targets": torch.tensor([0, 1, 0, 1]), "query/targets": torch.tensor([1, 0, 1])}
    body = require({name: weights[name] for name in ("hidden_0/kernel", "hidden_0/bias")})
    support, query = (embed(body, tasks[f"{part}/inputs"]) for part in ("support", "query"))
    means = torch.stack([support[labels["support/targets"] == label].mean(0) for label in range(2)])
    logits = -((query[:, None, :] - means[None, :, :]) ** 2).sum(-1)
    loss = torch.nn.functional.cross_entropy(logits, labels["query/targets"])
    return tasks | labels | dict(body), name_all(gradient=differentiate(loss, body)) | {"loss": loss}


def record_imaml(generator: np.random.Generator) -> Case:
    """iMAML (Rajeswaran et al. 2019, 1909.04630; aravindr93/imaml_dev).

    Steps on the support loss and one on the proximal term; then ((1 + d) I + H/(λ + c))⁻¹ ∇L_Q with the whole Hessian.
    """
    weights, tasks = draw_network(generator), draw_tasks(generator)
    start = require(weights)
    reached = descend(start, tasks, {name: torch.tensor(RATE) for name in start}, "first")
    reached = {
        name: (leaf - RATE * PROXIMITY * (leaf - weights[name])).detach() for name, leaf in reached.items()
    }
    sizes = [leaf.numel() for leaf in reached.values()]

    def unravel(vector: Tensor) -> Tensors:
        parts = torch.split(vector, sizes)
        return {name: part.view(reached[name].shape) for name, part in zip(reached, parts, strict=True)}

    vector = torch.cat([leaf.reshape(-1) for leaf in reached.values()])
    hessian = torch.autograd.functional.hessian(lambda v: measure(unravel(v), tasks, "support"), vector)
    slope = torch.autograd.functional.jacobian(lambda v: measure(unravel(v), tasks, "query"), vector)
    matrix = (1 + DAMPING) * torch.eye(len(vector)) + hessian / (PROXIMITY + CURVATURE_DAMPING)
    gradient = unravel(torch.linalg.solve(matrix, slope))
    return weights | tasks, name_all(adapted=reached, gradient=gradient)


def record_alfa(generator: np.random.Generator) -> Case:
    """ALFA (Baik et al. 2020, 2011.00209; baiksung/ALFA), with metarun's α = a (1 + g).

    The generator reads mean gradients, as constants, and mean weights; β = 1 − b g; a and b for each step and array.
    """
    weights, tasks = draw_network(generator), draw_tasks(generator)
    arrays = sorted(weights)  # the order in which jax has the leaves of nested dicts
    count = len(arrays)
    layers: dict[str, tuple[int, ...]]
    layers = {f"{layer}/kernel": (2 * count, 2 * count) for layer in ("0", "1")}
    layers |= {f"{layer}/bias": (2 * count,) for layer in ("0", "1")}
    generator_weights = {name: 0.3 * tensor for name, tensor in draw(generator, **layers).items()}
    factors = {
        name: 0.1 * tensor.abs()
        for name, tensor in draw(generator, rates=(STEPS, count), decays=(STEPS, count)).items()
    }
    trained = require(name_all(params=weights, generator=generator_weights) | factors)
    current = {name: trained[f"params/{name}"] for name in arrays}
    for step in range(STEPS):
        slopes = differentiate(measure(current, tasks, "support"), current, graph=True)
        state = [slopes[name].mean().detach() for name in arrays] + [current[name].mean() for name in arrays]
        hidden = torch.stack(state) @ trained["generator/0/kernel"] + trained["generator/0/bias"]
        generated = torch.relu(hidden) @ trained["generator/1/kernel"] + trained["generator/1/bias"]
        rates = trained["rates"][step] * (1 + generated[:count])
        decays = 1 - trained["decays"][step] * generated[count:]
        current = {
            name: decays[place] * current[name] - rates[place] * slopes[name]
            for place, name in enumerate(arrays)
        }
    loss = measure(current, tasks, "query")
    given = name_all(params=weights, generator=generator_weights) | factors | tasks
    return given, name_all(gradient=differentiate(loss, trained)) | {"loss": loss}


def record_reptile(generator: np.random.Generator) -> Case:
    """Reptile (Nichol et al. 2018, 1803.02999; openai/supervised-reptile): Adam without momentum goes on in a task."""
    weights, tasks = draw_network(generator), draw_tasks(generator)
    second = {name: 0.1 * tensor**2 for name, tensor in draw_network(generator).items()}
    current, moments, weight = dict(weights), dict(second), FIRST_MOMENTS
    for _ in range(STEPS):
        current = require(current)
        slopes = differentiate(measure(current, tasks, "support"), current)
        moments = {name: DECAY * moments[name] + (1 - DECAY) * slopes[name] ** 2 for name in moments}
        weight = DECAY * weight + (1 - DECAY)
        current = {
            name: (leaf - RATE * slopes[name] / ((moments[name] / weight).sqrt() + 1e-8)).detach()
            for name, leaf in current.items()
        }
    given = name_all(params=weights, second=second) | {"weight": torch.tensor(FIRST_MOMENTS)} | tasks
    return given, name_all(params=current, second=moments) | {"weight": torch.tensor(weight)}


def record_adam(generator: np.random.Generator) -> Case:
    """Three outer steps of MAML on one task, by torch.optim.Adam."""
    weights, tasks = draw_network(generator), draw_tasks(generator)
    start = require(weights)
    adam = torch.optim.Adam(list(start.values()), lr=OUTER_RATE)
    for _ in range(3):
        adam.zero_grad()
        rates = {name: torch.tensor(RATE) for name in start}
        measure(descend(start, tasks, rates), tasks, "query").backward()
        adam.step()
    return weights | tasks, name_all(trained=start)


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "maml": record_maml,
    "fomaml": lambda generator: record_maml(generator, order="first"),
    "anil": lambda generator: record_maml(generator, only="head", extra=0),
    "meta-sgd": record_meta_sgd,
    "protonet": record_protonet,
    "cavia": record_cavia,
    "imaml": record_imaml,
    "alfa": record_alfa,
    "reptile": record_reptile,
    "adam": record_adam,
}


def record() -> dict[str, np.ndarray]:
    """Return the arrays of all cases, each drawn by a seed of its own."""
    torch.set_default_dtype(torch.float64)
    arrays: dict[str, np.ndarray] = {}
    for seed, (case, function) in enumerate(CASES.items()):
        given, expected = function(np.random.default_rng(seed))
        for name, tensor in name_all(given=given, expected=expected).items():
            arrays[f"{case}/{name}"] = tensor.detach().numpy()
    return arrays


def find_differences(arrays: dict[str, np.ndarray]) -> Sequence[str]:
    """Return the names of the arrays that the stored file has not, or has otherwise."""
    with np.load(FILE) as stored:
        missing = sorted(set(stored.files) ^ arrays.keys())
        common = sorted(set(stored.files) & arrays.keys())
        return missing + [name for name in common if np.abs(stored[name] - arrays[name]).max() > TOLERANCE]


def main() -> int:
    """Record, or check what is recorded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the stored file")
    arguments = parser.parse_args()
    arrays = record()
    if arguments.check:
        different = find_differences(arrays)
        print(f"{len(arrays)} arrays, {len(different)} of them differ: {', '.join(different)}")
        return 1 if different else 0
    np.savez_compressed(FILE, allow_pickle=False, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
