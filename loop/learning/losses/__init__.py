"""Preference losses: pure functions of log-probabilities. No model, no config, no self.

    modifiers: Logps -> Logps      what changes the scores or the weights that a loss sees
    LOSSES: Logps -> (B,)          a value each pair
    GROUP_LOSSES: Groups -> (G,)   a value each prompt's group of answers
    REGULARISERS: Logps -> (B,)    what is added beside a loss

All are chosen by name and take their options by keyword. To add one, write the function under its decorator (see
`loop.traits`): its name is the function's.
"""

from sparring.loop.learning.losses.logps import Groups, Logps
from sparring.loop.learning.losses.metrics import mean_loss, metrics
from sparring.loop.learning.losses.registry import (
    ANY_LOSS,
    GROUP_LOSSES,
    LOSSES,
    MODIFIER,
    MODIFIERS,
    REGULARISER,
    REGULARISERS,
    GroupLoss,
    Loss,
    Modifier,
    bind,
    bind_group,
    bind_modifiers,
    bind_regularisers,
    loss_parts,
)
