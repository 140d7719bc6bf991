"""A task as a vector: `support → e` in R^d, from gradients, adapted weights, probes, encoders or pooled features.

With θ the network of the earlier stage `pretrained`, L_S the support loss and φ the network's body, `source` is

    gradient        ∇L_S(θ)
    fisher          diag F at θ_K, the network after a few steps on the support (Task2Vec: Achille et al. 2019,
                    arXiv 1902.03545); F is the Fisher information of the support's inputs
    adapted         θ_K − θ
    prototype       the mean of φ(x) over the support; for numbers y the means of φ(x), y and φ(x)·y
    collaborative   u in s_p ≈ b_p + σ u·v_p, where s_p is the log support loss of probe p, the network adapted to the
                    p-th of some training tasks; v is fitted to a matrix with gaps (Hu, Koren, Volinsky 2008)
    variational     the mean of q(e | S) = N(µ(S), σ(S)²), an encoder of the set (in the manner of Edwards and Storkey
                    2016, 1606.02185, and Garnelo et al. 2018, 1807.01622), trained by the bound
                    −log p(y | x, e) + β KL(q ‖ N(0, 1)) / |S ∪ Q|, a mean over S ∪ Q
    adversarial     the same encoder without deviations; a discriminator between its vectors and draws of N(0, 1) takes
                    the place of the divergence (Makhzani et al. 2015, 1511.05644)

The first five train nothing. Their `scaling` and PCA, the factorisation and k-means are fitted once, to the training
tasks of the first step: give such a stage `training: {steps: 1, tasks_per_step: 512, task_chunk: 32}`. With
`statistics: true` it keeps the mean and the deviation of the vectors of these tasks, by which `conditioned`
standardises the vectors of all others. It answers queries as the earlier stage does. The encoders train from scratch,
need no earlier stage, and answer by their decoder.

In a classification, gradients are of cosines with the class means (`head: means`), because the last layer's depend on
which class has which label; Task2Vec fits a last layer to the task for the same reason.

Deviations: Task2Vec estimates F by a variational bound or by samples, averages it over each filter and fits the last
layer alone; here the diagonal is exact, whole, and follows steps of all parameters. The probes of a new task are always
the first `observed`. The variational squared error is a Gaussian likelihood of variance ½; β stands for other ones.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from metarun import base
from metarun.algorithms.task_embedding import encoder_source, fitted_source
from metarun.blocks import earlier_stages, target_kinds
from metarun.ranges import Above, AtLeast, AtMost

EXAMPLE = base.Example(earlier=("maml",))
ENCODERS = ("variational", "adversarial")
Source = Literal["gradient", "fisher", "adapted", "prototype", "collaborative", "variational", "adversarial"]


@dataclass(frozen=True)
class Config:
    """Where the vector comes from, and what is made of it."""

    source: Source = "gradient"  # where the vector comes from; see the equations above
    pretrained: str = "maml"  # name of the earlier stage with the network; not for the encoders
    # The parameters whose gradients, changes or information the vector holds; head: those of the last layer.
    parameters: Literal["all", "head", "body"] = "all"
    # What gives the outputs of L_S: the last layer, or class means; null: class means in a classification.
    head: Literal["own", "means"] | None = None
    adapted_steps: Annotated[int, AtLeast(1)] = 5  # K, gradient steps of adapted, fisher and the probes
    adapted_lr: Annotated[float, Above(0)] = 0.01  # step size of these steps
    # What happens to a long vector before PCA; unit: it gets length 1; logarithm: sign(v)·log(1 + |v|/mean |v|).
    scaling: Literal["none", "unit", "logarithm"] = "unit"
    # What makes long vectors short: those of gradient, fisher, adapted and prototype.
    reduction: Literal["pca", "none"] = "pca"
    # Length of the vector, except with reduction: none.
    dimensions: Annotated[int, AtLeast(1), AtMost(4096)] = 16
    # Share of the variance that PCA keeps; null: all of it. The components beyond it are zero, because a compiled
    # program must know the length.
    variance: Annotated[float, Above(0), AtMost(1)] | None = None
    whiten: bool = False  # scale each principal component to a variance of 1
    clusters: Annotated[int, AtLeast(2)] | None = None  # clusters that k-means makes; null: none
    # How much a task belongs to each cluster; soft: probabilities; hard: 1 for the nearest one, 0 for the others.
    membership: Literal["soft", "hard"] = "soft"
    # Keep mean and deviation of the vectors over the training tasks of the fit. A later stage standardises by them;
    # without them by those of its own first tasks, which are fewer.
    statistics: bool = False
    probes: Annotated[int, AtLeast(2)] = 64  # training tasks whose adapted networks score other tasks
    # Probes that score a task: random ones in the fit, the first ones afterwards.
    observed: Annotated[int, AtLeast(1)] = 32
    ridge: Annotated[float, Above(0)] = 1.0  # λ of the factorisation, for scores of variance 1
    width: Annotated[int, AtLeast(1)] = 128  # units of the layers of encoder and decoder
    depth: Annotated[int, AtLeast(1), AtMost(100)] = 3  # layers of the encoder, and of the decoder
    divergence_weight: Annotated[float, AtLeast(0)] = 1.0  # β, the weight of the variational divergence
    # Weight of the encoder's loss against the discriminator.
    adversarial_weight: Annotated[float, AtLeast(0)] = 0.1

    def __post_init__(self):
        if self.source in ENCODERS and self.clusters is not None:
            raise ValueError(
                f"clusters are fitted before the {self.source} encoder is trained", "set clusters: null"
            )
        if self.source in ENCODERS and self.statistics:
            raise ValueError(
                f"statistics are kept before the {self.source} encoder is trained", "set statistics: false"
            )
        if self.head == "means" and self.parameters == "head":
            raise ValueError(
                "class means have no parameters of a last layer", "set parameters to body or all"
            )
        if self.observed > self.probes:
            raise ValueError(f"{self.observed} of {self.probes} probes cannot be observed")

    @property
    def trains_nothing(self) -> bool:
        """Whether a stage has nothing to train, and so needs no `training`."""
        return self.source not in ENCODERS


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions; all sources but the encoders stand on the earlier stage `pretrained`.

    Returns:
      An algorithm whose learner has an `embedding`, the vector, float32 [embed]. Its init raises ConfigError if the
      earlier stage has another model, or if there are fewer training tasks than the fit needs.

    Raises:
      ValueError: there is no such stage; or the targets are sentences, or numbers, which have no class means.
    """
    target_kinds.refuse_tokens(problem)
    if config.head == "means" and problem.spec.targets == "numbers":
        raise ValueError("numbers have no class means", "set head: own")
    if config.source in ENCODERS:
        return encoder_source.build(config, model, problem)
    solver = earlier_stages.find("pretrained", config.pretrained, earlier)
    return fitted_source.build(config, model, problem, solver)
