"""Sentences as padded rows of tokens: how they are packed, translated word by word, and scored.

A sentence of n tokens is n tokens, END and padding. A learner sees a source sentence and the target up to a position
(its prefix), and says which token of the target comes next, at every position at once; padding counts nowhere.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sacrebleu
from jaxtyping import Array, Bool, Float, Int

from metarun import base
from metarun.tasks import _drawing

PAD, BEGIN, END = range(3)  # fills a row | stands before a target | closes a sentence
SPECIAL = 3  # tokens that are no part of a text
SHOWN = 6  # sentences in a picture
NAMED = 60  # letters of a sentence in a message

Tokens = Int[Array, "example token"]


def examples(source: Tokens, target: Tokens) -> base.Examples:
    """Pairs of sentences as examples: the prefix of a target is the target moved by one, behind BEGIN."""
    begin = jnp.full((target.shape[0], 1), BEGIN, target.dtype)
    prefix = jnp.concatenate([begin, target[:, :-1]], axis=1)
    return base.Examples({"source": source, "prefix": jnp.where(prefix == END, PAD, prefix)}, target)


def pack(sentences: list[list[int]], length: int) -> Int[np.ndarray, "example {length}"]:
    """Rows of tokens, each closed by END and filled with PAD; a sentence has at most `length` − 1 tokens."""
    rows = np.full((len(sentences), length), PAD, np.int32)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence) + 1] = [*sentence, END]
    return rows


def unpack(row: Int[np.ndarray, "token"]) -> list[int]:
    """The tokens of a row, up to END."""
    tokens = row.tolist()
    cut = tokens.index(END) if END in tokens else len(tokens)
    return [token for token in tokens[:cut] if token >= SPECIAL]


def cross_entropy(logits: Float[Array, "example token vocabulary"], targets: Tokens) -> Float[Array, ""]:
    """Mean negative log-likelihood of the tokens that are no padding, in nats; each token counts the same."""
    counted = targets != PAD
    log_probabilities = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(counted, chosen, 0.0)) / jnp.sum(counted)


def token_accuracy(logits: Float[Array, "example token vocabulary"], targets: Tokens) -> Float[Array, ""]:
    """Share of the tokens that are no padding at which the largest logit is right, given the true prefix."""
    counted = targets != PAD
    right: Bool[Array, "example token"] = (jnp.argmax(logits, axis=-1) == targets) & counted
    return jnp.sum(right) / jnp.sum(counted)


def translate(predict: Callable, inputs: Mapping[str, Array]) -> Tokens:
    """Greedy decoding: the likeliest token at every position, after those said so far, up to END; a compiled loop.

    Only `source` and the length of `prefix` are read. PAD and BEGIN are never said.
    """
    say, start = make_say(predict, inputs)
    _, columns = jax.lax.scan(say, start, jnp.arange(inputs["prefix"].shape[1]))
    return columns.T


def translate_on_host(predict: Callable, inputs: Mapping[str, Array]) -> Tokens:
    """`translate`, for a predictor that no compiled loop can call."""
    say, state = make_say(predict, inputs)
    columns = []
    for position in range(inputs["prefix"].shape[1]):
        state, said = say(state, jnp.array(position))
        columns.append(said)
    return jnp.stack(columns, axis=1)


def make_say(predict: Callable, inputs: Mapping[str, Array]) -> tuple[Callable, tuple]:
    """A function ((prefix, ended [example]), position) -> (the same after it, tokens said [example]); and its start."""
    source, (count, length) = inputs["source"], inputs["prefix"].shape

    def say(state, position):
        prefix, ended = state
        logits = jnp.asarray(predict({"source": source, "prefix": prefix}))
        here = jax.lax.dynamic_index_in_dim(logits, position, axis=1, keepdims=False)
        said = (jnp.argmax(here[:, END:], axis=-1) + END).astype(prefix.dtype)
        said = jnp.where(ended, PAD, said)
        ended |= said == END
        written = jax.lax.dynamic_update_index_in_dim(
            prefix, jnp.where(ended, PAD, said), position + 1, axis=1
        )
        prefix = jnp.where(position + 1 < length, written, prefix)  # the last token is no prefix of another
        return (prefix, ended), said

    prefix = jnp.full((count, length), PAD, inputs["prefix"].dtype).at[:, 0].set(BEGIN)
    return say, (prefix, jnp.zeros((count,), bool))


def objective(spell: Callable[[Any], list[str]], tokenizer: str) -> base.Objective:
    """Cross-entropy of the next token; selects the checkpoint with the highest BLEU of greedy translations.

    The queries of an episode are one corpus. BLEU and chrF are sacrebleu's, between 0 and 100: BLEU of up to four
    words (where no n-gram of a length is right, Chen and Cherry's exponential smoothing), chrF2 of up to six letters.

    Args:
      spell: tokens [example, token] -> sentences.
      tokenizer: of sacrebleu's BLEU: "none" for words that spaces part, "13a" for text with punctuation.
    """
    bleu, chrf = sacrebleu.BLEU(tokenize=tokenizer, force=True), sacrebleu.CHRF()

    def of_outputs(logits, targets):
        return {"loss": cross_entropy(logits, targets), "token_accuracy": token_accuracy(logits, targets)}

    def metrics(predict, query: base.Examples):
        forced = of_outputs(predict(query.inputs), query.targets)
        return forced | {"translation": translate(predict, query.inputs), "target": query.targets}

    def score(values: Mapping[str, Any]) -> dict[str, float]:
        said, wanted = spell(values["translation"]), spell(values["target"])
        return {
            "loss": float(values["loss"]),
            "token_accuracy": float(values["token_accuracy"]),
            "exact_match": float(np.mean([a == b for a, b in zip(said, wanted, strict=True)])),
            "bleu": float(bleu.corpus_score(said, [wanted]).score),
            "chrf": float(chrf.corpus_score(said, [wanted]).score),
        }

    return base.Objective(
        cross_entropy, of_outputs, metrics, selection="bleu", higher_is_better=True, score=score
    )


def make_form(
    spell: Callable[[Any], list[str]], read: Callable[[str], list[int]], length: int
) -> base.Sentences:
    """How text becomes examples; ValueError (what, remedy) for a sentence that cannot be read or is too long.

    Args:
      read: text -> tokens; may raise ValueError.
      length: of every row, END included.
    """

    def rows(texts: list[str]) -> Int[np.ndarray, "example token"]:
        sentences = [read(text) for text in texts]
        for text, sentence in zip(texts, sentences, strict=True):
            if len(sentence) >= length:
                raise ValueError(
                    f"the sentence {text[:NAMED]!r} has {len(sentence)} tokens, and {length - 1} are allowed",
                    "shorten it, or leave it out",
                )
        return pack(sentences, length)

    def encode(sources: list[str], targets: list[str]) -> base.Examples:
        made = examples(jnp.asarray(rows(sources)), jnp.asarray(rows(targets)))
        return jax.tree.map(np.asarray, made)

    return base.Sentences(encode, translate, spell)


def make_draw(spell: Callable[[Any], list[str]]) -> Callable:
    """Pictures of episodes: a table of source, reference, and what the learner says after its inner steps."""

    def draw(figure, episode: base.Episode, predictors) -> None:
        query = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:SHOWN], episode.query)
        lines = {"source": spell(query.inputs["source"]), "reference": spell(query.targets)}
        for steps, predict in predictors.items():
            lines[_drawing.learner_name(steps)] = spell(translate_on_host(predict, query.inputs))
        cells = [
            [name, sentences[row]] for row in range(len(query.targets)) for name, sentences in lines.items()
        ]
        longest = max(len(text) for _, text in cells)
        figure.set_size_inches(1.6 + 0.085 * longest, 0.5 + 0.22 * len(cells))
        figure.set_layout_engine("none")  # the table is laid out by hand
        axes = figure.add_axes((0.02, 0.0, 0.96, 0.94))
        axes.set_axis_off()
        axes.set_title("One task of the test split: some of its query sentences")
        table = axes.table(cells, colWidths=[0.15, 0.85], cellLoc="left", edges="open", loc="upper center")
        table.auto_set_font_size(False)
        table.set_fontsize(9)
        for (row, column), cell in table.get_celld().items():
            wrong = row % len(lines) >= 2 and cells[row][1] != cells[row - row % len(lines) + 1][1]
            cell.get_text().set(
                color="crimson" if wrong and column == 1 else "black",
                weight="bold" if row % len(lines) == 1 else "normal",
                family="monospace",
                parse_math=False,
            )

    return draw
