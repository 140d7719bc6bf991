"""Networks for pictures as sources of features: from a local file of weights, or with random ones.

`open_backbone` is the door. `safetensors_file` reads the file, `vit_layouts` and `resnet_layouts` know the names that
published files have, and `key_map` turns them into the parameters of `models/vit.py` or `models/resnet.py`. Nothing is
loaded with pickle, and nothing is fetched. Importing this package imports no jax.
"""

from pathlib import Path
from typing import Literal

from metarun.backbones.extractor import Backbone

__all__ = ["Backbone", "open_backbone"]


def open_backbone(
    weights: Path | None,
    *,
    model: str | None = None,
    seed: int = 0,
    precision: Literal["float32", "bfloat16"] = "float32",
    size: int | None = None,
) -> Backbone:
    """Open a file of weights as a source of features.

    Args:
      weights: a safetensors file; None: random weights, which `label` says.
      model: a name of `published.SIZES`, such as vit_s14 or resnet50; with a file also vit or resnet alone, and None:
        what the file holds. None without a file: resnet18.
      seed: of random weights.
      precision: of weights and products; the features are float32.
      size: pixels a side of the pictures; None: as the published code evaluates.

    Raises:
      DataError: the file is damaged, does not say all of the network, or holds none that is known here, or another one
        than `model`.
      UsageError: there is no such model or precision, or the network takes no pictures of this size.
    """
    from metarun.backbones import frozen_network  # imports jax

    return frozen_network.open_network(weights, model, seed, precision, size)
