"""The worker of bench/bench_growth.py: measures the one point in its argument, and prints a line of JSON."""

import json
import sys
from typing import Any

import _bench_metarun
import _bench_settings
from _bench_settings import Setting

from metarun.training import cost


def measure(setting: Setting, replicas: int, devices: int | None) -> dict[str, Any]:
    """Compile the training of a setting, take some steps, and return what they cost."""
    stage_run = _bench_metarun.build(setting, replicas, devices)
    measured, _ = cost.measure_stage(stage_run)
    memory = measured.memory
    device = stage_run.session.devices[0]
    return {
        "device": device.device_kind,
        "devices": measured.devices,
        "seconds": [call.seconds / call.steps for call in measured.calls],
        "compile_seconds": measured.compile_seconds,
        "flops": measured.flops,
        "temporary_bytes": memory.temporary if memory else None,
        "program_bytes": memory.total if memory else None,
        "process_bytes": measured.process_bytes,
    }


if __name__ == "__main__":
    point = json.loads(sys.argv[1])
    _bench_settings.print_answer(measure(Setting(**point["setting"]), point["replicas"], point["devices"]))
