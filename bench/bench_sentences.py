"""Time sentences: tokens a second in training, and in decoding with and without remembered keys and values.

    python bench/bench_sentences.py --vocabulary 2000 --longest 40 --tasks 8

Sentences are random and all of the full length, so that nothing depends on a corpus and no answer ends early. A token
of the training is one position of a target, of support or query, whether it is padding or not; a token of an answer is
one that is said. The network is `seq2seq` with random weights; the learner is MAML. Prints one JSON object a line.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base
from metarun.algorithms import maml
from metarun.models import seq2seq
from metarun.tasks import _sentences


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("vocabulary", 2000), ("longest", 40), ("width", 64), ("tasks", 8), ("shots", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--inner-steps", type=int, default=3)
    parser.add_argument("--order", choices=("first", "second"), default="second")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    spec = base.Spec((options.longest + 1,), options.vocabulary, "tokens", options.vocabulary)
    model = seq2seq.build(seq2seq.Config(width=options.width), spec)
    examples = draw(options)
    params = jax.jit(model.init)(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], examples).inputs)
    print(json.dumps({"device": jax.devices()[0].device_kind, **vars(options)}))
    print(json.dumps(measure_decoding(options, model, params, examples)), flush=True)
    print(json.dumps(measure_training(options, model, spec, params, examples)), flush=True)


def draw(options: argparse.Namespace) -> base.Examples:
    """Return sentences of the full length, leaves [task, example, token]."""
    shape = (2, options.tasks * options.shots, options.longest)
    tokens = np.random.default_rng(0).integers(_sentences.SPECIAL, options.vocabulary, shape)
    source, target = (jnp.asarray(_sentences.pack(side.tolist(), options.longest + 1)) for side in tokens)
    flat = _sentences.pair_up(source, target)
    return jax.tree.map(lambda leaf: leaf.reshape(options.tasks, options.shots, -1), flat)


def measure_decoding(options: argparse.Namespace, model: base.Model, params, examples) -> dict[str, Any]:
    """Return tokens a second of greedy answers, and whether both ways give the same."""
    inputs = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), examples.inputs)

    def remember(params, inputs):
        return _sentences.translate(lambda asked: model.apply(params, asked), inputs)

    def anew(params, inputs):
        def predict(asked):
            return model.apply(params, {name: asked[name] for name in ("source", "prefix")})

        return _sentences.translate(predict, inputs)

    answers, report = {}, {}
    for name, decode in {"remembered": remember, "anew": anew}.items():
        program = jax.jit(decode)
        answers[name] = np.asarray(program(params, inputs))
        said = int((answers[name] != base.PAD).sum())
        report[name] = round(said / find_seconds(lambda: program(params, inputs), options.repeats))  # noqa: B023
    same = bool((answers["remembered"] == answers["anew"]).all())
    return {"what": "decoding", "tokens_per_second": report, "same_answers": same}


def measure_training(options: argparse.Namespace, model, spec, params, examples) -> dict[str, Any]:
    """Return tokens a second of the outer gradient of MAML over all tasks."""
    objective = base.Objective(_sentences.cross_entropy, lambda *_: {}, lambda *_: {})
    config = maml.Config(inner_steps=options.inner_steps, inner_lr=0.3, order=options.order)
    algorithm = maml.build(config, model, base.Problem(spec, objective))

    def loss(params):
        def lose(episode):
            return algorithm.loss(base.Weights(params), episode, jax.random.key(0), 0.0)[0]

        return jnp.mean(jax.lax.map(lose, base.Episode(examples, examples)))

    program = jax.jit(jax.grad(loss))
    jax.block_until_ready(program(params))
    seconds = find_seconds(lambda: program(params), options.repeats)
    tokens = 2 * options.tasks * options.shots * (options.longest + 1)
    report = {"what": "training", "steps_per_second": round(1 / seconds, 3)}
    return report | {"tokens_per_second": round(tokens / seconds)}


def find_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the least seconds of some runs: whatever else the machine does only adds to it."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


if __name__ == "__main__":
    main()
