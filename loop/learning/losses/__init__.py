"""Preference losses: pure functions of log-probabilities. No model, no config, no self.

    modifiers: Logps -> Logps      what changes the scores or the weights that a loss sees
    LOSSES: Logps -> (B,)          a value each pair
    GROUP_LOSSES: Groups -> (G,)   a value each prompt's group of answers
    REGULARISERS: Logps -> (B,)    what is added beside a loss

All are chosen by name and take their options by keyword. To add one, write the function and name it in `registry`.
"""

from sparring.loop.learning.losses.logps import Groups, Logps
from sparring.loop.learning.losses.metrics import mean_loss, metrics
from sparring.loop.learning.losses.registry import (
    BATCH_DEPENDENT,
    GROUP_LOSSES,
    LOSSES,
    MEANINGLESS,
    MODIFIERS,
    NEEDS_ASIDE,
    NEEDS_BASELINE,
    NEEDS_SAMPLE,
    OF_DIFFERENCE,
    REFERENCE_FREE,
    REGULARISERS,
    GroupLoss,
    Loss,
    Modifier,
    bind,
    bind_group,
    bind_modifiers,
    bind_regularisers,
    loss_names,
)

__all__ = [
    "BATCH_DEPENDENT",
    "GROUP_LOSSES",
    "LOSSES",
    "MEANINGLESS",
    "MODIFIERS",
    "NEEDS_ASIDE",
    "NEEDS_BASELINE",
    "NEEDS_SAMPLE",
    "OF_DIFFERENCE",
    "REFERENCE_FREE",
    "REGULARISERS",
    "GroupLoss",
    "Groups",
    "Logps",
    "Loss",
    "Modifier",
    "bind",
    "bind_group",
    "bind_modifiers",
    "bind_regularisers",
    "loss_names",
    "mean_loss",
    "metrics",
]
