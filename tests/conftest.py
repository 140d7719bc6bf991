"""How all tests run: on the CPU, with every signature of metarun checked, and with caches of their own.

Shapes and types in signatures are checked at every call (at every trace, under jit). An int may stand for
a float, as for any type checker. Ranks are never promoted silently. Workers share one METARUN_CACHE: the one
of the environment if it is set, so that decoded data and compiled programs outlive the session, else a new one.
"""

import gc
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # for the subprocesses of tests, too
os.environ.setdefault("MPLBACKEND", "agg")
pytest.register_assert_rewrite("helpers")
TEMPORARY = "metarun-tests-"  # how the cache of one session is called

from helpers import type_checks  # noqa: E402, after the line above

type_checks.install("metarun")  # before anything imports metarun


def pytest_configure(config: pytest.Config) -> None:
    from helpers import attacks

    config.pluginmanager.register(attacks)
    if not os.environ.get("METARUN_CACHE"):  # xdist's workers inherit what is set here
        folder = tempfile.TemporaryDirectory(prefix=TEMPORARY)
        os.environ["METARUN_CACHE"] = folder.name
        config.add_cleanup(folder.cleanup)

    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")
    keep_compiled_programs(jax, Path(os.environ["METARUN_CACHE"]).expanduser())
    # Tracing makes millions of short-lived objects, and each collection looks at all modules again.
    gc.set_threshold(50_000, 20, 100)


def keep_compiled_programs(jax: ModuleType, cache: Path) -> None:
    """Keep every compiled program for the next session. Within a session hardly any is compiled twice."""
    if cache.name.startswith(TEMPORARY):
        jax.config.update("jax_enable_compilation_cache", False)
        return
    (cache / "compiled-tests").mkdir(mode=0o700, parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(cache / "compiled-tests"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what the modules hold is looked at no more


# The files that take longest, longest first: they begin first, so that no process ends the suite alone.
SLOW_FILES = (
    "algorithms/test_contract.py",
    "algorithms/test_maml.py",
    "training/test_resume.py",
    "training/test_replicas.py",
    "algorithms/test_task_embedding.py",
    "training/test_trials.py",
    "finished/test_answers.py",
    "models/test_contract.py",
    "finished/test_task_vectors.py",
    "training/test_stage_run.py",
    "cli/test_application.py",
    "algorithms/test_memory.py",
    "algorithms/test_inner_options.py",
    "algorithms/test_distillation.py",
    "finished/test_drift.py",
    "test_configs.py",
    "tasks/test_contract.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def find_place(item: pytest.Item) -> int:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        return SLOW_FILES.index(file) if file in SLOW_FILES else len(SLOW_FILES)

    items.sort(key=find_place)  # a stable sort: the order within a file stays


@pytest.fixture
def data_root() -> Path:
    """The folder of the real data sets."""
    if not os.environ.get("METARUN_DATA"):
        pytest.skip("set METARUN_DATA to a folder with the data sets to run this test")
    return Path(os.environ["METARUN_DATA"]).expanduser()


@pytest.fixture
def in_float64(request) -> Iterator[None]:
    """Double precision, but for a test that is marked `float32`."""
    from helpers import gradients

    if request.node.get_closest_marker("float32"):
        yield
        return
    with gradients.float64():
        yield


@pytest.fixture
def own_place(tmp_path, monkeypatch) -> Iterator[None]:
    """An empty working folder, and the loggers afterwards as they were before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METARUN_DEBUG", raising=False)
    loggers = [logging.getLogger(name) for name in ("metarun", "absl")]
    before = [(list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate


@pytest.fixture
def warnings_of_metarun() -> Iterator[list[str]]:
    """What is logged as a warning, whether or not the command line has turned off propagation before."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("metarun").addHandler(handler)
    yield messages
    logging.getLogger("metarun").removeHandler(handler)


@pytest.fixture
def shared_programs() -> Iterator[None]:
    """Commands of the test compile nothing that an earlier run of the same structure has compiled."""
    from helpers import shared_programs

    with shared_programs.share():
        yield


@pytest.fixture(scope="session")
def single(tmp_path_factory) -> Path:
    """The finished run of `runs.SINGLE`, of one stage. No test changes it."""
    from helpers import runs

    return runs.train(tmp_path_factory.mktemp("single") / "run")


@pytest.fixture(scope="session")
def several(tmp_path_factory) -> Path:
    """The finished run of `runs.SEVERAL`, of two stages. No test changes it."""
    from helpers import runs

    return runs.train(tmp_path_factory.mktemp("several") / "run", runs.SEVERAL)


@pytest.fixture(scope="session")
def both(tmp_path_factory) -> Path:
    """The finished run of `runs.BOTH`: replicas, and a stage with copies before one without. No test changes it."""
    from helpers import runs

    return runs.train(tmp_path_factory.mktemp("both") / "run", runs.BOTH)


@pytest.fixture
def metarun_(monkeypatch, capsys) -> Callable:
    """A function that runs a command of `metarun` in this process; see `commands.Said`."""
    from helpers import commands

    return commands.make_command(monkeypatch, capsys)


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory) -> Path:
    """A run on drawings, with the weights that training begins with. No test changes it."""
    from helpers import drawings

    return drawings.make_run(tmp_path_factory.mktemp("pictures") / "run")
