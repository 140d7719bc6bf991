"""The numbers of a config that compiled programs take as arguments."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun import errors, numbers, options, plugins
from metarun.config import Selection, Training, optimizers, schedules
from metarun.config.schema import PartRate
from metarun.ranges import Below
from metarun.training import optimizer

CHOICE = Selection("sgd", optimizers.SGD(0.25))


@dataclasses.dataclass(frozen=True)
class Section:
    """Options of every sort."""

    rate: float = 0.5
    weight: float = 0.0
    limit: float | None = None
    decay: Annotated[float, Below(1)] = 0.9
    maybe: Annotated[float, Below(1)] | None = 0.8
    steps: int = 3
    layers: tuple[int, ...] = (4, 5)
    flag: bool = True
    parts: tuple[PartRate, ...] = (PartRate("a", 2.0), PartRate("b", 3.0))
    choice: Selection = CHOICE

    def __post_init__(self):
        assert self.rate > 0


def test_zeros_whole_numbers_and_decays_of_means_are_constants_and_every_other_number_is_listed():
    expected = {"rate": 0.5, "parts.0.factor": 2.0, "parts.1.factor": 3.0, "choice.learning_rate": 0.25}
    assert numbers.collect(Section()) == expected
    assert numbers.collect(Section(), whole=numbers.STEPS) == expected | {"steps": 3}
    assert numbers.collect(Section(limit=1.5))["limit"] == 1.5


def test_replaced_numbers_land_where_they_came_from_and_the_checks_of_the_section_do_not_run():
    section = Section()
    changed = numbers.replace(section, {"rate": -1.0, "parts.1.factor": 7.0, "choice.learning_rate": 0.5})
    assert (changed.rate, changed.choice.config.learning_rate) == (-1.0, 0.5)
    assert [part.factor for part in changed.parts] == [2.0, 7.0]
    assert section == Section()
    assert numbers.replace(section, {}) is section


def test_only_what_a_function_must_know_is_a_constant_in_its_program():
    def compute(values, x):
        root = np.sqrt(values["numpy"])  # needs a number, as `if` does
        return x * values["rate"] * root if values["decides"] > 1 else x

    traced = numbers.trace(compute, {"rate": 3.0, "numpy": 4.0, "decides": 2.0}, jnp.float32(5))
    assert traced.numbers == {"rate": 3.0}
    compiled = traced.program.lower().compile()
    assert [compiled({"rate": rate}, jnp.float32(5)) for rate in (3.0, 10.0)] == [30.0, 100.0]


def test_a_function_whose_numbers_can_all_be_arguments_is_traced_once():
    calls = []

    def compute(values, x):
        calls.append(values)
        return x * values["rate"] + values["steps"]

    traced = numbers.trace(compute, {"rate": 0.5, "steps": 3}, jnp.float32(2))
    assert len(calls) == 1 and set(traced.numbers) == {"rate", "steps"}


@pytest.mark.parametrize("error", [errors.ConfigError("what", "where", "remedy"), RuntimeError("a bug")])
def test_an_error_that_has_nothing_to_do_with_the_numbers_is_raised(error):
    def fail(values):
        raise error

    with pytest.raises(type(error)):
        numbers.trace(fail, {"rate": 0.5})


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("cosine", schedules.Cosine(0.1, 20)),
        ("linear", schedules.Linear(0.1)),
        ("exponential", schedules.Exponential(0.5, 10)),
        ("step", schedules.Step(0.5, 10)),
    ],
)
def test_every_schedule_takes_traced_numbers(name, schedule):
    config = optimizers.AdamW(0.25, Selection(name, schedule))
    training = Training(
        100,
        optimizer=Selection("adamw", config),
        clip_norm=2.0,
        clip_value=3.0,
        part_rates=(PartRate("x", 0.5),),
    )
    listed = numbers.collect(training, whole=numbers.STEPS)
    params = {"x": jnp.array([1.0, -2.0])}

    def step(values, params):
        chain = optimizer.build(numbers.replace(training, values))
        return chain.step(lambda trained: (trained, {}), params, chain.init(params)).trained

    traced = numbers.trace(step, listed, params)
    assert traced.numbers == listed
    assert {"steps", "clip_norm", "part_rates.0.factor", "optimizer.weight_decay"} < set(listed)
    expected = jax.jit(lambda params: step({}, params))(params)
    actual = traced.program.lower().compile()(dict(listed), params)
    np.testing.assert_allclose(actual["x"], expected["x"], rtol=1e-6)


@pytest.mark.parametrize("name", plugins.list_names("algorithm"))
def test_the_rates_of_every_algorithm_have_paths(name):
    config = plugins.read_config_class("algorithm", name)()
    listed = numbers.collect(Selection(name, config))
    own = {field.name for field in dataclasses.fields(config)}
    assert {path.partition(".")[0] for path in listed} <= own
    if issubclass(type(config), options.InnerSteps):
        assert listed["inner_lr"] == config.inner_lr
