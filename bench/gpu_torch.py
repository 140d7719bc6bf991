"""The PyTorch side of bench/gpu.py: two programs for one setting, on a GPU if torch has one, else on the CPU.

    python bench/gpu_torch.py JSON

`loop` goes through the tasks one by one with create_graph=True, as learn2learn does. `vmap` adapts to all tasks at once
by torch.func. Runs in an environment of its own, with torch and without metarun.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import _bench_settings
import _bench_torch
import torch
import torch.nn.functional as F
from _bench_settings import Setting
from torch import Tensor

SECONDS = 2.0  # that the steps are timed for, after one that is not


def make_batched_step(setting: Setting) -> Callable[[], None]:
    """Make () -> nothing, which takes one outer step with all tasks at once."""
    sample, params = _bench_torch.make_pictures(setting), _bench_torch.make_params(setting)
    adam = torch.optim.Adam(params, lr=_bench_settings.OUTER_RATE)

    def outer_step() -> None:
        adam.zero_grad()
        tasks = [(*support, *query) for support, query in (sample() for _ in range(setting.tasks))]
        stacked = [torch.stack(tensors) for tensors in zip(*tasks, strict=True)]
        measure_tasks(setting, params, stacked).mean().backward()
        adam.step()

    return outer_step


def apply_convolutions(params: list[Tensor], inputs: Tensor) -> Tensor:
    """Apply the network of `_bench_torch`, with the batch normalisation written out.

    torch 2.13 loses a part of the second derivative of its own one under torch.func.
    """
    features = inputs
    for layer in range(4):
        kernel, scale, offset = params[3 * layer : 3 * layer + 3]
        features = F.conv2d(features, kernel, stride=2, padding=1)
        mean = features.mean((0, 2, 3), keepdim=True)
        variance = (features - mean).square().mean((0, 2, 3), keepdim=True)
        factor = torch.rsqrt(variance + _bench_settings.EPSILON) * scale.view(1, -1, 1, 1)
        features = F.relu((features - mean) * factor + offset.view(1, -1, 1, 1))
    return F.linear(features.mean(dim=(2, 3)), *params[12:14])


def measure_tasks(setting: Setting, params: list[Tensor], tasks: list[Tensor]) -> Tensor:
    """Return the query losses [task] of stacked supports, their targets, queries and their targets."""

    def measure_task(params, support, targets, query, query_targets):
        def support_loss(adapted):
            return F.cross_entropy(apply_convolutions(adapted, support), targets)

        adapted = params
        for _ in range(setting.inner_steps):
            slopes = torch.func.grad(support_loss)(adapted)
            adapted = [
                value - setting.inner_rate * slope for value, slope in zip(adapted, slopes, strict=True)
            ]
        return F.cross_entropy(apply_convolutions(adapted, query), query_targets)

    losses: Tensor = torch.func.vmap(measure_task, in_dims=(None, 0, 0, 0, 0))(params, *tasks)
    return losses


def measure(setting: Setting, side: str, precision: str) -> dict[str, Any]:
    """Return the seconds of a step and the memory of the device."""
    cuda = torch.cuda.is_available()
    torch.set_default_device("cuda" if cuda else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.manual_seed(0)
    make = {"loop": _bench_torch.make_outer_step, "vmap": make_batched_step}[side]
    outer_step, wait = make(setting), torch.cuda.synchronize if cuda else lambda: None
    outer_step()
    wait()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS or steps < 3:
        outer_step()
        wait()
        steps += 1
    return {
        "seconds": (time.perf_counter() - started) / steps,
        "steps": steps,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "torch": torch.__version__,
        "platform": "gpu" if cuda else "cpu",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def main() -> None:
    """Measure the setting in the argument, and print the answer."""
    arguments = json.loads(sys.argv[1])
    setting = Setting(**arguments["values"])
    print(json.dumps(measure(setting, arguments["side"], arguments["precision"])), flush=True)


if __name__ == "__main__":
    main()
