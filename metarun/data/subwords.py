"""Text to tokens and back: sub-words of a vocabulary that is learned from the text of the training pairs.

SentencePiece's unigram model (Kudo 2018, arXiv 1804.10959). The same sentences give the same tokens everywhere: no
sentence is left out by chance, and the work is always cut into the same number of parts. A letter that the training
text does not have is written in its UTF-8 bytes, so that no text is unknown.
"""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece

SPECIAL: dict[str, Any] = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}  # three as in metarun.tasks
BYTES = 256  # tokens of their own
PARTS = 16  # of the training, one a thread: their number changes the last bit of sums
LONGEST_BYTES = 10_000  # sentences beyond are not learned from


class Subwords:
    """A trained vocabulary.

    Attributes:
      size: tokens in all.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size: int = self._processor.get_piece_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of every text."""
        return self._processor.encode(list(texts))

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Every row of tokens as text; bytes that are no UTF-8 become replacement characters."""
        return [self._processor.decode(list(row)) for row in tokens]


def learn(texts: Iterable[str], size: int) -> Subwords:
    """The vocabulary of a text: at most `size` tokens, fewer where the text has no more.

    Raises:
      ValueError: the size does not hold the letters of the text.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            max_sentence_length=LONGEST_BYTES,
            num_threads=PARTS,
            minloglevel=2,
            **SPECIAL,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"no vocabulary of {size} sub-words could be learned: {reason}", "raise vocabulary, or add text"
        ) from error
    return Subwords(model.getvalue())
