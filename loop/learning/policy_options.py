"""The policy-gradient algorithms as options. An algorithm is defined by its defaults."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sparring.loop.errors import ConfigError
from sparring.loop.learning.advantages import KlEstimator
from sparring.loop.learning.policy_gradient import Clipping, Level, Normalisation, TisMode
from sparring.loop.options import check_options, nearest
from sparring.loop.ranges import AboveOne, Count, Inside, NotNegative, OneOrMore, Positive, Share, check_fields

Estimator = Literal["gae", "rloo", "group_norm", "group_mean", "moving_average", "none"]


@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """The options of every algorithm. Raises ConfigError for wrong options and wrong combinations."""

    kl_coef: NotNegative = 0.05  # of the KL to the reference; 0 needs no reference
    kl_estimator: KlEstimator = "k1"
    kl_in: Literal["reward", "loss"] = "reward"
    clip: Inside | None = 0.2  # lower bound of policy / old, as 1 - clip; None switches clipping off
    clip_high: Positive | None = None  # upper bound, as 1 + clip_high; None means the value of clip
    dual_clip: AboveOne | None = None  # bounds the loss where the advantage is negative
    level: Level = "token"  # ratios of tokens, or of whole answers
    normalisation: Normalisation = "token"
    max_tokens: Count | None = None  # for normalisation "constant": the longest possible answer
    whiten: bool = False  # advantages, over the rollout
    missing_eos: float | None = None  # score of an answer that did not stop by itself
    missing_eos_penalty: float | None = None  # or the amount subtracted from its score
    tis_cap: OneOrMore | None = 2.0  # of old / sampler; None trusts the sampler's log-probs
    tis_mode: TisMode = "token_truncate"

    estimator: ClassVar[Estimator]

    def __post_init__(self) -> None:
        check_fields(self)
        if self.clip is None and self.clip_high is not None:
            raise ConfigError(f"clip_high is {self.clip_high} and clip is none; set clip, the lower bound, as well")
        if self.missing_eos is not None and self.missing_eos_penalty is not None:
            raise ConfigError("missing_eos replaces a score and missing_eos_penalty lowers it; set one of them")
        if self.estimator == "gae" and self.level == "sequence":
            raise ConfigError(
                "level 'sequence' needs one advantage per answer, ppo has one per token; set level 'token'"
            )

    @property
    def clipping(self) -> Clipping:
        return Clipping(self.level, self.clip, self.clip_high, self.dual_clip)


@dataclass(frozen=True, kw_only=True)
class PPO(PolicyGradient):
    """PPO (arXiv:1707.06347) with a critic, after "Unpacking DPO and PPO" (arXiv:2406.09279) and its code.

    The defaults: kl_coef 0.05 on k1 in the reward, clip and value_clip 0.2, value_coef 0.1, gamma 1, lam 0.95, whitened
    advantages, -10 for an answer without its end token. `critic` is the initial value model: "policy", or the folder of
    a reward model, as in that paper.
    """

    recipe: str = "unpacking"
    whiten: bool = True
    missing_eos: float | None = -10.0
    gamma: Share = 1.0
    lam: Share = 0.95
    value_clip: Positive | None = 0.2
    value_coef: NotNegative = 0.1
    critic: str = "policy"

    estimator: ClassVar[Estimator] = "gae"

    def __post_init__(self) -> None:
        super().__post_init__()
        if RECIPES.get(self.recipe) is not type(self):
            raise ConfigError(f"recipe is {self.recipe!r}; choose one of {', '.join(RECIPES)} by `algorithm`")


@dataclass(frozen=True, kw_only=True)
class NPlusPPO(PPO):
    """PPO as in "The N+ Implementation Details of RLHF with PPO" (arXiv:2403.17031).

    The defaults: -1 for an answer without its end token, four epochs over the rollout in one minibatch of 512, lr 3e-6,
    Adam's eps 1e-5.
    """

    recipe: str = "n_plus"
    missing_eos: float | None = -1.0


@dataclass(frozen=True, kw_only=True)
class RLOO(PolicyGradient):
    """REINFORCE Leave-One-Out (arXiv:2402.14740): an answer is one action, and its reward includes the summed KL.

    kl_coef 0.05 and clip 0.2 on the ratio of answers are the defaults of TRL's RLOOConfig.
    """

    level: Level = "sequence"
    normalisation: Normalisation = "sum"
    tis_mode: TisMode = "sequence_truncate"
    estimator: ClassVar[Estimator] = "rloo"


@dataclass(frozen=True, kw_only=True)
class REINFORCE(PolicyGradient):
    """REINFORCE with a baseline, where an answer is one action (arXiv:2402.14740). No clipping.

    The baseline is the moving average of all rewards so far, the group's mean, or none.
    """

    baseline: Literal["moving_average", "group_mean", "none"] = "moving_average"
    clip: Inside | None = None
    level: Level = "sequence"
    normalisation: Normalisation = "sum"
    tis_mode: TisMode = "sequence_truncate"

    @property
    def estimator(self) -> Estimator:  # type: ignore[override]
        return self.baseline


@dataclass(frozen=True, kw_only=True)
class GRPO(PolicyGradient):
    """Group Relative Policy Optimization (arXiv:2402.03300, "DeepSeekMath").

    The defaults: rewards normalised within the group, the mean over an answer's tokens, k3 to the reference in the loss
    with kl_coef 0.04. clip 0.2 is TRL's default.
    """

    kl_coef: NotNegative = 0.04
    kl_estimator: KlEstimator = "k3"
    kl_in: Literal["reward", "loss"] = "loss"
    normalisation: Normalisation = "sequence"
    estimator: ClassVar[Estimator] = "group_norm"


@dataclass(frozen=True, kw_only=True)
class DrGRPO(PolicyGradient):
    """GRPO done right (arXiv:2503.20783): no division by the group's standard deviation or by an answer's length.

    `max_tokens` is the longest possible answer. There is no KL to a reference, as in the paper's runs.
    """

    kl_coef: NotNegative = 0.0
    kl_estimator: KlEstimator = "k3"
    kl_in: Literal["reward", "loss"] = "loss"
    normalisation: Normalisation = "constant"
    estimator: ClassVar[Estimator] = "group_mean"


RECIPES: dict[str, type[PPO]] = {"unpacking": PPO, "n_plus": NPlusPPO}
ALGORITHMS: dict[str, type[PolicyGradient]] = {
    "ppo": PPO,
    "rloo": RLOO,
    "reinforce": REINFORCE,
    "grpo": GRPO,
    "dr_grpo": DrGRPO,
}


def algorithm(name: str, **options: Any) -> PolicyGradient:
    """The algorithm `name` with these options, and defaults for the others.

    Raises ConfigError for a name, an option or a value that does not exist.
    """
    if name not in ALGORITHMS:
        raise ConfigError(
            f"there is no algorithm {name!r}{nearest(name, ALGORITHMS)}; choose one of {', '.join(ALGORITHMS)}"
        )
    check_options("algorithm", name, ALGORITHMS[name], options)
    kind = ALGORITHMS[name]
    if kind is PPO:
        kind = RECIPES.get(options.get("recipe", "unpacking"), PPO)  # PPO raises for a recipe that does not exist
    return kind(**options)
