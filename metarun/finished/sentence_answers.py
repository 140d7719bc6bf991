"""Many sentences translated by an adapted learner: the long ones in parts, and sentences of like length together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarun import base
from metarun.finished import own_support
from metarun.finished.prediction import AdaptedLearner


class Translations(NamedTuple):
    """What was said to some sentences."""

    texts: list[str]  # [sentence]
    parts: list[int]  # [sentence], in how many parts each was translated


def translate(
    learner: AdaptedLearner, form: base.Sentences, sentences: Sequence[str], where: str
) -> Translations:
    """Return the translation of each sentence. One that is too long is translated in parts, which are joined by spaces.

    Args:
      where: the place of the sentences, for an error.

    Raises:
      DataError: the family refuses a sentence.
      DivergedError: the learner gives numbers that are not finite.
    """
    divide = form.divide or (lambda sentence: [sentence])
    divided = own_support.name_place(where, lambda: [divide(sentence) for sentence in sentences])
    flat = [part for parts in divided for part in parts]
    inputs = own_support.encode(form, flat, [""] * len(flat), where).inputs
    by_length = learner.run.mode == "inductive" and isinstance(inputs, Mapping) and "source" in inputs
    answers = answer_by_length(learner.predict, inputs) if by_length else learner.predict(inputs)
    said = iter(form.spell(answers))
    texts = [" ".join(next(said) for _ in parts) for parts in divided]
    return Translations(texts, [len(parts) for parts in divided])


def answer_by_length(predict: Callable[[base.PyTree], np.ndarray], inputs: Mapping[str, Any]) -> np.ndarray:
    """Return the answers to sentences, in the order of these. They are asked for by length.

    A batch takes as long as its longest sentence, so it should hold sentences of like length.

    Args:
      predict: inputs -> int32 [example, token], each as the sentence is answered alone.
    """
    order = np.argsort((np.asarray(inputs["source"]) != base.PAD).sum(axis=1), kind="stable")
    answers = predict({name: np.asarray(tokens)[order] for name, tokens in inputs.items()})
    unsorted = np.empty_like(answers)
    unsorted[order] = answers
    return unsorted
