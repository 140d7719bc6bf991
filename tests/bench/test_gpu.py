"""bench/gpu.py: its points, what a failure and the end of the minutes cost, its tables; with stand-ins for the work."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH_FOLDER = Path(__file__).parents[2] / "bench"
ANSWER = {"platform": "gpu", "device": "a card"}


@pytest.fixture
def bench(monkeypatch):
    """A function that imports a module of bench/, which is no package."""
    monkeypatch.syspath_prepend(str(BENCH_FOLDER))
    return importlib.import_module


# What XLA writes of a loop over steps: a fusion, a product, a copy that is started and done, and a loop of three turns.
PROGRAM = """HloModule jit_chunk, entry_computation_layout={(f32[2]{0})->f32[2]{0}}

%fused (p.1: f32[2]) -> f32[2] {
  %p.1 = f32[2]{0} parameter(0)
  ROOT %add.1 = f32[2]{0} add(%p.1, %p.1)
}

%inner (t.1: (s32[], f32[2])) -> (s32[], f32[2]) {
  %t.1 = (s32[], f32[2]{0}) parameter(0)
  %g.1 = f32[2]{0} get-tuple-element(%t.1), index=1
  %f.1 = f32[2]{0} fusion(%g.1), kind=kLoop, calls=%fused
  %s.1 = f32[2]{0} sort(%f.1), dimensions={0}, to_apply=%less
  ROOT %r.1 = (s32[], f32[2]{0}) tuple(%g.1, %s.1)
}

%recorded (q.1: f32[2]) -> f32[2] {
  %q.1 = f32[2]{0} parameter(0)
  ROOT %c.1 = (f32[2]{0}, s8[64]{0}) custom-call(%q.1, %q.1), custom_call_target="__cublas$gemm"
}

%step (t.2: (s32[], f32[2])) -> (s32[], f32[2]) {
  %t.2 = (s32[], f32[2]{0}) parameter(0)
  %g.2 = f32[2]{0} get-tuple-element(%t.2), index=1
  %f.2 = f32[2]{0} fusion(%g.2), kind=kLoop, calls=%fused
  %c.2 = f32[2]{0} call(%f.2), to_apply=%recorded
  %w.2 = (s32[], f32[2]{0}) while(%t.2), condition=%more, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  %y.2 = (f32[2]{0}, f32[2]{0}, u32[]) copy-start(%c.2)
  %z.2 = f32[2]{0} copy-done(%y.2)
  ROOT %r.2 = (s32[], f32[2]{0}) tuple(%g.2, %z.2)
}

ENTRY %main (p.3: f32[2]) -> f32[2] {
  %p.3 = f32[2]{0} parameter(0)
  %f.3 = f32[2]{0} fusion(%p.3), kind=kLoop, calls=%fused
  %w.3 = (s32[], f32[2]{0}) while(%f.3), condition=%more, body=%step
  ROOT %g.3 = f32[2]{0} get-tuple-element(%w.3), index=1
}
"""


def test_launches_are_those_of_one_turn_of_the_loop_over_steps(bench):
    launches = bench("gpu_launches")
    assert launches.count_launches(PROGRAM) == 1 + 1 + 3 * 2 + 1
    assert launches.count_launches(PROGRAM.replace('"n":"3"', '"n":"5"')) == 1 + 1 + 5 * 2 + 1
    assert launches.count_launches(PROGRAM.replace("while", "fusion")) is None


def test_the_points_are_all_choices_each_once_and_the_most_telling_first(bench):
    gpu_points = bench("gpu_points")
    points = gpu_points.list_points(tiny=False)
    counts = {
        part: sum(point.part == part for point in points)
        for part in ("gradient", "peak", "step", "torch", "run")
    }
    assert counts == {"gradient": 6, "peak": 3, "step": 4 * 3 * 2 * 2 * 4, "torch": 16, "run": 4}
    assert len({point.name for point in points}) == len(points)
    steps = [point.arguments for point in points if point.part == "step"]
    differing = [sum(step[key] != gpu_points.FIRST[key] for key in gpu_points.FIRST) for step in steps]
    assert differing[:4] == [0] * 4 and differing[4:32] == [1] * 28 and min(differing[32:]) == 2
    parts = [point.part for point in points]
    assert parts[:2] == ["install", "smoke"] and parts.index("reference") < parts.index("gradient")
    assert [point.name for point in points if point.part == "run"] == [
        f"run-{name}" for name in gpu_points.SETTINGS
    ]
    assert all(Path(gpu_points.find_config(name)).exists() for name in gpu_points.SETTINGS)


def make_points(gpu_points, **programs: str):
    """Points of the part `peak`, each with the program that stands in for its worker."""
    return [gpu_points.Point("peak", f"peak-{name}", {"program": text}) for name, text in programs.items()]


@pytest.fixture
def measure(bench, monkeypatch, tmp_path):
    """A function that measures points, and returns whether all are done, the answers, and the names it has begun."""
    gpu, report = bench("gpu"), bench("gpu_report")
    begun = []

    def make_command(point, _folder):
        begun.append(point.name)
        return [sys.executable, "-c", point.arguments["program"]]

    monkeypatch.setattr(gpu, "make_command", make_command)
    monkeypatch.setattr(gpu, "SHORTEST", 0.0)

    def run(points, minutes: float = 5.0, retry: bool = False):
        begun.clear()
        store = report.Store(tmp_path, tiny=False)
        if retry:
            store.remove_failed()
        done = gpu.measure(points, store, tmp_path, gpu.Deadline(minutes))
        return done, json.loads((tmp_path / "results.json").read_text())["points"], list(begun)

    return run


GOOD = f"print('noise'); print('''{json.dumps({'flops': 2e12, **ANSWER})}''')"
NO_MEMORY = "import sys; sys.exit('Traceback\\nXlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory\\nmore')"


def test_a_failure_costs_one_point_and_no_point_is_measured_twice(bench, measure, tmp_path):
    killed = "import os; os.kill(os.getpid(), 9)"
    points = make_points(bench("gpu_points"), float32=GOOD, bfloat16=NO_MEMORY, killed=killed, last=GOOD)
    done, answers, begun = measure(points)
    assert done and len(begun) == 4
    assert answers["peak-last"]["flops"] == answers["peak-float32"]["flops"] == 2e12
    assert answers["peak-bfloat16"] == {"failed": "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory"}
    assert "signal 9" in answers["peak-killed"]["failed"]
    table = (tmp_path / "results.md").read_text()
    assert "| float32 | 2 |" in table and "RESOURCE_EXHAUSTED" in table and "gpu a card" in table
    assert measure(points) == (True, answers, [])
    assert measure(points, retry=True)[2] == ["peak-bfloat16", "peak-killed"]


def test_a_point_that_hangs_has_failed_but_one_that_the_minutes_end_has_not(bench, measure, monkeypatch):
    hanging = "import time; print('begun', flush=True); time.sleep(60)"
    points = make_points(bench("gpu_points"), hanging=hanging)
    monkeypatch.setattr(bench("gpu"), "POINT_SECONDS", 0.2)
    assert "0 s" in measure(points)[1]["peak-hanging"]["failed"]
    monkeypatch.setattr(bench("gpu"), "POINT_SECONDS", 300.0)
    monkeypatch.setattr(bench("gpu_runs"), "STOP_SECONDS", 0.0)
    points = make_points(bench("gpu_points"), other=hanging)
    done, answers, begun = measure(points, minutes=0.3 / 60)
    assert (done, begun) == (False, ["peak-other"]) and "peak-other" not in answers


def test_tiny_and_full_results_do_not_share_a_folder(bench, tmp_path):
    store = bench("gpu_report").Store(tmp_path, tiny=True)
    store.add("install", ANSWER)
    with pytest.raises(SystemExit, match="another --out"):
        bench("gpu_report").Store(tmp_path, tiny=False)


def test_a_step_is_rated_by_the_operations_of_products_and_by_the_peak_of_its_precision(bench):
    gpu_points, report = bench("gpu_points"), bench("gpu_report")
    points = [point for point in gpu_points.list_points(tiny=False) if point.part == "step"]
    step = {
        "launches": 480,
        "peak_bytes": 3_000_000_000,
        "temporary_bytes": None,
        "compile_seconds": 9.0,
        "devices": 1,
    }
    chosen = gpu_points.FIRST | {"setting": "5way-1shot"}
    native = chosen | {"convolution": "native", "precision": "bfloat16", "replicas": 4}
    answers = {
        gpu_points.name_step(chosen): {"seconds": 0.001, "flops": 1e9, **step},
        gpu_points.name_step(native): {"seconds": 0.002, "flops": 7e9, **step},
        "peak-bfloat16": {"flops": 8e12},
    }
    first, second = (
        row[5:] for row in sorted(report.list_steps(answers, points), key=lambda row: row[1] != "float32")
    )
    assert first == ("1", "1", "1, of about 480 kernels", "480", "1", "-", "3.00", "-", "9.0")
    assert second == ("2", "0.5", "", "480", "2", "25.0%", "3.00", "-", "9.0")


def test_a_gradient_beyond_its_limit_is_marked_and_so_are_two_devices_in_one_table(bench):
    report = bench("gpu_report")
    answers = {
        "gradient-float32-products": {"error": 2e-4, **ANSWER},
        "gradient-tensorfloat32-native": {"error": 2e-3, **ANSWER, "device": "another"},
    }
    assert [row[-1] for row in report.list_gradients(answers)] == ["TOO LARGE", "ok"]
    assert "Not all on one device" in report.name_devices(answers)


def test_a_run_takes_as_many_seeds_as_are_nearly_free(bench):
    runs, gpu_points = bench("gpu_runs"), bench("gpu_points")

    def answer(**seconds: float):
        base = gpu_points.FIRST | {"setting": "5way-1shot"}
        names = [gpu_points.name_step(base | {"replicas": int(count[1:])}) for count in seconds]
        return dict(zip(names, [{"seconds": value} for value in seconds.values()], strict=True))

    assert runs.choose_replicas("5way-1shot", {}) == 1
    assert runs.choose_replicas("5way-1shot", answer(_1=1.0, _2=1.1, _4=1.9, _8=2.1)) == 4
    assert runs.choose_replicas("5way-1shot", answer(_1=1.0, _2=2.5)) == 1


SAVING = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); print(1, flush=True); time.sleep(60)"


def test_a_run_is_stopped_by_a_signal_and_can_go_on(bench, tmp_path):
    runs = bench("gpu_runs")
    with subprocess.Popen([sys.executable, "-c", SAVING], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        code = runs.wait_or_stop(process, 0.0)
    assert runs.describe_end(code, tmp_path, tmp_path / "log") == {"state": "stopped"}


@pytest.mark.parametrize(("code", "key"), [(4, "skipped"), (7, "failed")])
def test_a_run_without_data_is_skipped_and_one_that_diverged_has_failed(bench, tmp_path, code, key):
    (tmp_path / "log").write_text("error: why\nwhere: here\nto do: that\n")
    assert "error: why" in bench("gpu_runs").describe_end(code, tmp_path, tmp_path / "log")[key]


TORCH = os.environ.get("METARUN_TORCH_PYTHON") or str(BENCH_FOLDER.parent / ".venv-torch" / "bin" / "python")
GRADIENTS = """
import _bench_settings, _bench_torch, gpu_torch, torch
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
params = []
make_params = _bench_torch.make_params
_bench_torch.make_params = lambda setting: params.append(make_params(setting)) or params[-1]
setting = _bench_settings.Setting("small", tasks=2, shots=1, queries=2, inner_steps=2, inner_rate=0.1, ways=3, width=4)
for make in (_bench_torch.make_outer_step, gpu_torch.make_batched_step):
    torch.manual_seed(0)
    make(setting)()
pairs = zip(*params, strict=True)
print(max(float((left.grad - right.grad).abs().max() / left.grad.abs().max()) for left, right in pairs))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path(TORCH).exists(), reason="there is no torch here")
def test_both_programs_of_torch_take_the_same_second_order_gradient():
    """Relative to the largest entry of each parameter's gradient, in double precision."""
    output = subprocess.check_output([TORCH, "-c", GRADIENTS], cwd=BENCH_FOLDER, text=True)
    assert float(output) < 1e-9


def read_answers(folder: Path) -> dict:
    """The answers so far; empty before the first."""
    file = folder / "results.json"
    return json.loads(file.read_text())["points"] if file.exists() else {}


def start_tiny(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"METARUN_TORCH_PYTHON": str(folder / "no-torch")}
    command = [sys.executable, BENCH_FOLDER / "gpu.py", "--tiny", "--out", folder]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.reproduction
def test_all_parts_work_on_a_cpu_and_go_on_after_a_signal(tmp_path):
    """The whole of scripts/gpu.sh --tiny but its environment: some 50 seconds of computing."""
    with start_tiny(tmp_path) as process:
        while "gradient-float32-products" not in read_answers(tmp_path):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    before = read_answers(tmp_path)
    with start_tiny(tmp_path) as process:
        output, messages = process.communicate()
    assert (process.returncode, output) == (0, f"{tmp_path / 'results.md'}\n"), messages
    answers = read_answers(tmp_path)
    assert {name: answers[name] for name in before} == before
    assert not [name for name in before if f" {name}\n" in messages]
    assert not [answer for answer in answers.values() if "failed" in answer]
    assert "torch is not there" in answers["torch-5way-1shot-float32-vmap"]["skipped"]
    assert answers["gradient-float32-products"]["error"] < 1e-4
    assert answers["step-5way-1shot-float32-native-recorded-1"]["launches"] > 50
    assert answers["run-sinusoid"]["state"] == "done"
    table = (tmp_path / "results.md").read_text()
    titles = ("Install", "Gradient", "Peak", "Training step", "PyTorch", "Long runs")
    assert all(f"\n## {title}" in table for title in titles)
