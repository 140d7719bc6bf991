"""How all tests run: on the CPU, with every signature of metarun checked, and with caches of their own.

Shapes and types in signatures are checked at every call (at every trace, under jit). An int may stand for
a float, as for any type checker. Ranks are never promoted silently. Workers share one METARUN_CACHE: the one
of the environment if it is set, so that decoded data and compiled programs outlive the session, else a new one.
"""

import os
import tempfile
from pathlib import Path

import jaxtyping
import pytest

jaxtyping.install_import_hook(  # before anything imports metarun
    "metarun", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # for the subprocesses of tests, too
os.environ.setdefault("MPLBACKEND", "agg")


def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("METARUN_CACHE"):  # xdist's workers inherit what is set here
        folder = tempfile.TemporaryDirectory(prefix="metarun-tests-")
        os.environ["METARUN_CACHE"] = folder.name
        config.add_cleanup(folder.cleanup)
    compiled = Path(os.environ["METARUN_CACHE"]).expanduser() / "compiled-tests"
    compiled.mkdir(mode=0o700, parents=True, exist_ok=True)

    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture
def data_root() -> Path:
    """The folder of the real data sets."""
    if not os.environ.get("METARUN_DATA"):
        pytest.skip("set METARUN_DATA to a folder with the data sets to run this test")
    return Path(os.environ["METARUN_DATA"]).expanduser()
