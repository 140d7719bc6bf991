"""Somebody's own picture files, read as a run reads them: size, channels, and which of dark and light is 1.

Runs on drawings have ink as 1. They take picture files for dark ink on light paper, and turn them over; files of bright
ink on dark ground would become paper without this module. The ground of the training pictures (`picture_range`, or ink
as 1 in a run that has noted none) is compared with that of the support:

    auto     as the run reads files; the other way round if the support is without colours, and clearly has the other
             ground
    keep     as the run reads files, whatever they look like
    invert   the other way round

The queries are read as the support is, because the answer to one must not depend on the others.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarun import base, errors
from metarun.data import examples
from metarun.runs import picture_range

CHOICES = ("auto", "keep", "invert")
OTHER: dict[picture_range.Ground, picture_range.Ground] = {"dark": "light", "light": "dark"}
SHOWS = {"dark": "bright things on dark ground", "light": "dark things on light ground"}

# Mean difference of the largest and the smallest channel, up to which pictures are drawings: black ink in the channels
# of a JPEG, or thin lines of coloured ink.
MOST_COLOUR = 0.05

logger = logging.getLogger("metarun")


class OwnPictures(NamedTuple):
    """Pictures as inputs of a run."""

    inputs: Float[np.ndarray, "example *input"]
    inverted: bool  # whether they are read the other way round than the run reads files


class PictureReader(NamedTuple):
    """What reads picture files as a run reads them."""

    shape: tuple[int, ...]  # (height, width, channel), or what the form makes of a picture
    form: base.Pictures
    run: Path  # the run directory

    def read(self, files: Sequence[Path], polarity: str = "keep", noun: str = "support") -> OwnPictures:
        """Read picture files.

        Args:
          polarity: see above; auto judges by these pictures, and warns if they are turned over.
          noun: what the pictures are, in the warning.

        Raises:
          DataError: a picture cannot be read.
          UsageError: pictures are to be turned over that the run takes in another form than values in [0, 1].
        """
        inputs = self.read_as_they_are(files)
        if polarity == "auto":
            inverted = self.has_other_ground(inputs)
            if inverted:
                warn_of_ground(self.find_file_ground(inputs), noun)
        else:
            inverted = polarity == "invert"
        return OwnPictures(self.turn(inputs) if inverted else inputs, inverted)

    def read_as_they_are(self, files: Sequence[Path]) -> np.ndarray:
        """Return picture files as inputs of the run, which is told nothing of their ground."""
        if self.form.read is not None:
            return np.asarray(self.form.read(list(files)), np.float32)
        height, width, channels = self.shape
        return examples.read_pictures(list(files), (height, width, channels), self.form.inverted)

    def turn(self, inputs: np.ndarray) -> np.ndarray:
        """Return pictures the other way round, bit for bit as if their files were so.

        Raises:
          UsageError: they are not in [0, 1].
        """
        if not is_plain(inputs):
            what = "the run takes pictures in another form than values from 0 to 1, which has no inverse"
            raise errors.UsageError(what, "--polarity", "leave it out, or turn the files over")
        if self.form.read is not None:
            return 1 - inputs
        return (255 - np.round(255 * inputs)) / np.float32(255)

    def has_other_ground(self, inputs: np.ndarray) -> bool:
        """Return whether pictures clearly have the other ground than those of the training; never of colour pictures.

        The negative of a photograph is none, whatever the thing in it lies on.
        """
        expected = self.find_training_ground()
        if expected is None or not is_plain(inputs) or np.ptp(inputs, axis=-1).mean() > MOST_COLOUR:
            return False
        return picture_range.find_ground(inputs) == OTHER[expected]

    def find_training_ground(self) -> picture_range.Ground | None:
        """Return the ground of the training pictures as inputs; None: it is not known."""
        known = picture_range.read(self.run)
        if known is not None:
            return known.ground or ("dark" if self.form.inverted and known.brightness[1] < 0.5 else None)
        return "dark" if self.form.inverted else None  # ink is 1 there

    def find_file_ground(self, inputs: np.ndarray) -> picture_range.Ground:
        """Return the ground of the files themselves, of which these are the inputs."""
        ground = picture_range.find_ground(inputs)
        assert ground is not None  # `has_other_ground` has found it
        return OTHER[ground] if self.form.inverted else ground


def is_plain(inputs: np.ndarray) -> bool:
    """Return whether inputs are pictures [example, height, width, channel] in [0, 1]."""
    return bool(inputs.ndim == 4 and inputs.size and inputs.min() >= 0 and inputs.max() <= 1)


def warn_of_ground(ground: picture_range.Ground, noun: str) -> None:
    """Say that pictures are turned over, and how one keeps them."""
    logger.warning(
        "the pictures of the %s show %s, and those of the training the opposite: all pictures are turned over; "
        "--polarity keep takes them as they are, --polarity invert says that you know",
        noun,
        SHOWS[ground],
    )


def refuse_other_polarity(polarity: str) -> None:
    """Raise UsageError for a polarity that does not exist."""
    if polarity not in CHOICES:
        what = f"there is no polarity {polarity}"
        raise errors.UsageError(what, "--polarity", f"use one of {', '.join(CHOICES)}")
