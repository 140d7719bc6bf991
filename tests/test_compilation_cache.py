"""The folder of compiled programs: private, or not used; damaged entries are compiled again."""

import os
import stat
from pathlib import Path

import pytest

from helpers import processes
from metarun import compilation_cache

SUM = """
import sys, jax, jax.numpy as jnp
from metarun import compilation_cache
compilation_cache.SECONDS = 0.0
compilation_cache.use_private_folder()
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
print(float(jax.jit(lambda x: (x * 3 + 1).sum())(jnp.arange(5.0))), sum("cache_hits" in name for name in events))
"""


def make_private(path: Path) -> Path:
    """Make a folder that only its owner may write to."""
    path.mkdir(mode=0o700)
    return path


def test_a_folder_of_our_own_is_used(tmp_path):
    assert compilation_cache.find_fault(make_private(tmp_path / "compiled")) is None


@pytest.mark.parametrize("right", [stat.S_IWGRP, stat.S_IWOTH])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, caplog, right):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path))
    make_private(tmp_path / "compiled").chmod(0o700 | right)
    used = []
    monkeypatch.setattr(compilation_cache.jax.config, "update", lambda *setting: used.append(setting))
    compilation_cache.use_private_folder()
    assert used == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"others can write to {tmp_path}/compiled" in caplog.text


def test_a_folder_that_others_can_put_another_in_place_of_is_not_used(tmp_path):
    above = make_private(tmp_path / "above")
    folder = make_private(above / "compiled")
    above.chmod(0o777)
    assert compilation_cache.find_fault(folder) == f"everybody can write to {above}"
    above.chmod(0o1777)  # as folders of temporary files are: nobody renames what belongs to another
    assert compilation_cache.find_fault(folder) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(tmp_path):
    folder = make_private(tmp_path / "compiled")
    os.chown(folder, 12345, -1)
    assert compilation_cache.find_fault(folder) == f"{folder} belongs to somebody else"


@pytest.mark.slow
def test_a_damaged_program_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path))
    assert processes.run_code(SUM).split() == ["35.0", "0"]
    assert processes.run_code(SUM).split()[0] == "35.0"
    entries = [path for path in (tmp_path / "compiled").iterdir() if path.name.endswith("-cache")]
    assert entries
    for path in entries:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    assert processes.run_code(SUM).split() == ["35.0", "0"]
