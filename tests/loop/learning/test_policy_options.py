"""The algorithms' defaults are those of the papers and code they are named after; what does not exist is refused."""

from typing import Any

import pytest

from sparring.loop.errors import ConfigError
from sparring.loop.learning.options import Optimization
from sparring.loop.learning.policy_options import ALGORITHMS, PPO, RECIPES, algorithm
from sparring.loop.learning.recipes import ADAM_EPS, STEPS


def test_unpacking_is_the_default_recipe_of_ppo() -> None:
    # Part F of the design's methods: the launch command of "Unpacking DPO and PPO".
    options = algorithm("ppo")
    assert options == PPO() == algorithm("ppo", recipe="unpacking") and isinstance(options, PPO)
    assert (options.clip, options.value_clip, options.value_coef) == (0.2, 0.2, 0.1)
    assert (options.gamma, options.lam, options.whiten, options.missing_eos) == (1.0, 0.95, True, -10.0)
    assert (options.kl_coef, options.kl_estimator, options.kl_in) == (0.05, "k1", "reward")
    assert STEPS[options.recipe] == {"lr": 1e-6, "epochs": 1, "batch_size": 64}


def test_n_plus() -> None:
    options = algorithm("ppo", recipe="n_plus", kl_coef=0.1)
    assert isinstance(options, PPO)
    assert (options.missing_eos, options.kl_coef, options.clip, options.lam) == (-1.0, 0.1, 0.2, 0.95)
    assert STEPS[options.recipe] == {"lr": 3e-6, "epochs": 4, "batch_size": 512}
    assert ADAM_EPS[options.recipe] == 1e-5
    assert algorithm("ppo", recipe="n_plus", missing_eos=None).missing_eos is None


def test_recipes_name_what_the_optimizer_takes() -> None:
    assert set(RECIPES) == set(STEPS) == set(ADAM_EPS)
    assert all(set(steps) <= set(Optimization.model_fields) for steps in STEPS.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rloo", (0.05, "k1", "reward", 0.2, "sequence", "sum", "rloo")),
        ("reinforce", (0.05, "k1", "reward", None, "sequence", "sum", "moving_average")),
        ("grpo", (0.04, "k3", "loss", 0.2, "token", "sequence", "group_norm")),
        ("dr_grpo", (0.0, "k3", "loss", 0.2, "token", "constant", "group_mean")),
        ("ppo", (0.05, "k1", "reward", 0.2, "token", "token", "gae")),
    ],
)
def test_vetted_defaults(name: str, expected: tuple[Any, ...]) -> None:
    o = algorithm(name)
    assert (o.kl_coef, o.kl_estimator, o.kl_in, o.clip, o.level, o.normalisation, o.estimator) == expected
    assert algorithm(name).clip_high is None and o.tis_cap == 2.0


def test_reinforce_has_a_choice_of_baseline() -> None:
    assert algorithm("reinforce", baseline="none").estimator == "none"
    assert algorithm("reinforce", baseline="group_mean").estimator == "group_mean"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pppo", {}, r"no algorithm 'pppo' \(did you mean 'ppo'\?\); choose one of ppo, rloo"),
        ("rloo", {"value_clip": 0.2}, "'rloo' has no option 'value_clip'"),
        ("grpo", {"lam": 0.9}, "'grpo' has no option 'lam'"),
        ("ppo", {"klcoef": 0.1}, r"no option 'klcoef' \(did you mean 'kl_coef'\?\)"),
        ("ppo", {"recipe": "trl"}, "recipe is 'trl'; choose one of unpacking, n_plus"),
        ("ppo", {"kl_estimator": "k4"}, "kl_estimator is 'k4'; it must be one of k1, k2, k3"),
        ("grpo", {"kl_in": "both"}, "kl_in is 'both'; it must be one of reward, loss"),
        ("grpo", {"normalisation": "mean"}, "normalisation is 'mean'"),
        ("rloo", {"level": "word"}, "level is 'word'"),
        ("rloo", {"tis_mode": "clip"}, "tis_mode is 'clip'"),
        ("reinforce", {"baseline": "best"}, "baseline is 'best'; it must be one of moving_average"),
        ("ppo", {"clip": 0.0}, "clip is 0.0; it must be a number above 0 and below 1"),
        ("ppo", {"clip": 1.5}, "clip is 1.5"),
        ("reinforce", {"clip_high": 0.3}, "set clip, the lower bound, as well"),
        ("ppo", {"dual_clip": 1.0}, "dual_clip is 1.0; it must be a number above 1"),
        ("ppo", {"gamma": 1.1}, "gamma is 1.1; it must be a number from 0 to 1"),
        ("ppo", {"lam": -0.1}, "lam is -0.1"),
        ("ppo", {"kl_coef": -1.0}, "kl_coef is -1.0; it must be a number of 0 or more"),
        ("ppo", {"tis_cap": 0.5}, "tis_cap is 0.5; it must be a number of 1 or more"),
        ("ppo", {"value_clip": 0.0}, "value_clip is 0.0"),
        ("dr_grpo", {"max_tokens": 0}, "max_tokens is 0"),
        ("ppo", {"missing_eos_penalty": 1.0}, "set one of them"),
        ("ppo", {"level": "sequence"}, "level 'token'"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        algorithm(name, **options)


def test_every_option_reaches_every_algorithm() -> None:
    for name in ALGORITHMS:
        given = {"kl_coef": 0.7, "missing_eos": -3.0, "tis_cap": None, "whiten": True, "clip": 0.1, "clip_high": 0.28}
        options = algorithm(name, **given)
        assert {key: getattr(options, key) for key in given} == given
        assert (options.clipping.low, options.clipping.high) == (0.1, 0.28)
