"""The PyTorch side of bench/bench.py: second-order MAML as a Python loop over tasks with create_graph=True.

The same samples, networks, losses and Adam as the metarun side, in PyTorch's own functions: this is how the
libraries of the field do it. Runs in an environment of its own, with torch and without metarun.
"""

import itertools
import math
import time
from collections.abc import Callable

import _bench_settings
import torch
import torch.nn.functional as F
from _bench_settings import Setting
from torch import Tensor

Examples = tuple[Tensor, Tensor]  # inputs, targets
Params = list[Tensor]

TRIALS = 2  # of each number of threads
TRIAL_SECONDS = 1.0  # how long a trial lasts


def draw_uniform(shape: tuple[int, ...], bounds: tuple[float, float]) -> Tensor:
    """Return random numbers between the bounds."""
    return torch.empty(shape).uniform_(*bounds)


def make_sinusoid(setting: Setting) -> Callable[[], tuple[Examples, Examples]]:
    """Make () -> (support, query) of one curve."""
    shots, count = setting.shots, setting.shots + setting.queries

    def sample():
        inputs = draw_uniform((count, 1), _bench_settings.INPUTS)
        amplitude, phase = (
            draw_uniform((), _bench_settings.AMPLITUDES),
            draw_uniform((), _bench_settings.PHASES),
        )
        targets = amplitude * torch.sin(inputs - phase)
        return (inputs[:shots], targets[:shots]), (inputs[shots:], targets[shots:])

    return sample


def make_pictures(setting: Setting) -> Callable[[], tuple[Examples, Examples]]:
    """Make () -> (support, query) of one classification of random pictures, each class turned at random."""
    size = (
        _bench_settings.CLASSES,
        _bench_settings.DRAWINGS,
        _bench_settings.PICTURE,
        _bench_settings.PICTURE,
    )
    table = torch.randint(0, 256, size, dtype=torch.uint8)
    ways, count = setting.ways, setting.shots + setting.queries

    def make_examples(pictures: Tensor) -> Examples:
        labels = torch.arange(ways).repeat_interleave(pictures.shape[1])
        return pictures.reshape(-1, 1, *pictures.shape[2:]).float() / 255, labels

    def sample():
        classes = torch.randperm(table.shape[0])[:ways]
        drawings = torch.rand(ways, table.shape[1]).argsort(dim=1)[:, :count]
        turns = torch.randint(0, 4, (ways,)).tolist()
        upright = table[classes[:, None], drawings]
        pictures = torch.stack(
            [torch.rot90(way, turn, (1, 2)) for way, turn in zip(upright, turns, strict=True)]
        )
        return make_examples(pictures[:, : setting.shots]), make_examples(pictures[:, setting.shots :])

    return sample


def apply_perceptron(params: Params, inputs: Tensor) -> Tensor:
    """Apply two hidden layers with ReLU, and the head."""
    features = F.relu(F.linear(inputs, *params[0:2]))
    features = F.relu(F.linear(features, *params[2:4]))
    return F.linear(features, *params[4:6])


def apply_convolutions(params: Params, inputs: Tensor) -> Tensor:
    """Apply four strided convolutions with batch normalisation and ReLU, the mean over positions, and the head."""
    features = inputs
    for layer in range(4):
        kernel, scale, offset = params[3 * layer : 3 * layer + 3]
        features = F.conv2d(features, kernel, stride=2, padding=1)
        features = F.batch_norm(
            features, None, None, scale, offset, training=True, eps=_bench_settings.EPSILON
        )
        features = F.relu(features)
    return F.linear(features.mean(dim=(2, 3)), *params[12:14])


def make_dense(inputs: int, outputs: int) -> Params:
    """Return the parameters of one dense layer."""
    return [torch.randn(outputs, inputs) * inputs**-0.5, torch.zeros(outputs)]


def make_params(setting: Setting) -> Params:
    """Return the parameters of the network of the setting."""
    if not setting.ways:
        hidden = _bench_settings.HIDDEN
        params = make_dense(1, hidden) + make_dense(hidden, hidden) + make_dense(hidden, 1)
    else:
        width, params = setting.width, []
        for channels in (1, width, width, width):
            kernel = torch.randn(width, channels, 3, 3) * (9 * channels) ** -0.5
            params += [kernel, torch.ones(width), torch.zeros(width)]
        params += make_dense(width, setting.ways)
    return [param.requires_grad_() for param in params]


def make_outer_step(setting: Setting) -> Callable[[], None]:
    """Make () -> nothing, which takes one outer step on the parameters that it holds."""
    sample = make_pictures(setting) if setting.ways else make_sinusoid(setting)
    network = apply_convolutions if setting.ways else apply_perceptron
    loss = F.cross_entropy if setting.ways else F.mse_loss
    params = make_params(setting)
    adam = torch.optim.Adam(params, lr=_bench_settings.OUTER_RATE)

    def query_loss() -> Tensor:
        (support, targets), (query, query_targets) = sample()
        adapted = params
        for _ in range(setting.inner_steps):
            gradient = torch.autograd.grad(
                loss(network(adapted, support), targets), adapted, create_graph=True
            )
            adapted = [
                param - setting.inner_rate * slope for param, slope in zip(adapted, gradient, strict=True)
            ]
        return loss(network(adapted, query), query_targets)

    def outer_step() -> None:
        adam.zero_grad()
        for _ in range(setting.tasks):
            (query_loss() / setting.tasks).backward()
        adam.step()

    return outer_step


def choose_threads(outer_step: Callable[[], None]) -> dict[int, float]:
    """Let torch use the number of threads with which a step is fastest; return the seconds with each number.

    Small products are slower with more threads than one.
    """
    cores = torch.get_num_threads()  # as many as torch finds
    counts = sorted({1, 2, cores // 2, cores} - {0})
    seconds = {count: math.inf for count in counts if count <= cores}
    for _, count in itertools.product(range(TRIALS), seconds):
        torch.set_num_threads(count)
        outer_step()  # not timed: it starts the threads, and warms the caches up
        seconds[count] = min(seconds[count], time_steps(outer_step))
    torch.set_num_threads(min(seconds, key=lambda count: seconds[count]))
    return seconds


def time_steps(outer_step: Callable[[], None]) -> float:
    """Return the seconds of a step: the mean over as many as last TRIAL_SECONDS."""
    steps, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < TRIAL_SECONDS:
        outer_step()
        steps += 1
    return seconds / steps


def prepare(setting: Setting):
    """Return the worker's steps and facts."""
    torch.manual_seed(0)
    outer_step = make_outer_step(setting)
    trials = choose_threads(outer_step)

    def take_steps(count: int) -> None:
        for _ in range(count):
            outer_step()

    return take_steps, {"version": torch.__version__, "threads": torch.get_num_threads(), "trials": trials}


if __name__ == "__main__":
    _bench_settings.serve(prepare)
