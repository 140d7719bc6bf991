"""The arrays of a split of parallel text, and what is refused or left out on the way."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from metarun.data.sentence_pairs import Pair
from metarun.errors import DataError
from metarun.tasks import _sentences
from metarun.tasks.parallel_text.sentence_splits import SPLITS, Direction, Split
from metarun.tasks.parallel_text.text_sizes import KEPT, Sizes

if TYPE_CHECKING:
    from metarun.tasks.parallel_text import Config

# The tokens of one pair. A sentence that is too long in a language has rows of PAD, which begin with minus its length.
Rows = Int[np.ndarray, "sentence 2 token"]

logger = logging.getLogger("metarun")


def encode_pairs(sizes: Sizes, pairs: Sequence[Pair]) -> list[Rows]:
    """Return the tokens of every pair of languages."""
    known = dict(sizes.tokens)
    fresh = list(
        dict.fromkeys(text for pair in pairs for side in pair[2:4] for text in side if text not in known)
    )
    known.update(zip(fresh, sizes.vocabulary.encode(fresh), strict=True))
    return [encode_pair(sizes, [[known[text] for text in side] for side in pair[2:4]]) for pair in pairs]


def encode_pair(sizes: Sizes, sides: Sequence[Sequence[list[int]]]) -> Rows:
    """Return int32 [sentence, language, token] from the tokens of the sentences of two languages."""
    lengths = np.array([max(map(len, row)) for row in zip(*sides, strict=True)], np.int32)
    fits = lengths <= sizes.longest
    short_sides = [
        [tokens if fit else [] for tokens, fit in zip(side, fits.tolist(), strict=True)] for side in sides
    ]
    rows = np.stack([_sentences.pack(side, sizes.longest + 1) for side in short_sides], axis=1)
    rows[~fits] = _sentences.PAD
    rows[~fits, :, 0] = -lengths[~fits, None]
    return rows


def find_short(rows: Rows) -> Bool[np.ndarray, "sentence"]:
    """Return which sentences are not too long."""
    return rows[:, 0, 0] > 0


def make_table(rows: list[Rows], tasks: list[Direction]) -> dict[str, np.ndarray]:
    """Return the arrays of one split: the sentences of its tasks, and where those of each task begin.

    Two directions with the same sentences share their rows.
    """
    starts: dict[tuple[int, bytes], int] = {}
    tokens, sentences, total = [], [], 0
    start, counts = [], []
    for task in tasks:
        chosen = task.sentences[find_short(rows[task.pair][task.sentences])]
        block = (task.pair, chosen.tobytes())
        if block not in starts:
            starts[block] = total
            tokens.append(rows[task.pair][chosen])
            sentences.append(chosen)
            total += len(chosen)
        start.append(starts[block])
        counts.append(len(chosen))
    return {
        "tokens": np.concatenate(tokens),
        "sentence": np.concatenate(sentences).astype(np.int32),
        "start": np.array(start, np.int32),
        "count": np.array(counts, np.int32),
        "backward": np.array([task.backward for task in tasks]),
        "task": np.array([2 * task.pair + task.backward for task in tasks], np.int32),
        "topic": np.array([task.topic for task in tasks], np.int32),
        "member": np.arange(max(counts), dtype=np.int32),
    }


def warn_of_long_sentences(config: "Config", sizes: Sizes, rows: list[Rows], split: Split) -> None:
    """Warn about the sentences that are too long, and name what helps. A few are expected if the length is chosen."""
    used = {(task.pair, task.sentences.tobytes()): task for tasks in split.tasks.values() for task in tasks}
    first = np.concatenate([rows[task.pair][task.sentences, 0, 0] for task in used.values()])
    lengths = np.sort(-first[first < 0])[::-1]
    if not len(lengths):
        return
    allowed = int((1 - KEPT) * len(first))
    few = config.longest is None and len(lengths) < 2 * allowed
    enough = lengths[min(allowed, len(lengths) - 1)]
    remedy = (
        f"task.longest={enough} keeps 95 %" if len(lengths) > allowed else "a larger task.longest keeps them"
    )
    (logger.info if few else logger.warning)(
        "%s: %d of %d pairs of sentences have more than %d sub-words and are left out; %s, and a task.vocabulary of "
        "more than %d makes sentences shorter",
        config.folder,
        len(lengths),
        len(first),
        sizes.longest,
        remedy,
        sizes.vocabulary.size,
    )


def check_counts(config: "Config", data: dict[str, dict[str, np.ndarray]]) -> None:
    """Refuse a split from which no episode can be drawn, and warn about tasks that are too small for one."""
    needed = config.shots + config.queries
    for name in SPLITS:
        if name == "validation" and name not in data:
            continue
        counts = data[name]["count"] if name in data else np.zeros(0, np.int32)
        large = int((counts >= needed).sum())
        if not large:
            raise DataError(
                f"no task of the {name} split has the {needed} sentences of an episode; "
                f"it has {len(counts)} tasks, the largest of {counts.max(initial=0)} sentences",
                config.folder,
                choose_remedy(config),
            )
        if large < len(counts):
            logger.warning(
                "%s: %d of %d tasks of the %s split have fewer than %d sentences and are not drawn",
                config.folder,
                len(counts) - large,
                len(counts),
                name,
                needed,
            )


def choose_remedy(config: "Config") -> str:
    """Return which options give every split enough sentences."""
    remedy = "add text, take fewer shots or queries (task.shots, task.queries), raise task.longest or task.vocabulary"
    if config.holdout == "topics":
        return f"{remedy}, or take fewer task.topics"
    if config.holdout == "sentences":
        return f"{remedy}, or change task.shares"
    return f"{remedy}, or hold out sentences of every pair: task.holdout=sentences"
