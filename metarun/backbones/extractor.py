"""What `open_backbone` returns: a frozen network with all that a cache of features must know of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from metarun.data.preparation import Preparation


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network that gives features of pictures."""

    name: str  # the model: vit or resnet
    label: str  # what is shown: the network with its file, or "random weights"
    digest: str  # 64 hexadecimal digits: of the bytes of the file and of the options
    preparation: Preparation  # how a picture file becomes an input
    features: int  # numbers of one picture
    # float32 [example, height, width, channel] -> [example, feature], compiled
    embed: Callable = field(repr=False)

    def extract(self, pictures: np.ndarray) -> np.ndarray:
        """Return float32 [example, feature] of float32 [example, height, width, 3] as `preparation` gives them.

        It compiles once for each number of pictures, so give equal batches.
        """
        return np.asarray(self.embed(np.asarray(pictures, np.float32)), np.float32)
