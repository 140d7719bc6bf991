"""Budgets: FLOPs against a closed form, the stop by each budget, and what cannot be trained by one."""

import dataclasses
import os
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, loops
from helpers.assembled import assemble
from helpers.commands import assert_three_lines
from helpers.runs import SINGLE, last_checkpoints, load, read_json, train, weights
from metarun import base, config, errors, experiment, meshes, signals
from metarun.assembly import Tasks
from metarun.cli import progress_display, text_tables
from metarun.config import Training, differences
from metarun.hosts.processes import Processes
from metarun.progress import Progress
from metarun.sweeps import halving
from metarun.training import budgets, loop, operations, stage_run, traceable
from metarun.training.first_memory import make_memory
from metarun.training.loop import Program
from metarun.training.pace import Pace

SHOTS, QUERIES, HIDDEN, TASKS = 5, 3, (16, 8), 6
# A multi-layer perceptron 1-16-8-1: the products of its forward pass for one example, input by output of each layer.
LAYERS = 1 * 16 + 16 * 8 + 8 * 1
FIRST = 1 * 16
MAML = SINGLE.replace("shots: 5, queries: 5", f"shots: {SHOTS}, queries: {QUERIES}").replace(
    "hidden: [8]", f"hidden: {list(HIDDEN)}"
)


class Stopping(Progress):
    """Sends this process a signal once a stage has reached a step."""

    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step

    def advanced(self, stage, step, count, seconds, metrics) -> None:
        if (stage, step) == (self.stage, self.step):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def count(tmp_path):
    """Return (overrides) -> the FLOPs of an outer step of MAML on that perceptron."""

    def count_flops(*overrides: str) -> float:
        built = assemble(tmp_path, MAML, f"training.tasks_per_step={TASKS}", *overrides)
        shapes = built.stage.trace_weights(built.tasks.family.sample, built.tasks.data["train"], {})
        return budgets.count_step_flops(built.stage, shapes, built.tasks)

    return count_flops


def count_by_hand(steps: int, second_order: bool) -> int:
    """Return the FLOPs of an outer step of MAML, two for each product.

    A forward pass takes one product for each weight, its gradient in the weights another, and the gradient in the
    inputs another but for the first layer, whose inputs need none. Backwards through an inner step, every one of these
    products gives the gradient of both its factors, but for the factors that do not depend on the weights: the inputs.
    """
    forward, backward = LAYERS, 2 * LAYERS - FIRST
    inner = SHOTS * steps * (forward + backward)
    outer = QUERIES * (forward + backward)
    if not second_order:
        return 2 * TASKS * (inner + outer)
    # A layer whose inputs depend on the weights has 3 products (outputs, weights, inputs) with 2 gradients each, so 6;
    # the first layer has 2 (outputs, weights) with one each. At the first inner step nothing is dropped either: the
    # initial weights are what is trained.
    through = 6 * (LAYERS - FIRST) + 2 * FIRST
    return 2 * TASKS * (inner + outer + SHOTS * steps * through)


@pytest.mark.parametrize("steps", [1, 3])
def test_flops_of_first_order_maml_are_the_products_counted_by_hand(count, steps):
    options = ("algorithm.order=first", f"algorithm.inner_steps={steps}")
    assert count(*options) == count_by_hand(steps, second_order=False)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_flops_of_second_order_maml_are_the_products_counted_by_hand(count, loop):
    assert count("algorithm.inner_steps=3", f"algorithm.loop={loop}") == count_by_hand(3, second_order=True)


def test_flops_depend_neither_on_the_chunk_nor_on_replicas_and_count_every_member(count, tmp_path):
    single = count()
    assert count("training.task_chunk=2", "replicas=3") == single
    text = "{name: maml}\ntraining"
    assert text in MAML
    copies = MAML.replace(text, "{name: maml}\ncopies: 4\ntraining")
    built = assemble(tmp_path, copies, f"training.tasks_per_step={TASKS}")
    shapes = built.stage.trace_weights(built.tasks.family.sample, built.tasks.data["train"], {})
    assert budgets.count_step_flops(built.stage, shapes, built.tasks) == 4 * single


@pytest.mark.parametrize("learners", [{}, {"replica": 3, "member": 2}])
@pytest.mark.parametrize("chunk", [None, 2])
def test_the_program_that_trains_has_the_flops_of_a_step_for_each_replica(learners, chunk):
    training = Training(steps=9, tasks_per_step=4, task_chunk=chunk)
    stage = dataclasses.replace(loops.make_stage(training), axes=learners)
    mesh = meshes.make_mesh(jax.local_devices()[:1], 4, learners.get("replica", 1))
    built = loops.make_loop(training)._replace(mesh=mesh, stage=stage)
    data, keys = loops.FAMILY.data["train"], stage.make_keys()
    weights = stage.trace_weights(loops.FAMILY.sample, data, {})
    memory = jax.eval_shape(make_memory(built.optimizer, len(learners)), weights)
    program = loop.make_program(built, keys.ndim)
    traced = jax.make_jaxpr(program)(loop.State(weights, memory), data, keys, np.uint32(0), np.uint32(1))
    compiled = Program(*[None] * len(Program._fields))._replace(traced=SimpleNamespace(jaxpr=traced))
    expected = budgets.count_step_flops(
        stage, weights, Tasks(loops.FAMILY, loops.FAMILY, {"train": data}, {})
    )
    assert budgets.count_program_flops(compiled, built) == (expected, False)


def test_the_compiler_counts_the_same_products_and_what_is_elementwise_but_a_loop_once():
    """So its count of MAML without a loop, of 128 units, is above ours by less than a tenth; with `scan` far below."""
    model = builders.build_model("mlp", builders.regression_problem().spec, hidden=(128, 128))
    ratios = {}
    for form in ("unroll", "scan"):
        maml = builders.build_algorithm(
            "maml", model, builders.regression_problem(), inner_steps=4, loop=form
        )
        episode = loops.FAMILY.sample((), jax.random.key(0))
        batch = jax.tree.map(lambda leaf: leaf[None], episode)
        weights = jax.eval_shape(maml.init, jax.random.key(0), batch, {})

        def differentiate(trained, maml=maml, episode=episode):
            return jax.grad(
                lambda trained: maml.loss(base.Weights(trained), episode, jax.random.key(0), 0.0)[0]
            )(trained)

        traced = jax.jit(differentiate).trace(weights.trained)
        ratios[form] = traced.lower().cost_analysis()["flops"] / operations.count_flops(traced.jaxpr.jaxpr)
    assert 1 < ratios["unroll"] < 1.1
    assert ratios["scan"] < 0.6


def test_a_loop_of_unknown_length_that_multiplies_is_told():
    def repeat(matrix, limit):
        return jax.lax.while_loop(lambda m: m.sum() < limit, lambda m: m @ m, matrix)

    def add(matrix, limit):
        return jax.lax.while_loop(lambda m: m.sum() < limit, lambda m: m + m, matrix)

    counts = [
        operations.count_open_loops(jax.make_jaxpr(f)(jnp.ones((2, 2)), 9.0).jaxpr) for f in (repeat, add)
    ]
    assert counts == [1, 0]


def test_a_linear_system_counts_by_its_solution_and_not_by_what_its_derivatives_would_take():
    def multiply(vector):
        return jnp.eye(8) @ vector

    def solve(right):
        return jax.lax.custom_linear_solve(multiply, right, lambda _, right: multiply(right), symmetric=True)

    traced = jax.make_jaxpr(solve)(jnp.ones(8)).jaxpr
    assert (operations.count_flops(traced), operations.count_open_loops(traced)) == (2 * 8 * 8, 0)


@pytest.mark.parametrize(
    ("budget", "step", "seconds", "end"),
    [
        ({"steps": 10}, 9, 1e9, None),
        ({"steps": 10}, 10, 0.0, "steps"),
        ({"seconds": 5.0}, 10**6, 4.9, None),
        ({"seconds": 5.0}, 3, 5.0, "seconds"),
        ({"seconds": 5.0, "steps": 10}, 10, 4.0, "steps"),
        ({"seconds": 5.0, "steps": 10}, 4, 6.0, "seconds"),
        ({"flops": 1e3, "steps": 10}, 10, 0.0, "flops"),  # an eleventh step of 99 FLOPs does not fit
        ({"flops": 1e6, "steps": 10}, 10, 0.0, "steps"),
    ],
)
def test_a_training_ends_with_the_first_budget_that_is_used_up(budget, step, seconds, end):
    assert budgets.find_end(Training(**budget), step, seconds, 99.0) == end


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ("{}", "no end"),
        ("{seconds: 5, optimizer: {schedule: {name: cosine}}}", "cosine needs the number of steps"),
        ("{seconds: 0}", "above 0"),
        ("{flops: -1}", "above 0"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_in_three_lines(metarun_, tmp_path, training, words):
    file = tmp_path / "run.yaml"
    file.write_text(SINGLE.replace("{steps: 24, tasks_per_step: 4, chunk: 4}", training))
    said = metarun_("train", file, "--print-config")
    assert_three_lines(said, 3, "error: ", "to do: ")
    assert words in " ".join(said.err)


@pytest.mark.parametrize("budget", ["steps: 9, seconds: 5", "flops: 1e12", "flops: 1e12, seconds: 5"])
def test_a_schedule_takes_its_length_from_steps_or_flops(tmp_path, budget):
    text = f"{{{budget}, optimizer: {{schedule: {{name: cosine}}}}}}"
    assert (
        load(tmp_path, SINGLE, f"training={text}").stages[0].training.optimizer.config.schedule.name
        == "cosine"
    )


@pytest.fixture
def settle(tmp_path):
    """Return (overrides) -> the stage with what `experiment.assemble` settles."""

    def settle_stage(*overrides: str):
        run_config = load(tmp_path, SINGLE, *overrides)
        return experiment.assemble(run_config, jax.devices()[0]).stages[0]

    return settle_stage


def test_a_budget_in_flops_is_the_number_of_whole_steps_that_fit(settle, count):
    flops = count_single_flops(settle)
    assert settle("training.steps=null", f"training.flops={3.9 * flops}").training.steps == 3
    assert settle("training.steps=2", f"training.flops={3.9 * flops}").training.steps == 2
    assert settle("training.steps=null", f"training.flops={3 * flops}").training.steps == 3


def count_single_flops(settle) -> float:
    """Return the FLOPs of a step of the run SINGLE, from what is said to a budget that is too small."""
    with pytest.raises(errors.ConfigError, match="more than the budget of 1") as refused:
        settle("training.flops=1")
    return float(refused.value.what.split()[4])


def test_a_loss_that_follows_the_share_of_the_steps_needs_their_number(settle):
    annealed = ("algorithm.outer_loss=annealed", "algorithm.inner_steps=2", "training.seconds=9")
    with pytest.raises(errors.ConfigError, match="share of the steps") as refused:
        settle(*annealed, "training.steps=null")
    assert refused.value.where == "stage maml: training.seconds"
    assert settle(*annealed).training.steps == 24
    assert settle("training.seconds=9", "training.steps=null").training.steps is None


def test_more_warmup_than_a_budget_in_flops_gives_steps_is_refused(settle):
    schedule = "training.optimizer.schedule={name: cosine, warmup_steps: 50}"
    flops = count_single_flops(settle)
    with pytest.raises(errors.ConfigError, match="warms up for 50 steps, and the budget gives 20"):
        settle("training.steps=null", f"training.flops={20 * flops}", schedule)


def test_a_taken_stage_keeps_the_steps_that_it_was_trained_for_whatever_they_cost_here(tmp_path):
    built = assemble(tmp_path, MAML, "training.flops=1", "training.steps=24")
    settings = dataclasses.replace(built.stage.settings, taken_from="/gone/maml")
    shapes = built.stage.trace_weights(built.tasks.family.sample, built.tasks.data["train"], {})
    taken = dataclasses.replace(built.stage, settings=settings)
    assert budgets.settle([taken], {taken.name: shapes}, built.tasks)[0].training.steps == 24


FLOPS = "training={steps: null, tasks_per_step: 4, chunk: 4, flops: FLOPS}"


def test_a_run_by_flops_is_the_run_of_that_many_steps_and_resumes_as_such(single, settle, tmp_path):
    budget = FLOPS.replace("FLOPS", str(24.5 * count_single_flops(settle)))
    with pytest.raises(signals.Stopped):
        train(tmp_path / "run", SINGLE, budget, progress=Stopping("maml", 8))
    run = train(tmp_path / "run", SINGLE, budget, resume=True)
    assert weights(run) == weights(single)
    own = read_json(run / "result.json")["costs"]["maml"]["own"]
    assert (own["steps"], own["ended_by"]) == (24, "flops")
    assert own["flops"] == 24 * own["step_flops"] <= config.load(run / "config.yaml").stages[0].training.flops
    assert config.load(run / "config.yaml").stages[0].training.steps == 24
    shorter = load(tmp_path, SINGLE, budget.replace("steps: null", "steps: 23"))
    with pytest.raises(errors.ConfigError, match=r"other values of: training\.steps"):
        differences.check_resume(config.load(run / "config.yaml"), shorter, "here")


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves on by a second whenever a chunk looks at it, so that every chunk takes one second."""
    now = [0.0]

    def tick() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(stage_run, "time", SimpleNamespace(perf_counter=tick, monotonic=lambda: 0.0))


SECONDS = "training={steps: null, tasks_per_step: 4, chunk: 4, seconds: 6.5}"


def test_a_run_by_seconds_counts_them_over_resumes_and_says_what_ended_it(clock, single, tmp_path, capsys):
    with pytest.raises(signals.Stopped):
        train(tmp_path / "run", SINGLE, SECONDS, progress=Stopping("maml", 8))
    run = train(tmp_path / "run", SINGLE, SECONDS, resume=True)
    result = read_json(run / "result.json")
    own = result["costs"]["maml"]["own"]
    assert (own["steps"], own["seconds"], own["ended_by"]) == (24, 7.0, "seconds")  # seven chunks
    assert (result["step"], read_json(run / "status.json")["step"]) == (24, 24)
    assert last_checkpoints(run)["maml"].step == 24
    assert weights(run) == weights(single)
    text_tables.print_result(result)
    assert "maml ended by seconds: 24 steps in 7.0 s of training" in capsys.readouterr().out
    before = (run / "metrics.jsonl").read_bytes()
    train(run, SINGLE, SECONDS, resume=True)  # it is over
    assert (run / "metrics.jsonl").read_bytes() == before


def test_process_0_tells_the_seconds_that_end_a_stage_of_several_processes(clock, tmp_path, monkeypatch):
    """On another process a chunk takes a second, and process 0 says that it took three."""
    monkeypatch.setattr(Processes, "share", lambda self, value: 3.0 if isinstance(value, float) else value)
    run = train(tmp_path / "run", SINGLE, SECONDS)
    own = read_json(run / "result.json")["costs"]["maml"]["own"]
    assert (own["steps"], own["seconds"]) == (10, 9.0)  # chunks of 4, 4 and 2 steps, up to a validation


def test_a_chunk_takes_no_more_steps_than_the_seconds_that_are_left():
    pace = Pace(None)
    pace.learn(100, 1.0)
    assert pace.next(0, [1000], 0.05) == 5
    assert pace.next(0, [1000], 60.0) == pace.next(0, [1000])
    assert pace.next(0, [1000], 0.0001) == 1
    assert Pace(7).next(0, [1000], 0.0001) == 7


def test_trials_cannot_differ_in_a_budget(tmp_path):
    run_config = load(tmp_path, SINGLE, "training.seconds=9")
    obstacles = traceable.find_obstacles(run_config, ["training.seconds"])
    assert obstacles == {"training.seconds": "the trials of a program take the same number of steps"}


def test_halving_divides_every_budget():
    training = Training(steps=10, seconds=9.0, flops=6e3)
    assert halving.share_budgets(training, 3) == {"steps": 4, "seconds": 3.0, "flops": 2e3}
    assert halving.share_budgets(Training(seconds=9.0), 3) == {"seconds": 3.0}


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        ({"steps": 2000}, "2,000 steps of 32 tasks on 1 core"),
        ({"steps": 2000, "flops": 1e12}, "2,000 steps of 32 tasks on 1 core, within 1e+12 FLOPs"),
        ({"steps": 2000, "seconds": 60}, "at most 2,000 steps of 32 tasks on 1 core, for 60 seconds"),
        ({"seconds": 60}, "steps of 32 tasks on 1 core, for 60 seconds"),
    ],
)
def test_a_dry_run_tells_the_budget(budget, line):
    assert budgets.describe(Training(**budget), "1 core") == line


def test_a_live_line_counts_seconds_where_they_end_the_stage(capsys):
    plain = progress_display.Plain()
    plain.stage_started("maml", 0, 10**9, 4)
    plain.timed("maml", 2.0, 60.0)
    plain.last = -1e9
    plain.advanced("maml", 40, 40, 1.0, {"loss": 0.5})
    assert "maml: step 40, 3/60 s, 40 steps/s, 160 tasks/s, loss 0.5" in capsys.readouterr().err.replace(
        ".0 ", " "
    )
