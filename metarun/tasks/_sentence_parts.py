"""A sentence that is too long for a learner, as parts that are short enough."""

import re
from collections.abc import Callable

# Where a sentence may be cut, the best places first: after the end of a sentence, after other punctuation, at a space.
PLACES = (
    r"(?<=[.!?…])\s+|(?<=[。！？])",  # the second half is for scripts without spaces
    r"(?<=[,;:])\s+|(?<=[、，；：])",
    r"\s+",
)


def divide(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Return the parts of a text in their order, as few and as long as the places allow.

    A word that is too long by itself is cut between letters. A letter that does not fit stays as it is.
    """
    if fits(text) or len(text) < 2:
        return [text]
    for place in PLACES:
        pieces = [piece for piece in re.split(place, text) if piece]
        if len(pieces) > 1:
            parts = join(pieces, fits, " " if " " in text else "")
            return [short for part in parts for short in divide(part, fits)]
    half = len(text) // 2
    return [*divide(text[:half], fits), *divide(text[half:], fits)]


def join(pieces: list[str], fits: Callable[[str], bool], between: str) -> list[str]:
    """Join neighbouring pieces as long as they fit together."""
    parts: list[str] = []
    for piece in pieces:
        longer = f"{parts[-1]}{between}{piece}" if parts else piece
        if parts and fits(longer):
            parts[-1] = longer
        else:
            parts.append(piece)
    return parts
