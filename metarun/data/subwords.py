"""Sub-words: text as tokens of a vocabulary that is learned from the text of the training pairs, and back.

SentencePiece's unigram model (Kudo 2018, arXiv 1804.10959), or byte-pair encoding (Sennrich et al. 2016, arXiv
1508.07909). The same sentences give the same tokens everywhere, because no sentence is left out by chance, and the work
is always divided among the same number of threads. A letter that the training text does not have is written in its
UTF-8 bytes, so that no text is unknown.
"""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from metarun import errors

# Tokens that are no part of a text; the first three are those of metarun/tasks/_sentences.py.
SPECIAL: dict[str, Any] = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
THREADS = 16  # of the training; their number changes the last bit of sums
LONGEST_BYTES = 10_000  # longer sentences are left out of the training


class Subwords:
    """A trained vocabulary.

    Attributes:
      size: the number of all tokens.
      model: the vocabulary as bytes, from which the same one can be made again.
    """

    def __init__(self, model: bytes) -> None:
        """Take a vocabulary that was learned before.

        Raises:
          ValueError: the bytes are no vocabulary.
          ConfigError: sentencepiece is not installed.
        """
        package = import_sentencepiece()
        try:
            self._processor = package.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("these bytes are no vocabulary of sub-words") from error
        self.model = model
        self.size: int = self._processor.get_piece_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of every text."""
        return self._processor.encode(list(texts))

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return every row of tokens as text. Bytes that are no UTF-8 become replacement characters."""
        return [self._processor.decode(list(row)) for row in tokens]


Kind = Literal["unigram", "bpe"]


def learn(texts: Iterable[str], size: int, kind: Kind = "unigram") -> Subwords:
    """Learn the vocabulary of a text. It has at most `size` tokens, and fewer if the text has no more.

    Raises:
      ValueError: the size is too small for the letters of the text.
      ConfigError: sentencepiece is not installed.
    """
    listed = list(texts)
    try:
        return train(listed, size, kind)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        # Unlike the unigram model, byte-pair encoding stops where a text has no more pairs, and says the largest size.
        largest = re.search(r"set it to a value <= (\d+)", reason) if kind == "bpe" else None
        if largest is not None and 0 < int(largest[1]) < size:
            return train(listed, int(largest[1]), kind)
        raise ValueError(
            f"no vocabulary of {size} sub-words could be learned: {reason}", "raise vocabulary, or add text"
        ) from error


def train(texts: list[str], size: int, kind: Kind) -> Subwords:
    """Learn the vocabulary of a text, or raise RuntimeError as sentencepiece does."""
    model = io.BytesIO()
    import_sentencepiece().SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=kind == "bpe",
        character_coverage=1.0,
        byte_fallback=True,
        max_sentence_length=LONGEST_BYTES,
        num_threads=THREADS,
        minloglevel=2,
        **SPECIAL,
    )
    return Subwords(model.getvalue())


def import_sentencepiece() -> Any:
    """Return the package, which only text needs.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import sentencepiece
    except ImportError as error:
        what = "sub-words are learned by sentencepiece, which is not installed"
        raise errors.ConfigError(what, "task", "pip install 'metarun[text]'") from error
    return sentencepiece
