"""bench/bench_step.py: what it reads from a compiled program, and the form before. Nothing is timed here."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from metarun.models import _convolution

ROOT = Path(__file__).parents[2]
PROGRAM = """
  %sum.1 = f32[3,2]{1,0} all-reduce(%x), channel_id=1, to_apply=%add
  %sum.2 = (f32[5]{0}, f32[]) all-reduce(%y, %z), channel_id=2, to_apply=%add
  %parts.3 = f32[2,4]{1,0} all-to-all(%w), channel_id=3, dimensions={0}
  %use = f32[3,2]{1,0} add(%sum.1, %sum.1)
"""


@pytest.fixture(autouse=True)
def bench_folder(monkeypatch):
    """Let a test import the files of bench/, which is no package."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])


class Compiled:
    """Stands for a compiled program."""

    def as_text(self) -> str:
        return PROGRAM


def test_the_bytes_of_all_collectives_are_counted():
    import bench_step

    assert bench_step.count_collective_bytes(Compiled()) == 4 * (6 + 5 + 1 + 8)


def test_the_form_before_has_the_same_patches():
    import bench_step

    inputs = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)
    make = jax.jit(
        lambda inputs: (
            bench_step.slice_with_stride(inputs, (3, 3), 2),
            _convolution.make_patches(inputs, (3, 3), 2),
        )
    )
    before, now = make(inputs)
    np.testing.assert_array_equal(before, now)
