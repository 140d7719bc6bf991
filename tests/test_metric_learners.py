"""What the algorithms share that compare queries with the support: no last layer, any ways and shots, any order."""

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_experiment import load, read_json, train

from metarun import assessment, base, building, errors, losses, plugins
from metarun.base import Episode, Examples, Weights
from metarun.progress import Progress
from metarun.runs import metrics

KEY = jax.random.key(0)  # none of their losses uses random numbers
SUPPORT_LABELS = (2, 0, 1, 0, 2, 2)  # unequal shots, in no order
QUERY_LABELS = (0, 1, 2, 1)
VARIANTS = [
    ("protonet", {}),
    ("protonet", {"distance": "cosine"}),
    ("matching", {}),
    ("matching", {"context": "full", "reads": 2}),
    ("relation", {"hidden": (4,)}),
    ("relation", {"hidden": (4,), "training_loss": "cross_entropy"}),
    ("mapping", {}),
    ("mapping", {"normalised": True, "distance": "cosine"}),
]
every_variant = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=[f"{name} {options}" for name, options in VARIANTS]
)


class Case:
    """A metric learner over a small smooth network with random weights, on a random episode, in float64."""

    def __init__(self, name: str, ways: int = 3, **options) -> None:
        generator = np.random.default_rng(5)
        inputs = [
            jnp.asarray(generator.standard_normal((len(labels), 2)))
            for labels in (SUPPORT_LABELS, QUERY_LABELS)
        ]
        labels = [jnp.asarray(labels, jnp.int32) for labels in (SUPPORT_LABELS, QUERY_LABELS)]
        self.episode = Episode(*(Examples(*part) for part in zip(inputs, labels, strict=True)))
        small = {"hidden": (5, 4), "activation": "tanh", "normalisation": "batch"}
        self.model = contracts.build_model("mlp", base.Spec((2,), ways), **small)
        self.objective = losses.classification(ways)
        module = plugins.load("algorithm", name)
        self.algorithm = module.build(module.Config(**options), self.model, self.objective)
        batch = jax.tree.map(lambda leaf: leaf[None], self.episode)
        shapes = jax.eval_shape(self.algorithm.init, KEY, batch, {})
        self.weights = Weights(contracts.to_float64(contracts.normal_like(shapes.trained, 1)))

    @property
    def body(self):
        return self.weights.trained.get("features", self.weights.trained)

    def features(self, inputs) -> np.ndarray:
        return np.asarray(self.model.embed(self.body, inputs, reference=self.episode.support.inputs))

    def outputs(self, support: Examples | None = None) -> np.ndarray:
        learner = jax.jit(self.algorithm.adapt)(self.weights, support or self.episode.support)
        return np.asarray(jax.jit(self.algorithm.predict)(learner, self.episode.query.inputs))

    def loss(self, trained=None, episode: Episode | None = None):
        return self.algorithm.loss(Weights(trained or self.weights.trained), episode or self.episode, KEY)


@pytest.fixture(autouse=True)
def in_float64(request):
    if "run" in request.node.name:  # whole runs are in float32
        yield
        return
    with contracts.float64():
        yield


@every_variant
def test_the_models_last_layer_is_not_among_the_weights(name, options):
    case = Case(name, **options)
    whole = case.model.init(KEY, case.episode.support.inputs)
    assert set(case.body) == set(whole) - {"head"}
    shapes = {part: jax.tree.map(jnp.shape, whole[part]) for part in case.body}
    assert jax.tree.map(jnp.shape, case.body) == shapes


@every_variant
def test_the_gradient_is_that_of_differences_of_the_loss(name, options):
    case = Case(name, **options)
    gradient = jax.jit(jax.grad(lambda trained: case.loss(trained)[0]))(case.weights.trained)
    contracts.assert_gradient_is_that_of(
        lambda trained: case.loss(trained)[0], gradient, case.weights.trained
    )


@every_variant
def test_the_metrics_are_those_of_what_adapt_and_predict_give(name, options):
    case = Case(name, **options)
    outputs, labels = jnp.asarray(case.outputs()), case.episode.query.targets
    noted = case.loss()[1]
    assert noted["loss"] == pytest.approx(float(losses.cross_entropy(outputs, labels)), rel=1e-12)
    assert noted["accuracy"] == losses.accuracy(outputs, labels)


@every_variant
def test_the_order_of_the_support_does_not_matter_where_labels_order_it(name, options):
    """The full context reads the examples of one class in the order in which they come: that one is kept."""
    case = Case(name, **options)
    order = np.argsort(SUPPORT_LABELS, kind="stable")
    inputs, labels = case.episode.support
    np.testing.assert_allclose(
        case.outputs(Examples(inputs[order], labels[order])), case.outputs(), rtol=1e-10, atol=1e-12
    )


@every_variant
def test_the_same_weights_tell_other_ways_apart_than_they_were_trained_in(name, options):
    """Weights made for three ways, in two: the third class is gone from support and outputs."""
    case, fewer = Case(name, **options), Case(name, ways=2, **options)
    assert contracts.kind_of(fewer.weights) == contracts.kind_of(case.weights)
    kept = np.flatnonzero(np.asarray(SUPPORT_LABELS) < 2)
    support = jax.tree.map(lambda leaf: leaf[kept], case.episode.support)
    assert case.outputs().shape == (len(QUERY_LABELS), 3)
    outputs = fewer.outputs(support)
    assert outputs.shape == (len(QUERY_LABELS), 2)
    swapped = fewer.outputs(Examples(support.inputs, 1 - support.targets))
    if options.get("context") != "full":  # there the classes are read in the order of their labels
        np.testing.assert_allclose(swapped[:, ::-1], outputs, rtol=1e-10, atol=1e-12)


@every_variant
def test_adaptation_sees_neither_the_query_nor_the_facts(name, options):
    case = Case(name, **options)
    watched = case.objective._replace(training_metrics=lambda outputs, labels: {"outputs": outputs})
    module = plugins.load("algorithm", name)
    algorithm = module.build(module.Config(**options), case.model, watched)
    query = case.episode.query

    def outputs(query, facts):
        return algorithm.loss(case.weights, Episode(case.episode.support, query, facts), KEY)[1]["outputs"]

    other = Examples(query.inputs, (query.targets + 1) % 3)
    contracts.assert_equal(outputs(other, {"character": jnp.arange(3)}), outputs(query, ()))
    alone = outputs(jax.tree.map(lambda leaf: leaf[:1], query), ())
    np.testing.assert_allclose(alone, outputs(query, ())[:1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["protonet", "matching", "relation", "mapping"])
def test_a_family_without_classes_is_refused(tmp_path, name):
    run_config = load(tmp_path, OWN_WAYS.format(folder=".", name=name))
    sinusoid = building.task_family(load(tmp_path).task)
    with pytest.raises(errors.ConfigError) as raised:
        building.algorithm(run_config, 0, sinusoid._replace(spec=base.Spec((8, 8, 3), 6)))
    assert raised.value.where == f"algorithm of stage {name}"
    assert raised.value.what == f"{name} compares examples with classes, and this task family has none"


OWN_WAYS = """
task: {{name: image_folder, folder: {folder}, size: 8, ways: 6, shots: 2, queries: 3, counts: [18, 6, 6]}}
model: {{name: conv4, width: 4, depth: 2}}
algorithm: {{name: {name}}}
training: {{steps: 4, tasks_per_step: 2, chunk: 2}}
evaluation: {{every: 2, episodes: 6, ways: 3, shots: 1, queries: 2}}
accelerator: {{platform: cpu, devices: 1}}
"""


def test_a_run_trains_in_its_own_ways_and_shots_and_is_validated_and_tested_in_others(tmp_path):
    path = train(tmp_path / "run", OWN_WAYS.format(folder=contracts.picture_folder(), name="protonet"))
    rows = metrics.read(path / "metrics.jsonl")
    shares = {
        split: [row["accuracy"] for row in rows if row["split"] == split] for split in ("train", "validation")
    }
    for split, pictures in {"train": 2 * 6 * 3, "validation": 6 * 3 * 2}.items():  # of a step, of the list
        assert len(shares[split]) == {"train": 4, "validation": 2}[split]
        counts = np.array(shares[split]) * pictures
        np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    again = assessment.evaluate(path, [], None, Progress()).result
    assert again["stages"] == read_json(path / "result.json")["stages"]
    wider = assessment.evaluate(path, ["evaluation.ways=5"], None, Progress()).result
    assert wider["episodes"]["hash"] != again["episodes"]["hash"]
    assert 0 <= wider["stages"]["protonet"]["inductive"]["adapted"]["accuracy"]["mean"] <= 1


def test_a_run_with_an_output_a_way_is_refused_in_other_ways_before_its_first_step(tmp_path):
    with pytest.raises(errors.ConfigError, match="6 outputs and cannot tell 3 classes") as raised:
        train(tmp_path / "run", OWN_WAYS.format(folder=contracts.picture_folder(), name="maml"))
    assert raised.value.where == "evaluation.ways"
    assert metrics.read(tmp_path / "run" / "metrics.jsonl") == []
