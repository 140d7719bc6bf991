"""Sentences as padded rows of tokens: packing them, translating them token by token, and scoring translations.

A sentence of n tokens is n tokens, END and padding. A learner sees a source sentence and the target up to a position
(the prefix), and predicts the next token of the target, at every position at once. Padding counts nowhere.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metarun import base, errors
from metarun.base import BEGIN, END, PAD
from metarun.plain_text import escape
from metarun.tasks import _drawing, _sentence_parts

SPECIAL = 3  # tokens that are no part of a text
SHOWN = 6  # sentences in a picture
TITLE_HEIGHT = 0.8  # inches of a picture above its sentences, for three lines
NAMED = 60  # letters of a sentence that a message shows

Tokens = Int[Array, "example token"]


def pair_up(source: Tokens, target: Tokens) -> base.Examples:
    """Return pairs of sentences as examples. The prefix of a target is BEGIN and the target without its last token."""
    begin = jnp.full((target.shape[0], 1), BEGIN, target.dtype)
    prefix = jnp.concatenate([begin, target[:, :-1]], axis=1)
    return base.Examples({"source": source, "prefix": jnp.where(prefix == END, PAD, prefix)}, target)


def pack(sentences: list[list[int]], length: int) -> Int[np.ndarray, "example {length}"]:
    """Return rows of tokens, each closed by END and filled with PAD. A sentence has at most `length` − 1 tokens."""
    rows = np.full((len(sentences), length), PAD, np.int32)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence) + 1] = [*sentence, END]
    return rows


def unpack(row: Int[np.ndarray, "token"]) -> list[int]:
    """Return the tokens of a row, up to END."""
    tokens = row.tolist()
    end = tokens.index(END) if END in tokens else len(tokens)
    return [token for token in tokens[:end] if token >= SPECIAL]


def cross_entropy(
    logits: Float[Array, "example token vocabulary"], targets: Tokens, smoothing: float = 0.0
) -> Float[Array, ""]:
    """Return the mean negative log-likelihood of the tokens that are no padding, in nats. All tokens count the same.

    Args:
      smoothing: share of the probability that is spread evenly over all tokens; the rest is for the target (Szegedy et
        al. 2016, arXiv 1512.00567, section 7).
    """
    counted = targets != PAD
    # A comparison, not a gather: its derivative is a part of the softmax's, where a gather's is a scatter.
    is_target = targets[..., None] == jnp.arange(logits.shape[-1])[None, None]
    chosen = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    if smoothing:
        chosen = (1 - smoothing) * chosen + smoothing * jnp.mean(logits, axis=-1)
    lost = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(jnp.where(counted, lost, 0.0)) / jnp.sum(counted)


def token_accuracy(logits: Float[Array, "example token vocabulary"], targets: Tokens) -> Float[Array, ""]:
    """Return the share of the tokens, without padding, whose logit is the largest after the true prefix."""
    counted = targets != PAD
    right: Bool[Array, "example token"] = (jnp.argmax(logits, axis=-1) == targets) & counted
    return jnp.sum(right) / jnp.sum(counted)


def translate(predict: Callable, inputs: Mapping[str, Array]) -> Tokens:
    """Translate by greedy decoding in a compiled loop: the likeliest token at every position, up to END.

    Only `source` and the length of `prefix` are read. PAD and BEGIN are never chosen. A predictor that answers with
    whole sentences, see `base.Model`, is asked for them; another one is asked for each token anew.
    """
    whole = ask_whole(predict, {"source": inputs["source"], base.GREEDY: jnp.zeros_like(inputs["prefix"])})
    if whole is not None:
        return whole
    step, start = make_decoding_step(predict, inputs)
    _, columns = jax.lax.scan(step, start, jnp.arange(inputs["prefix"].shape[1]))
    return columns.T


def ask_whole(predict: Callable, inputs: Mapping[str, Array]) -> Tokens | None:
    """Return the whole sentences of a predictor that hands on those of its model; None: it is another one.

    Averages and other changes of the outputs leave no whole numbers of this shape, so they are never mistaken.
    """
    try:
        answer = predict(inputs)
    except (LookupError, TypeError, ValueError, AttributeError):  # it needs a prefix, or logits
        return None
    expected = inputs[base.GREEDY]
    is_whole = isinstance(answer, jax.Array) and (answer.shape, answer.dtype) == (
        expected.shape,
        expected.dtype,
    )
    return answer if is_whole else None


def translate_on_host(predict: Callable, inputs: Mapping[str, Array]) -> Tokens:
    """Translate as `translate` does, with a predictor that no compiled loop can call."""
    step, state = make_decoding_step(predict, inputs)
    columns = []
    for position in range(inputs["prefix"].shape[1]):
        state, tokens = step(state, jnp.array(position))
        columns.append(tokens)
    return jnp.stack(columns, axis=1)


def make_decoding_step(predict: Callable, inputs: Mapping[str, Array]) -> tuple[Callable, tuple]:
    """Make the step (state, position) -> (state, tokens [example]), and its first state, (prefix, ended [example])."""
    source, (count, length) = inputs["source"], inputs["prefix"].shape

    def step(state, position):
        prefix, ended = state
        logits = jnp.asarray(predict({"source": source, "prefix": prefix}))
        here = jax.lax.dynamic_index_in_dim(logits, position, axis=1, keepdims=False)
        tokens = (jnp.argmax(here[:, END:], axis=-1) + END).astype(prefix.dtype)
        tokens = jnp.where(ended, PAD, tokens)
        ended |= tokens == END
        column = jnp.where(ended, PAD, tokens)
        longer = jax.lax.dynamic_update_index_in_dim(prefix, column, position + 1, axis=1)
        prefix = jnp.where(position + 1 < length, longer, prefix)  # no token follows the last one
        return (prefix, ended), tokens

    prefix = jnp.full((count, length), PAD, inputs["prefix"].dtype).at[:, 0].set(BEGIN)
    return step, (prefix, jnp.zeros((count,), bool))


HIGHER_IS_BETTER = ("token_accuracy", "exact_match", "bleu", "chrf")


def make_scores(tokenizer: str) -> tuple[Any, Any]:
    """Return sacrebleu's BLEU and chrF.

    Raises:
      ConfigError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ImportError as error:
        what = "translations are scored by sacrebleu, which is not installed"
        raise errors.ConfigError(what, "task", "pip install 'metarun[text]'") from error
    return sacrebleu.BLEU(tokenize=tokenizer, force=True), sacrebleu.CHRF()


def make_text_score(tokenizer: str) -> Callable[[list[str], list[str]], dict[str, float]]:
    """Make (translations, references) -> the metrics of a corpus; see `make_objective`."""
    bleu, chrf = make_scores(tokenizer)

    def score(translations: list[str], references: list[str]) -> dict[str, float]:
        pairs = zip(translations, references, strict=True)
        return {
            "exact_match": float(np.mean([translation == reference for translation, reference in pairs])),
            "bleu": float(bleu.corpus_score(translations, [references]).score),
            "chrf": float(chrf.corpus_score(translations, [references]).score),
        }

    return score


def make_objective(
    spell: Callable[[Any], list[str]], tokenizer: str, smoothing: float = 0.0
) -> base.Objective:
    """Make the objective: cross-entropy of the next token; greedy translations with the highest BLEU are the best.

    The queries of an episode are one corpus. BLEU and chrF are sacrebleu's, between 0 and 100: BLEU of up to four
    words (with Chen and Cherry's exponential smoothing if no n-gram of a length is right), chrF2 of up to six letters.

    Args:
      spell: tokens [example, token] -> sentences.
      tokenizer: the tokenizer of sacrebleu's BLEU: "none" for words between spaces, "13a" for text with punctuation.
      smoothing: of the loss that is trained; see `cross_entropy`. The metric `loss` is without it.
    """
    score_texts = make_text_score(tokenizer)

    def loss(logits, targets):
        return cross_entropy(logits, targets, smoothing)

    def measure(logits, targets):
        return {"loss": cross_entropy(logits, targets), "token_accuracy": token_accuracy(logits, targets)}

    def metrics(predict, query: base.Examples):
        forced = measure(predict(query.inputs), query.targets)  # given the true prefixes
        return forced | {"translation": translate(predict, query.inputs), "target": query.targets}

    def score(values: Mapping[str, Any]) -> dict[str, float]:
        forced = {name: float(values[name]) for name in ("loss", "token_accuracy")}
        return forced | score_texts(spell(values["translation"]), spell(values["target"]))

    return base.Objective(loss, measure, metrics, "bleu", HIGHER_IS_BETTER, score)


def make_form(
    spell: Callable[[Any], list[str]], read: Callable[[str], list[int]], length: int
) -> base.Sentences:
    """Make the form of inputs that are text. It raises ValueError(what, remedy) about sentences that do not fit.

    Args:
      read: text -> tokens; may raise ValueError.
      length: tokens in every row, END included.
    """

    def to_rows(texts: list[str]) -> Int[np.ndarray, "example token"]:
        sentences = [read(text) for text in texts]
        for text, sentence in zip(texts, sentences, strict=True):
            if len(sentence) >= length:
                raise ValueError(
                    f"the sentence {text[:NAMED]!r} has {len(sentence)} tokens, and {length - 1} are allowed",
                    "shorten it, leave it out, or train with a larger task.longest",
                )
        return pack(sentences, length)

    def encode(sources: list[str], targets: list[str]) -> base.Examples:
        examples = pair_up(jnp.asarray(to_rows(sources)), jnp.asarray(to_rows(targets)))
        return jax.tree.map(np.asarray, examples)

    def divide(text: str) -> list[str]:
        return _sentence_parts.divide(text, lambda part: len(read(part)) < length)

    return base.Sentences(encode, translate, spell, divide)


def make_draw(spell: Callable[[Any], list[str]]) -> Callable:
    """Make the picture of an episode: a table of source, reference, and translations after different inner steps."""

    def draw(figure, episode: base.Episode, predictors) -> None:
        query = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:SHOWN], episode.query)
        lines = {"source": spell(query.inputs["source"]), "reference": spell(query.targets)}
        for steps, predict in predictors.items():
            lines[_drawing.name_learner(steps)] = spell(translate_on_host(predict, query.inputs))
        cells = [
            [name, escape(sentences[row])]
            for row in range(len(query.targets))
            for name, sentences in lines.items()
        ]
        longest = max(len(text) for _, text in cells)
        height = TITLE_HEIGHT + 0.22 * len(cells)
        figure.set_size_inches(1.6 + 0.085 * longest, height)
        figure.set_layout_engine("none")  # the table is laid out by hand
        figure.suptitle("One task of the test split: some of its query sentences", fontsize="medium")
        axes = figure.add_axes((0.02, 0.0, 0.96, 1 - TITLE_HEIGHT / height))
        axes.set_axis_off()
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
