"""The optimizer defaults of the PPO recipes. Imports nothing heavy, because the config reads them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# "Unpacking DPO and PPO", arXiv:2406.09279, and "The N+ Implementation Details of RLHF with PPO", arXiv:2403.17031.
# Both use rollouts of 512 prompts: one epoch in minibatches of 64, or four epochs in one minibatch.
STEPS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "unpacking": {"lr": 1e-6, "epochs": 1, "batch_size": 64},
        "n_plus": {"lr": 3e-6, "epochs": 4, "batch_size": 512},
    }
)
ADAM_EPS: Mapping[str, float] = MappingProxyType({"unpacking": 1e-8, "n_plus": 1e-5})
