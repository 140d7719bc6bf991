"""What a run will cost: `metarun train CONFIG --dry-run --cost`, and how it is measured."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.assembled import assemble
from helpers.commands import assert_three_lines
from helpers.runs import BOTH, SINGLE
from metarun import base, errors, experiment
from metarun.cli import cost_report
from metarun.training import cost, operations
from metarun.training.cost import Call, Cost, Memory
from metarun.training.loop import Chunk, Program, State

START = State(base.Weights(()), ())


@pytest.fixture
def make_stage(tmp_path):
    """Return (steps, chunk) -> a stage that trains so."""
    return lambda steps, chunk="null": (
        assemble(tmp_path, SINGLE, f"training.steps={steps}", f"training.chunk={chunk}").stage
    )


@pytest.fixture
def make_program(monkeypatch):
    """Return (seconds a step, counts) -> a program that moves the clock, and notes how many steps each call takes."""
    now = [0.0]
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def make(seconds: float, counts: list[int], finite: bool = True) -> Program:
        def run(state, first, count):
            counts.append(count)
            now[0] += seconds * count
            return Chunk(state, {"loss": np.zeros(count)}, np.array(finite))

        return Program(*[None] * len(Program._fields))._replace(run=run)

    return make


@pytest.mark.slow
def test_each_stage_of_a_run_with_replicas_has_its_cost_and_nothing_is_written(
    metarun_, tmp_path, monkeypatch
):
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("trained"))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "both.yaml"
    file.write_text(BOTH.replace("maml}, copies: 3", "reptile}"))
    said = metarun_("train", file, "--dry-run", "--cost")
    assert said.code == 0, said
    header, *lines, last = said.out
    assert header.split("  ")[0] == "stage"
    rows = [line.split() for line in lines]
    assert [row[:2] for row in rows] == [["base", "8"], ["other", "8"]]
    assert all(float(row[2]) > 0 for row in rows)  # seconds a step
    assert all(0 < int(row[-1]) <= 8 for row in rows)  # steps that were timed
    assert last.startswith("training takes ")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_cost_without_dry_run_is_a_usage_error(metarun_, tmp_path):
    said = metarun_("train", tmp_path / "there-is-none.yaml", "--cost")
    assert_three_lines(said, 2, "error: --cost is a part of --dry-run", "to do: add --dry-run")


def test_steps_are_timed_in_chunks_of_growing_length_and_never_beyond_the_last_step(make_stage, make_program):
    counts: list[int] = []
    calls, _ = cost.time_steps(make_program(1e-6, counts), START, make_stage(35))
    assert counts == [1, 10, 24]
    assert [call.steps for call in calls] == counts


def test_a_fixed_chunk_is_timed_as_it_is(make_stage, make_program):
    counts: list[int] = []
    cost.time_steps(make_program(1e-6, counts), START, make_stage(8, 3))
    assert counts == [3, 3, 2]


def test_long_steps_are_timed_for_a_limited_time(make_stage, make_program):
    counts: list[int] = []
    calls, _ = cost.time_steps(make_program(9.0, counts), START, make_stage(100))
    assert counts == [1, 1, 1]
    assert calls == [Call(1, 9.0)] * 3


def test_ten_steps_are_timed_beside_the_first_and_more_until_they_last_a_chunk():
    first = Call(1, 3.0)
    assert not cost.is_enough([first, *[Call(1, 0.5)] * 9])
    assert cost.is_enough([first, *[Call(1, 0.5)] * 10])
    assert not cost.is_enough([first, Call(10, 0.1), Call(100, 0.8)])
    assert cost.is_enough([first, Call(10, 0.1), Call(100, 0.8), Call(100, 0.8)])


def test_the_first_call_and_calls_of_few_steps_say_nothing_of_the_time_of_a_step():
    calls = [Call(1, 9.0), Call(10, 5.0), Call(100, 1.0), Call(60, 0.6)]
    assert cost.choose_calls(calls) == calls[2:]
    assert cost.choose_calls(calls[:1]) == calls[:1]


def test_a_step_that_is_not_finite_ends_the_measurement(make_stage, make_program):
    program = make_program(0.0, [], finite=False)
    with pytest.raises(errors.DivergedError, match="not finite within the first 1 steps"):
        cost.time_steps(program, START, make_stage(5))


def test_products_of_several_learners_count_for_each():
    traced = jax.make_jaxpr(jax.vmap(jax.vmap(jnp.matmul)))(jnp.ones((3, 2, 4, 5)), jnp.ones((3, 2, 5, 6)))
    assert operations.count_flops(traced.jaxpr) == 3 * 2 * (2 * 4 * 5 * 6)


def test_a_loop_counts_as_often_as_it_runs():
    def repeat(matrix):
        return jax.lax.scan(lambda carry, _: (carry @ matrix, None), matrix, length=5)[0]

    traced = jax.make_jaxpr(jax.jit(repeat))(jnp.ones((4, 4)))
    assert operations.count_flops(traced.jaxpr) == 5 * 2 * 4**3


def test_a_grouped_convolution_counts_what_its_groups_multiply():
    def convolve(pictures, kernel):
        return jax.lax.conv_general_dilated(pictures, kernel, (1, 1), "VALID", feature_group_count=2)

    traced = jax.make_jaxpr(convolve)(jnp.ones((3, 4, 6, 6)), jnp.ones((8, 2, 3, 3)))
    assert operations.count_flops(traced.jaxpr) == 2 * (3 * 8 * 4 * 4) * (2 * 3 * 3)


def test_memory_that_is_given_back_in_place_counts_once():
    def advance(state, data):
        return state + data.sum()

    state, data = jnp.ones(1000), jnp.ones(500)
    compiled = jax.jit(advance, donate_argnums=0).lower(state, data).compile()
    memory = cost.read_memory(compiled)
    assert memory is not None
    assert 6000 <= memory.held < 6100
    assert memory.total == memory.held + memory.temporary


def test_the_total_is_the_start_the_compilation_and_all_steps():
    stage = Cost("maml", 100, [Call(2, 1.0), Call(2, 3.0)], 5.0, 7.0, Memory(1, 2), 3, 4.0, 1)
    assert (stage.timed, stage.seconds) == (4, 1.0)
    assert stage.total_seconds == 5 + 7 + 100


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3 * 3600 + 61, "3 h 1 min"), (90000, "1 d 1 h")],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    assert cost_report.format_duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (29.4e6, "29.4 MB"), (3e13, "30 TB")]
)
def test_memory_has_three_digits_in_its_unit(count, words):
    assert cost_report.format_bytes(int(count)) == words
