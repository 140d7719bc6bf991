"""`metarun online`: streams of drifting tasks, the learners that follow them, and what is refused."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled
from helpers.builders import build_task
from helpers.runs import SINGLE, train
from helpers.trees import assert_equal
from metarun import base, cli, errors, plugins
from metarun.finished import adaptive_learner, drift
from metarun.finished.drift import Stream
from metarun.finished.finished_run import find_run

KEY = jax.random.key(3)
OTHER = jax.random.key(4)


def make_examples(value) -> base.Examples:
    """Make two examples with this target."""
    return base.Examples(jnp.zeros((2, 1)), jnp.full((2, 1), value))


def draw_position(data, task_key, position, examples_key) -> base.Episode:
    """Draw an episode whose target is the position itself."""
    return base.Episode(make_examples(position), make_examples(position))


def sample(data, key) -> base.Episode:
    """Draw an episode at position 0."""
    return draw_position(data, key, 0.0, key)


FAMILY = base.TaskFamily({"test": ()}, sample, builders.regression_problem(), drift=draw_position)
MEAN = base.Algorithm(  # answers with the mean target; an update moves half of the way to the newest
    init=lambda key, episodes, earlier: base.Weights(()),
    loss=lambda weights, episode, key, progress: (0.0, {}),
    adapt=lambda weights, support: support.targets.mean(),
    predict=lambda learner, inputs: jnp.full((inputs.shape[0], 1), learner),
    update=lambda weights, learner, support: 0.5 * (learner + support.targets.mean()),
)


def follow(algorithm: base.Algorithm, speed: float, times: int):
    """Follow one stream of the family."""
    function = drift.make_follow(algorithm, FAMILY, Stream(times, speed))
    return function(base.Weights(()), (), KEY)


def test_each_learner_answers_before_it_sees_the_support_and_after():
    speed, times = 0.5, np.arange(1, 5)
    scores = follow(MEAN, speed, 4)
    np.testing.assert_allclose(scores["kept"]["before"]["loss"], (speed * times) ** 2, rtol=1e-6)
    np.testing.assert_allclose(scores["kept"]["after"]["loss"], (speed * times) ** 2, rtol=1e-6)
    np.testing.assert_allclose(scores["restarted"]["before"]["loss"], speed**2, rtol=1e-6)
    np.testing.assert_allclose(scores["restarted"]["after"]["loss"], 0.0, atol=1e-12)
    lag = speed * (1 - 0.5**times)  # of a learner that halves its distance at every time
    np.testing.assert_allclose(scores["continued"]["after"]["loss"], lag**2, rtol=1e-5)
    np.testing.assert_allclose(scores["continued"]["before"]["loss"], (2 * lag) ** 2, rtol=1e-5)


CORNERS = 9 * np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], np.float32)


def draw_corner(data, task_key, position, examples_key) -> base.Episode:
    """Draw an episode whose target is one of three corners, which are nearer to zero than to each other."""
    corner = jnp.asarray(CORNERS)[position.astype(jnp.int32) % 3]
    examples = base.Examples(jnp.zeros((2, 1)), jnp.tile(corner[None], (2, 1)))
    return base.Episode(examples, examples)


CORNER_FAMILY = base.TaskFamily({"test": ()}, sample, builders.regression_problem(1, 2), drift=draw_corner)
JUMPING = base.Algorithm(  # its start answers zero, one support takes it nine tenths of the way, an update half of it
    init=MEAN.init,
    loss=MEAN.loss,
    adapt=lambda weights, support: 0.9 * support.targets.mean(axis=0),
    predict=lambda learner, inputs: jnp.tile(learner[None], (inputs.shape[0], 1)),
    update=lambda weights, learner, support: 0.5 * (learner + support.targets.mean(axis=0)),
    watch=lambda weights, support, points: points.observe(jnp.zeros(2))[None],
)


@pytest.mark.parametrize("kind", ["switches", "returns"])
def test_a_stream_stays_at_whole_places_and_changes_as_often_as_its_speed_says(kind):
    stream = Stream(400, 0.25, kind, tasks=3)
    place = jax.jit(jax.vmap(lambda key: drift.place_stream(stream, key)))
    places = np.asarray(place(jax.random.split(KEY, 20)))
    np.testing.assert_array_equal(places, np.round(places))
    changes = np.diff(places, axis=1)
    assert 0.23 < (changes != 0).mean() < 0.27
    if kind == "switches":
        assert set(np.unique(changes)) == {0.0, 1.0}
    else:
        assert set(np.unique(places)) == {0.0, 1.0, 2.0}
        assert set(np.unique(changes)) == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_the_adaptive_learner_restarts_at_what_is_new_recalls_what_was_there_and_else_continues():
    stream = Stream(40, 0.2, "returns", tasks=3)
    follow = jax.jit(drift.make_follow(JUMPING, CORNER_FAMILY, stream))
    found = jax.device_get(follow(base.Weights(()), (), KEY))
    places = np.asarray(drift.place_stream(stream, jax.random.fold_in(KEY, drift.PLACES)))
    assert len(set(places)) == 3
    expected = []
    for time in range(1, 41):
        new, same = places[time] not in places[:time], places[time] == places[time - 1]
        expected.append("continue" if same else "restart" if new else "recall")
    assert [adaptive_learner.CHOICES[choice] for choice in found["choices"]] == expected
    means = {name: found[name]["after"]["loss"].mean() for name in drift.LEARNERS}
    assert means["adaptive"] < min(means[name] for name in drift.LEARNERS if name != "adaptive")


def test_the_adaptive_learner_answers_with_the_fresh_learner_where_going_on_is_worse():
    worse = JUMPING._replace(update=lambda weights, learner, support: learner - 0.3)
    follow = jax.jit(drift.make_follow(worse, CORNER_FAMILY, Stream(20, 0.0)))
    found = jax.device_get(follow(base.Weights(()), (), KEY))
    restarted, adaptive = (found[name]["after"]["loss"] for name in ("restarted", "adaptive"))
    np.testing.assert_array_equal(adaptive[6:], restarted[6:])


def test_pairs_are_differences_of_the_means_of_each_stream():
    generator = np.random.default_rng(0)
    scores = {
        name: {moment: {"loss": generator.standard_normal((6, 4))} for moment in drift.MOMENTS}
        for name in ("kept", "adaptive")
    }
    pairs = drift.compare_pairs(scores)
    assert set(pairs) == {"kept"}
    differences = (scores["adaptive"]["after"]["loss"] - scores["kept"]["after"]["loss"]).mean(axis=1)
    found = pairs["kept"]["after"]["loss"]
    assert found["mean"] == pytest.approx(differences.mean())
    assert found["ci95"] == pytest.approx(2.570582 * differences.std(ddof=1) / 6**0.5)


def test_an_algorithm_that_cannot_go_on_has_no_continued_learner():
    assert set(follow(MEAN._replace(update=None), 0.5, 2)) == {"kept", "restarted"}


def test_a_sinusoid_drifts_on_a_straight_line_between_independent_tasks():
    family = build_task("sinusoid")
    draw = jax.jit(jax.vmap(lambda position: family.drift((), KEY, position, OTHER).facts))
    facts = jax.device_get(draw(np.array([2.0, 2.25, 3.0], np.float32)))
    for name in ("amplitude", "phase"):
        start, between, end = facts[name].tolist()
        assert start != end
        np.testing.assert_allclose(between, 0.75 * start + 0.25 * end, rtol=1e-5)


@pytest.mark.slow
def test_omniglot_replaces_one_class_after_another():
    family = build_task("omniglot", ways=4, queries=2)
    data = jax.tree.map(jnp.asarray, family.data["train"])
    classes = jax.jit(lambda position: family.drift(data, KEY, position, OTHER).facts["class"])
    seen = [np.asarray(classes((number + 0.5) / 4)) for number in range(9)]
    for before, after in itertools.pairwise(seen):
        assert len(set(after)) == 4
        assert (before != after).sum() == 1
    assert not set(seen[0]) & set(seen[4])


@pytest.mark.parametrize("name", ["sinusoid", "omniglot"])
def test_an_episode_on_the_path_looks_as_any_other(name):
    family = build_task(name)
    data = jax.tree.map(jnp.asarray, family.data["test"])
    sampled = jax.eval_shape(family.sample, data, KEY)
    drifted = jax.eval_shape(family.drift, data, KEY, jax.ShapeDtypeStruct((), jnp.float32), OTHER)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), sampled) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), drifted
    )


def build(name: str, **options) -> tuple[base.Algorithm, base.TaskFamily]:
    family = build_task("sinusoid", shots=4, queries=4)
    model = plugins.load("model", "mlp")
    module = plugins.load("algorithm", name)
    network = model.build(model.Config(hidden=(8,)), family.problem.spec)
    return module.build(module.Config(**options), network, family.problem), family


def start(
    algorithm: base.Algorithm, family: base.TaskFamily
) -> tuple[base.Weights, base.Examples, base.Examples]:
    drawn = compiled.sample(family, KEY, 3)
    first = compiled.select(drawn, 0)
    return jax.jit(algorithm.init)(OTHER, drawn, {}), first.support, first.query


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maml", {}),
        ("maml", {"learned_lr": "parameter"}),
        ("maml", {"adapts": "head"}),
        ("reptile", {}),
        ("cavia", {"inner_lr": 0.1}),
        ("alfa", {}),
    ],
)
def test_going_on_with_the_same_support_is_taking_as_many_steps_again(name, options):
    short, family = build(name, inner_steps=2, **options)
    long, _ = build(name, inner_steps=4, **options)
    weights, support, query = start(short, family)

    @jax.jit
    def answer(weights, support, inputs):
        twice = short.update(weights, short.adapt(weights, support), support)
        return short.predict(twice, inputs), long.predict(long.adapt(weights, support), inputs)

    np.testing.assert_allclose(*answer(weights, support, query.inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reader", ["recurrent", "external"])
def test_a_memory_reads_on(reader):
    algorithm, family = build("memory", reader=reader, width=8)
    weights, first, second = start(algorithm, family)

    @jax.jit
    def read(weights, first, second):
        both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), first, second)
        read_on = algorithm.update(weights, algorithm.adapt(weights, first), second)
        return read_on.memory, algorithm.adapt(weights, both).memory

    jax.tree.map(np.testing.assert_allclose, *read(weights, first, second))
    assert build("memory", reader="attention", width=8)[0].update is None


def call(*arguments) -> int:
    """Return the exit code of `metarun ...`."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["metarun", *map(str, arguments)])
        cli.main()
    return ended.value.code


@pytest.mark.slow
def test_the_command_prints_a_table_or_json_and_draws(single, tmp_path, capsys):
    files = {path: path.stat().st_mtime_ns for path in single.rglob("*")}
    arguments = ["online", single, "evaluation.episodes=5", "--times", "4"]
    assert call(*arguments, "--plot", tmp_path / "online.png") == 0
    table = capsys.readouterr().out
    assert [line.split()[:2] for line in table.splitlines()[1:9]] == [
        [name, moment] for name in drift.LEARNERS for moment in drift.MOMENTS
    ]
    assert "adaptive minus" in table
    assert (tmp_path / "online.png").read_bytes().startswith(b"\x89PNG")
    assert call(*arguments, "--json", "--stream", "returns", "--tasks", "2") == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["streams"], measured["times"], measured["metric"]) == (5, 4, "loss")
    loss = measured["learners"]["continued"]["after"]["loss"]
    assert len(loss["over_time"]["mean"]) == 4
    assert sum(measured["choices"].values()) == pytest.approx(1)
    assert measured["choices_at_changes"].keys() == measured["choices"].keys()
    assert set(measured["pairs"]) == {"kept", "restarted", "continued"}
    assert loss["mean"] == pytest.approx(np.mean(loss["over_time"]["mean"]))
    assert {path: path.stat().st_mtime_ns for path in single.rglob("*")} == files


def test_changes_are_the_times_at_which_the_place_of_a_stream_is_another_one():
    keys = jax.random.split(jax.random.key(0), 3)
    for kind in ("switches", "returns"):
        stream = Stream(6, 0.5, kind)
        changed = drift.find_changes(stream, keys)
        for key, row in zip(keys, changed, strict=True):
            places = drift.place_stream(stream, jax.random.fold_in(key, drift.PLACES))
            assert list(row) == [places[time] != places[time - 1] for time in range(1, 7)]
        assert 0 < changed.mean() < 1


@pytest.mark.slow
def test_streams_are_frozen(single):
    run = find_run(single, ["evaluation.episodes=4"])
    first, second = (drift.measure(run, Stream(3, 0.2)) for _ in range(2))
    assert_equal(first, second)


def test_a_family_without_drift_and_a_wrong_speed_are_refused(tmp_path, capsys):
    mixture = SINGLE.replace("sinusoid", "mixture")
    still = train(tmp_path / "still", mixture, "training.steps=4")
    with pytest.raises(errors.UsageError, match="do not drift"):
        drift.measure(find_run(still), Stream())
    assert call("online", still, "--speed", "2") == 2
    assert call("online", still) == 2
    assert call("online", tmp_path / "nothing") == 5
    assert "Traceback" not in capsys.readouterr().err
