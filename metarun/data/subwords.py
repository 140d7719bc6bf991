"""Sub-words: text as tokens of a vocabulary that is learned from the text of the training pairs, and back.

SentencePiece's unigram model (Kudo 2018, arXiv 1804.10959). The same sentences give the same tokens everywhere, because
no sentence is left out by chance, and the work is always divided among the same number of threads. A letter that the
training text does not have is written in its UTF-8 bytes, so that no text is unknown.
"""

import io
from collections.abc import Iterable, Sequence
from typing import Any

from metarun import errors

# Tokens that are no part of a text; the first three are those of metarun/tasks/_sentences.py.
SPECIAL: dict[str, Any] = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
THREADS = 16  # of the training; their number changes the last bit of sums
LONGEST_BYTES = 10_000  # longer sentences are left out of the training


class Subwords:
    """A trained vocabulary.

    Attributes:
      size: the number of all tokens.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = import_sentencepiece().SentencePieceProcessor(model_proto=model)
        self.size: int = self._processor.get_piece_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of every text."""
        return self._processor.encode(list(texts))

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return every row of tokens as text. Bytes that are no UTF-8 become replacement characters."""
        return [self._processor.decode(list(row)) for row in tokens]


def learn(texts: Iterable[str], size: int) -> Subwords:
    """Learn the vocabulary of a text. It has at most `size` tokens, and fewer if the text has no more.

    Raises:
      ValueError: the size is too small for the letters of the text.
      ConfigError: sentencepiece is not installed.
    """
    model, trainer = io.BytesIO(), import_sentencepiece().SentencePieceTrainer
    try:
        trainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            max_sentence_length=LONGEST_BYTES,
            num_threads=THREADS,
            minloglevel=2,
            **SPECIAL,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"no vocabulary of {size} sub-words could be learned: {reason}", "raise vocabulary, or add text"
        ) from error
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
