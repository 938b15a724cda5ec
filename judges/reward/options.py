"""The options of reward model training. Every field shapes the weights, except for the last two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sparring.loop.errors import ConfigError
from sparring.loop.ranges import BelowOne, Count, NotNegative, NotNegativeOrInf, Positive, PositiveOrInf, check_fields

Freeze = Literal["none", "backbone", "lora"]
LR: Mapping[str, float] = {"none": 1e-5, "backbone": 3e-3, "lora": 5e-5}  # 2310.02743; ours; 2401.16635 section 4


@dataclass(frozen=True)
class RewardTraining:
    """Raises ConfigError for values out of range, and for options that have no effect together."""

    head: str = "linear"  # see judges.reward.heads
    head_options: Mapping[str, Any] = field(default_factory=dict)
    pooling: Literal["last", "mean", "answer_mean"] | None = None  # None: "last" if causal, "mean" for an encoder
    layer: int = -1  # number of blocks before the features; -1: all
    max_length: int | None = None  # tokens of conversation and answer; longer pairs are dropped and counted
    members: Count = 1  # of the ensemble; above 1 the head must have one column per member (2401.16635 section 3.1)

    freeze: Freeze = "none"  # "backbone": the head learns from cached features; "lora": adapters learn
    adapter_options: Mapping[str, Any] = field(default_factory=dict)  # rank, alpha, dropout, targets
    first_share: BelowOne = 0.5  # lora: share of the prompts for its first stage, which trains all (2401.16635 Alg. 1)
    first_lr: Positive = 1e-5  # lora: learning rate of that stage

    lr: Positive | None = None  # None: 1e-5, for a frozen backbone 3e-3, for LoRA 5e-5
    epochs: Count = 1  # a second epoch overfits at 1B parameters and more (2307.09288)
    batch_size: Count = 32  # pairs per optimizer step (2310.02743)
    warmup: BelowOne = 0.03  # share of the steps (2406.09279)
    schedule: str = "linear"  # any name that transformers.get_scheduler knows (2406.09279)
    weight_decay: NotNegative = 0.0
    max_grad_norm: PositiveOrInf = 1.0
    dropout: BelowOne = 0.0  # of the backbone in training; 0.05 with a contrastive term (2401.06080)

    margin: bool = False  # subtract the pair's margin from the difference (2307.09288 Eq. 2)
    label_smoothing: BelowOne = 0.0  # (2401.06080 section 2.3)
    centering: NotNegative = 0.0  # coefficient of (r_w + r_l)^2; 0.01 (2312.09244)
    direct_reward: NotNegative = 0.0  # coefficient of -log s(r_w) - log s(-r_l) (Eurus, 2404.02078)
    sft: BelowOne = 0.0  # share of the LM term on chosen answers in the loss; 0.01 (GRM, 2406.10216)
    sft_beta: Positive = 0.1  # scale of the answer's log-prob in that term (2406.10216)
    contrastive: NotNegative = 0.0  # coefficient of SimCSE's term; 1 (2401.06080 section 2.4)
    contrast: Literal["features", "differences"] = "differences"  # of a pair's answers, or between them (2401.06080)
    temperature: Positive = 0.05  # of the cosines in that term (2104.08821)
    meta: NotNegative = 0.0  # step along the gradient of the difference loss on unlabelled answers (MetaRM, 2401.06080)

    seed: int = 0
    dtype: str | None = None  # of the backbone's matrix products; None: the fastest of the hardware
    token_budget: int | None = None  # padded tokens per micro-batch; None: chosen to fit the hardware
    save_seconds: NotNegativeOrInf = 120.0  # seconds between saves of the training's state

    def __post_init__(self) -> None:
        check_fields(self)
        if self.freeze == "lora" and self.members < 2:
            raise ConfigError(f"freeze: lora trains an ensemble, but members is {self.members}; set it to 2 or more")
        for name in ("sft", "contrastive", "dropout"):
            if self.freeze == "backbone" and getattr(self, name):
                raise ConfigError(
                    f"{name} acts on the backbone, which freeze: backbone does not train; remove one of them"
                )
        if self.contrastive and not self.dropout:
            raise ConfigError(
                "contrastive compares two dropout views, which are equal without dropout; set dropout: 0.05"
            )

    @property
    def learning_rate(self) -> float:
        return LR[self.freeze] if self.lr is None else self.lr
