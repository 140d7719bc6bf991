"""Distillation: a student equal to its teacher learns nothing from it; the distances against numpy."""

import functools

import jax
import numpy as np
import pytest

from helpers import builders, compiled, trees
from metarun import base, errors
from metarun.algorithms import distillation, maml
from metarun.algorithms.distillation import student_support, teacher_distance
from metarun.base import Examples, Weights
from metarun.blocks import ensemble, output_distance
from metarun.tasks import _sentences

KEY = jax.random.key(0)
MATCHES = ("outputs", "features", "both")


class School:
    """Blobs, a teacher and a narrower student, both MAML unless said otherwise."""

    def __init__(self, student: str) -> None:
        self.family = builders.blobs(shots=4)
        problem = self.family.problem
        self.models = {
            "teacher": builders.build_model("mlp", problem.spec),
            "student": builders.build_model("mlp", problem.spec, hidden=(5, 5)),
        }
        stages = {
            "teacher": maml.build(maml.Config(inner_lr=0.3), self.models["teacher"], problem),
            "student": builders.build_algorithm(student, self.models["student"], problem),
        }
        self.stages = {name: compiled.compile_algorithm(stage) for name, stage in stages.items()}
        self.episodes = compiled.sample(self.family, KEY, 2)
        self.earlier = {name: stage.init(KEY, self.episodes, {}) for name, stage in self.stages.items()}


make_school = functools.cache(School)


class Case:
    """A student of such a school, of one teacher or of several copies."""

    def __init__(self, copies: int | None = None, student: str = "maml", **options) -> None:
        school = make_school(student)
        self.family, self.models, self.stages = school.family, school.models, school.stages
        self.episodes, self.earlier = school.episodes, dict(school.earlier)
        self.episode = compiled.select(self.episodes, 0)
        if copies:
            draws = jax.random.split(jax.random.key(7), copies)
            init = jax.vmap(lambda key: self.stages["teacher"].init(key, self.episodes, {}))
            self.earlier["teacher"] = jax.jit(init)(draws)
        self.algorithm = build(student, distillation.Config(**options))

    def weights(self) -> Weights:
        return self.algorithm.init(jax.random.key(3), self.episodes, self.earlier)

    def answer(self, name: str, weights: Weights, support=None) -> np.ndarray:
        support, inputs = support or self.episode.support, self.episode.query.inputs
        return np.asarray(compiled.answer(self.stages[name], weights, support, inputs), np.float64)


@functools.cache
def build(student: str, config: distillation.Config) -> base.Algorithm:
    school = make_school(student)
    algorithm = distillation.build(config, school.models["student"], school.family.problem, school.stages)
    return compiled.compile_algorithm(algorithm)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("matches", MATCHES)
def test_a_student_equal_to_its_teacher_has_no_gradient(matches):
    case = Case(teachers=("student",), start="trained", share=1.0, matches=matches)
    weights = case.weights()
    trees.assert_equal(weights.trained, case.earlier["student"].trained)

    def loss(trained):
        return case.algorithm.loss(weights._replace(trained=trained), case.episode, KEY, 0.0)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(weights.trained)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-5


@pytest.mark.parametrize("copies", [None, 3])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_matching_loss_is_the_divergence_from_the_mean_of_the_teachers(copies, temperature):
    case = Case(copies=copies, share=1.0, temperature=temperature)
    weights = case.weights()
    teachers = case.earlier["teacher"]
    each = [
        case.answer("teacher", compiled.select(teachers, i) if copies else teachers)
        for i in range(copies or 1)
    ]
    taught = np.mean([softmax(logits / temperature) for logits in each], axis=0)
    answered = softmax(case.answer("student", Weights(weights.trained)) / temperature)
    expected = temperature**2 * (taught * np.log(taught / answered)).sum(axis=-1).mean()
    np.testing.assert_allclose(case.algorithm.loss(weights, case.episode, KEY, 0.0)[0], expected, rtol=1e-3)


def test_the_loss_is_the_share_of_matching_and_the_students_own():
    parts = {}
    for share in (0.0, 0.3, 1.0):
        case = Case(share=share)
        weights = case.weights()
        parts[share] = case.algorithm.loss(weights, case.episode, KEY, 0.0)[0]
    np.testing.assert_allclose(parts[0.3], 0.7 * parts[0.0] + 0.3 * parts[1.0], rtol=1e-5)
    own = case.stages["student"].loss(Weights(weights.trained), case.episode, KEY, 0.0)[0]
    np.testing.assert_allclose(parts[0.0], own, rtol=1e-6)


def test_a_metric_student_learns_from_a_gradient_teacher():
    case = Case(student="protonet", share=1.0)
    weights = case.weights()

    def loss(trained):
        return case.algorithm.loss(weights._replace(trained=trained), case.episode, KEY, 0.0)[0]

    compute = jax.jit(jax.value_and_grad(loss))
    before, gradient = compute(weights.trained)
    step = jax.tree.map(lambda slope: np.float32(0.01) * np.asarray(slope), gradient)
    assert compute(jax.tree.map(np.subtract, weights.trained, step))[0] < before


def test_features_of_different_widths_are_compared_by_their_similarities():
    case = Case(matches="features", share=1.0)
    weights, grams = case.weights(), []
    for name, of in (("teacher", case.earlier["teacher"]), ("student", Weights(weights.trained))):
        learner = case.stages[name].adapt(of, case.episode.support)
        embed = jax.jit(case.models[name].embed)
        features = np.asarray(embed(learner.params, case.episode.query.inputs), np.float64)
        gram = features @ features.T
        grams.append(gram / np.linalg.norm(gram, axis=1, keepdims=True))
    expected = np.square(grams[0] - grams[1]).mean()
    np.testing.assert_allclose(case.algorithm.loss(weights, case.episode, KEY, 0.0)[0], expected, rtol=1e-4)


def test_outputs_and_features_are_matched_at_once_with_the_weight_of_the_features():
    case = Case()
    support, query = case.episode.support, case.episode.query
    teachers = {"teacher": case.stages["teacher"]}

    @jax.jit
    def measure(weights):
        learner = case.stages["student"].adapt(weights["student"], support)
        copies = jax.tree.map(lambda leaf: leaf[None], weights["teacher"])
        learners = ensemble.adapt(teachers, {"teacher": copies}, support)
        distances = []
        for matches in ("outputs", "features", "both"):
            config = distillation.Config(matches=matches, feature_weight=3.0)
            distance = teacher_distance.make_distance(
                config, teachers, case.stages["student"], case.family.problem
            )
            distances.append(distance(learner, learners, query, query.inputs))
        return distances

    outputs, features, both = measure(case.earlier)
    np.testing.assert_allclose(both, outputs + 3.0 * features, rtol=1e-6)


def test_numbers_are_matched_by_their_squared_distance_to_the_mean_of_the_teachers():
    generator = np.random.default_rng(0)
    student, teachers = generator.normal(size=(5, 2)), generator.normal(size=(3, 5, 2))
    measure = jax.jit(output_distance.measure_output_distance, static_argnums=(0, 4))
    distance = measure(builders.regression_problem(3, 2), student, teachers, np.zeros((5, 2)), 3.0)
    np.testing.assert_allclose(distance, np.square(student - teachers.mean(axis=0)).mean(), rtol=1e-5)


def test_padding_of_a_sentence_is_not_matched():
    objective = base.Objective(_sentences.cross_entropy, lambda outputs, targets: {}, lambda *_: {})
    problem = base.Problem(base.Spec((4,), 6, "tokens", vocabulary=6), objective)
    targets = np.array([[4, 2, 0, 0], [3, 5, 2, 0]])
    generator = np.random.default_rng(0)
    student, teacher = (generator.normal(size=(2, 4, 6)).astype(np.float32) for _ in range(2))
    find = jax.jit(functools.partial(output_distance.find_counted, objective))
    np.testing.assert_array_equal(find(student, targets), targets != 0)

    @jax.jit
    def measure(student, teacher, targets):
        return output_distance.measure_output_distance(problem, student, teacher, targets, 1.0)

    def distance(student):
        return measure(student, teacher[None], targets)

    other = np.where((targets == 0)[..., None], 9.0 * student, student)
    np.testing.assert_allclose(distance(student), distance(other), rtol=1e-6)
    assert distance(2 * student) != distance(student)


take_shots = jax.jit(student_support.take_shots, static_argnums=(1, 2))


@pytest.mark.parametrize("shots", [1, 3])
def test_the_student_sees_the_first_shots_of_each_class_and_the_teacher_all(shots):
    case = Case(share=1.0, student_shots=shots)
    weights = case.weights()
    order = np.random.default_rng(0).permutation(12)
    support = compiled.select(case.episode.support, order)
    labels = np.asarray(support.targets)
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == way)[:shots] for way in range(3)]))
    few = take_shots(support, shots, 3)
    trees.assert_equal(few, compiled.select(support, chosen))
    taught = softmax(case.answer("teacher", case.earlier["teacher"], support))
    answered = softmax(case.answer("student", Weights(weights.trained), few))
    loss = case.algorithm.loss(weights, case.episode._replace(support=support), KEY, 0.0)[0]
    np.testing.assert_allclose(loss, (taught * np.log(taught / answered)).sum(axis=-1).mean(), rtol=1e-3)


def test_the_places_of_a_class_with_too_few_examples_go_to_the_others():
    support = base.Examples(np.arange(5), np.array([0, 0, 0, 1, 0]))
    assert take_shots(support, 2, 2).inputs.tolist() == [0, 1, 3, 2]


def test_without_classes_the_student_sees_the_first_examples():
    support = Examples(np.arange(8.0)[:, None], np.arange(8.0)[:, None])
    np.testing.assert_array_equal(take_shots(support, 3, None).inputs, support.inputs[:3])


def test_a_fresh_student_begins_as_its_own_stage_did():
    case = Case()
    fresh = case.stages["student"].init(jax.random.key(3), case.episodes, {})
    trees.assert_equal(case.weights().trained, fresh.trained)


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(errors.ConfigError, match="the task has 12"):
        Case(student_shots=5).weights()
    with pytest.raises(errors.ConfigError, match="no last layer"):
        Case(student="protonet", matches="features").weights()
    with pytest.raises(ValueError, match="none of that name"):
        Case(teachers=("nobody",))


def test_a_student_that_trains_nothing_is_refused():
    case = Case()
    silent = case.stages["student"]._replace(init=lambda key, episodes, earlier: Weights({}, ()))
    config, stages = distillation.Config(), case.stages | {"student": silent}
    algorithm = distillation.build(config, case.models["student"], case.family.problem, stages)
    with pytest.raises(errors.ConfigError, match="student trains nothing"):
        algorithm.init(KEY, case.episodes, case.earlier)


def test_the_loss_of_a_student_is_annealed_as_in_its_own_stage():
    case = Case()
    model, problem = case.models["student"], case.family.problem
    settings = maml.Config(inner_steps=3, inner_lr=0.3, outer_loss="annealed")
    own = compiled.compile_algorithm(maml.build(settings, model, problem))
    stages = case.stages | {"student": own}
    config = distillation.Config(share=0.0)
    taught = compiled.compile_algorithm(distillation.build(config, model, problem, stages))
    weights = taught.init(KEY, case.episodes, case.earlier)
    losses = [
        (
            taught.loss(weights, case.episode, KEY, done)[0],
            own.loss(Weights(weights.trained), case.episode, KEY, done)[0],
        )
        for done in (0.0, 0.9)
    ]
    np.testing.assert_allclose(*np.transpose(losses), rtol=1e-6)
    assert abs(losses[0][0] - losses[1][0]) > 1e-3


def test_a_taught_learner_goes_on_adapting_as_its_student_does():
    case = Case(start="trained")
    own, learner = case.stages["student"], case.algorithm.adapt(case.weights(), case.episode.support)
    found = case.algorithm.update(case.weights(), learner, case.episode.support)
    trees.assert_equal(found, own.update(case.earlier["student"], learner, case.episode.support))


def test_a_student_cannot_start_as_several():
    case = Case(copies=2)
    config = distillation.Config(teachers=("student",), student="teacher", start="trained")
    algorithm = distillation.build(config, case.models["teacher"], case.family.problem, case.stages)
    with pytest.raises(errors.ConfigError, match="has copies"):
        algorithm.init(KEY, case.episodes, case.earlier)


def test_shuffled_answers_are_the_teachers_answers_to_other_queries_of_the_episode():
    """The loss is the divergence from the teacher's answers in one order of the queries, which the key draws."""
    own, shuffled = (
        Case(teachers=("teacher",), share=1.0, answers=answers) for answers in ("own", "shuffled")
    )
    weights = own.weights()
    found = float(shuffled.algorithm.loss(weights, own.episode, KEY, 0.0)[0])
    again = float(shuffled.algorithm.loss(weights, own.episode, KEY, 0.0)[0])
    assert found == again != pytest.approx(float(own.algorithm.loss(weights, own.episode, KEY, 0.0)[0]))
    count = len(own.episode.query.targets)
    order = jax.random.permutation(jax.random.fold_in(KEY, distillation.SHUFFLE), count)
    teacher = softmax(own.answer("teacher", own.earlier["teacher"]))[order]
    student = softmax(own.answer("student", Weights(weights.trained)))
    expected = (teacher * (np.log(teacher) - np.log(student))).sum(axis=-1).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
