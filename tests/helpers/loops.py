"""The outer loop of a small stage."""

import jax

from metarun import meshes, plugins
from metarun.base import PyTree
from metarun.config import Selection, Stage, Training
from metarun.stages import Stage as BuiltStage
from metarun.tasks import sinusoid
from metarun.training import optimizer
from metarun.training.loop import Loop, State

FAMILY = sinusoid.build(sinusoid.Config(shots=4, queries=3))
TRAINING = Training(steps=40, tasks_per_step=4)
KEY_SEED = 3


def make_stage(training: Training = TRAINING, seed: int = KEY_SEED, draws_as: int = 0) -> BuiltStage:
    """Make a stage of MAML on a small perceptron."""
    model = Selection("mlp", plugins.read_config_class("model", "mlp")(hidden=(8, 8)))
    algorithm = Selection("maml", plugins.read_config_class("algorithm", "maml")())
    settings = Stage("maml", model, algorithm, training)
    return BuiltStage(settings, FAMILY.problem, (), {}, seed, draws_as, 1)


def make_key(seed: int = KEY_SEED, draws_as: int = 0):
    """Return the root of the random numbers of that stage."""
    return make_stage(seed=seed, draws_as=draws_as).make_keys()


def make_loop(training: Training = TRAINING, algorithm=None, sample=FAMILY.sample) -> Loop:
    """Make the loop of that stage on one device."""
    mesh = meshes.make_mesh(jax.local_devices()[:1], training.tasks_per_step, 1)
    algorithm = algorithm or make_stage(training).build_algorithm()
    return Loop(algorithm, sample, optimizer.build(training), training, mesh)


def start_state(loop: Loop, data: PyTree, key) -> State:
    """Return the state before the first step."""

    @jax.jit
    def start(data, key):
        weights = make_stage(loop.training).make_start(loop.sample)(data, key, {})
        return State(weights, loop.optimizer.init(weights.trained))

    return start(data, key)
