"""Extraction: a base model is trained on all tasks pooled; then how it adapts is meta-learned on top of it.

From the body φ and the last layer W of the stage `pretrained`, one of two learners:

    learner: gradient    `inner_steps` steps on the support, θ ← θ − α_l ∇L_S(θ), from θ = (φ, W). Meta-training lowers
                         the query loss after them, and changes what is `free`: the body, the head, and one step size
                         α_l for each array. It is MAML (Finn et al. 2017, arXiv 1703.03400) from a pooled start, with
                         the step sizes of Meta-SGD (Li et al. 2017, 1707.09835) by array.
    learner: memory      φ and W stay. The support becomes a key-value memory (`key_value_memory.py`), which says how
                         the base model is wrong nearby, with a learned gate λ (Khandelwal et al. 2019, 1911.00172):

                             regression        f(x) = W·φ(x) + λ Σ_i a_i(x) (y_i − W·φ(x_i))
                             classification    p(x) = (1 − λ)/ways + λ Σ_i a_i(x) onehot(y_i)

                         In a classification the base model knows nothing of new classes: its share is uniform.

In a classification the last layer begins anew: drawn at random if the head is free, at zero if not. Copies of such a
stage begin with different last layers. With `head: start` it is that of the stage `pretrained`, which must tell as many
classes apart as an episode has, as after MAML: then all copies begin at one point, as the members of a soup must. With
no inner steps, or reads of the memory, the learner is the base model: that is "before adaptation" in every table.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from metarun import base
from metarun.algorithms.extraction import gradient_learner, memory_learner
from metarun.blocks import earlier_stages, target_kinds
from metarun.options import InnerLoop
from metarun.ranges import Above, AtLeast

EXAMPLE = base.Example(earlier=("pretrain",))


@dataclass(frozen=True)
class Config(InnerLoop):
    """The base model, and how it learns to adapt. A memory uses no inner option but `inner_steps`."""

    pretrained: str = "pretrain"  # name of the earlier stage whose network is the base model
    learner: Literal["gradient", "memory"] = "gradient"  # steps of descent, or a memory of the support
    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support, or reads of the memory
    # gradient: first value of every α_l, for a mean over the support.
    inner_lr: Annotated[float, Above(0)] = 0.1
    # gradient: what meta-training changes
    free: tuple[Literal["body", "head", "rates"], ...] = ("body", "head", "rates")
    adapts: Literal["head", "all"] = "all"  # gradient: what the inner steps change
    # gradient, classification: the first last layer, a new one or that of the stage `pretrained`.
    head: Literal["new", "start"] = "new"
    width: Annotated[int, AtLeast(1)] = 64  # memory: features of a key

    def __post_init__(self):
        if not self.free:
            raise ValueError("free is empty, and nothing would be learned", "give body, head or rates")
        if len(set(self.free)) < len(self.free):
            raise ValueError("free names one thing twice")
        if self.head == "start" and self.learner == "memory":
            raise ValueError(
                "a memory has no last layer to start with", "set head: new, or learner: gradient"
            )


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions on the earlier stage `pretrained`.

    Returns:
      An algorithm whose init raises ConfigError if that stage has another model, or no last layer in a regression or
      with `head: start`.

    Raises:
      ValueError: there is no such stage, or the targets are sentences.
    """
    earlier_stages.find("pretrained", config.pretrained, earlier)
    target_kinds.refuse_tokens(problem)
    if config.learner == "gradient":
        return gradient_learner.build(config, model, problem)
    return memory_learner.build(config, model, problem)
