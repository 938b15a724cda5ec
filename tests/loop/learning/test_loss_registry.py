"""Choosing losses, modifiers and regularisers by name: what is taken, what is refused and how."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints

import numpy as np
import pytest

from sparring.loop.errors import ConfigError
from sparring.loop.learning.losses import (
    ANY_LOSS,
    GROUP_LOSSES,
    LOSSES,
    MODIFIERS,
    REGULARISERS,
    bind,
    bind_group,
    bind_modifiers,
    bind_regularisers,
    loss_parts,
)
from sparring.loop.ranges import check_values
from tests.helpers.logps import BASELINES, BATCH_DEPENDENT, OF_DIFFERENCE, REFERENCE_FREE, columns, logps
from tests.helpers.logps import GROUP_LOSSES as GROUP

REGISTRIES: list[dict[str, Callable[..., Any]]] = [LOSSES, GROUP_LOSSES, MODIFIERS, REGULARISERS]
EVERYTHING = [(name, function) for registry in REGISTRIES for name, function in registry.items()]


def refusal(bound: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        bound()
    return str(refused.value)


@pytest.mark.parametrize(("name", "function"), EVERYTHING)
def test_every_option_says_what_it_may_be(name: str, function: Callable[..., Any]) -> None:
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    options = list(signature.parameters.values())[1:]
    assert function.__name__ == name
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    check_values("loss", name, function, {o.name: o.default for o in options if o.default is not o.empty})
    for option in options:
        assert hints[option.name] not in (float, int, str), f"{option.name} takes anything"
        message = refusal(partial(check_values, "loss", name, function, {option.name: "no such thing"}))
        assert message.startswith(f"loss {name!r}: {option.name} is 'no such thing'; it must be ")
    assert "kind" not in hints and ("weight" not in hints or name in REGULARISERS)  # they are the list's own


@pytest.mark.parametrize(("name", "function"), EVERYTHING)
def test_every_docstring_names_its_paper(name: str, function: Callable[..., Any]) -> None:
    assert name in ("cdpo", "margin", "sft") or "arXiv:" in (function.__doc__ or "")


def test_what_decorators_say_is_what_the_papers_say() -> None:
    assert len({name for name, _ in EVERYTHING}) == len(EVERYTHING)
    traits = {name: part.traits for name, part in ANY_LOSS.items()}
    assert {name for name, each in traits.items() if each.of == "groups"} == GROUP == GROUP_LOSSES.keys()
    assert {name for name, each in traits.items() if each.reference_free} == REFERENCE_FREE
    assert {name for name, each in traits.items() if each.batch_dependent} == BATCH_DEPENDENT
    assert {name for name, each in traits.items() if each.of_difference} == OF_DIFFERENCE
    assert {name: each.baseline for name, each in traits.items() if each.baseline != "none"} == BASELINES


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sigmoid", {"gamma": 1.0}, "loss 'sigmoid' has no option 'gamma'; it takes beta, label_smoothing"),
        ("hinge", {"bet": 1}, "loss 'hinge' has no option 'bet' (did you mean 'beta'?); it takes beta"),
        ("ipo", {"logps": 1}, "loss 'ipo' has no option 'logps'; it takes beta, length_norm"),
        (
            "dpo",
            {},
            "there is no loss 'dpo' (it is called 'sigmoid'); choose one of sigmoid, cdpo, ",
        ),
        ("rpo_nv_group", {}, "there is no loss 'rpo_nv_group'"),
        ("sigmoid", {"weight": 1}, "loss 'sigmoid' has no option 'weight'"),
        ("sppo", {"beta": 0.1}, "loss 'sppo' has no option 'beta' (did you mean 'eta'?); it takes eta"),
        ("sigmoid", {"beta": 0}, "loss 'sigmoid': beta is 0; it must be a number above 0"),
        ("sigmoid", {"beta": -0.1}, "loss 'sigmoid': beta is -0.1; it must be a number above 0"),
        ("sigmoid", {"beta": float("nan")}, "loss 'sigmoid': beta is nan; it must be a number above 0"),
        ("sigmoid", {"beta": float("inf")}, "loss 'sigmoid': beta is inf; it must be a number above 0"),
        ("sigmoid", {"beta": True}, "loss 'sigmoid': beta is True; it must be a number above 0"),
        ("sigmoid", {"beta": None}, "loss 'sigmoid': beta is None; it must be a number above 0"),
        ("sigmoid", {"label_smoothing": 0.5}, "label_smoothing is 0.5; it must be a number of 0 or more and below 0.5"),
        ("sigmoid", {"label_smoothing": -0.1}, "label_smoothing is -0.1; it must be a number of 0 or more and below"),
        ("robust", {"label_smoothing": 0.5}, "label_smoothing is 0.5; it must be a number above 0 and below 0.5"),
        ("exo", {"label_smoothing": 0.0}, "label_smoothing is 0.0; it must be a number above 0 and below 0.5"),
        ("cdpo", {"label_smoothing": 0}, "label_smoothing is 0; it must be a number above 0 and below 0.5"),
        ("kto", {"undesirable_weight": -1}, "undesirable_weight is -1; it must be a number of 0 or more"),
        ("cpo", {"alpha": -1}, "loss 'cpo': alpha is -1; it must be a number of 0 or more"),
        ("discopop", {"tau": 2}, "loss 'discopop': tau is 2; it must be a number above 0 and at most 1"),
        ("rpo_nv", {"distance": "kl"}, "loss 'rpo_nv': distance is 'kl'; it must be one of sq, bwd, fwd"),
        ("ipo", {"length_norm": 1}, "loss 'ipo': length_norm is 1; it must be true or false"),
    ],
)
def test_wrong_losses_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    assert message in refusal(lambda: bind(name, **options))


def test_edges_that_are_allowed() -> None:
    bind("sigmoid", beta=1, label_smoothing=0)  # whole numbers, as Prefect sends them
    bind("robust", label_smoothing=0.499)
    bind("discopop", tau=1)
    bind("cpo", alpha=0)


def test_wrong_group_losses_modifiers_and_regularisers_are_refused() -> None:
    assert refusal(lambda: bind_group("sigmoid")).startswith("there is no group loss 'sigmoid'; choose one of ")
    assert "group loss 'sft': reduce is 'max'; it must be one of mean, sum" in refusal(
        lambda: bind_group("sft", reduce="max")
    )
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: bind_modifiers([{"kind": "margins"}], "ipo"), "no modifier 'margins' (did you mean 'margin'?)"),
        (lambda: bind_modifiers([{"kind": "margin", "by": 1}], "ipo"), "modifier 'margin' has no option 'by'"),
        (lambda: bind_modifiers([{"kind": "clip"}], "ipo"), "modifier 'clip' needs the option 'beta'"),
        (lambda: bind_modifiers([{"kind": "length", "alpha": -1}], "ipo"), "modifier 'length': alpha is -1"),
        (
            lambda: bind_modifiers([{"kind": "f_divergence", "divergence": "kl"}], "ipo"),
            "divergence is 'kl'; it must be one of reverse_kl, forward_kl, js, alpha",
        ),
        (
            lambda: bind_modifiers([{"kind": "f_divergence", "divergence": "alpha", "alpha": 1}], "ipo"),
            "alpha is 1; it must be a number above 0 and below 1",
        ),
        (
            lambda: bind_modifiers([{"scale": 1}], "ipo"),
            "a modifier is {'scale': 1}; expected a mapping with its kind",
        ),
        (lambda: bind_regularisers([{"kind": "nll"}]), "no regulariser 'nll'"),
        (lambda: bind_regularisers([{"kind": "optimism"}]), "regulariser 'optimism' needs the option 'weight'"),
        (lambda: bind_regularisers([{"kind": "optimism", "weight": -1}]), "weight is -1; it must be a number of 0"),
        (lambda: bind_regularisers(["nll_chosen"]), "a regulariser is 'nll_chosen'"),  # type: ignore[list-item]
    ]
    for bound, message in wrong:
        assert message in refusal(bound)


def test_a_list_of_losses_is_their_weighted_sum() -> None:
    found = logps(columns())
    mixed: list[dict[str, Any]] = [
        {"kind": "sigmoid", "weight": 0.8, "beta": 0.3},
        {"kind": "bco", "weight": 2},
        {"kind": "ipo"},
    ]
    parts = 0.8 * bind("sigmoid", beta=0.3)(found) + 2 * bind("bco")(found) + bind("ipo")(found)
    np.testing.assert_allclose(bind(mixed)(found).numpy(), parts.numpy(), 1e-12)
    assert mixed[0] == {"kind": "sigmoid", "weight": 0.8, "beta": 0.3}  # a config is read, not used up
    assert [part.name for part in loss_parts(mixed)] == ["sigmoid", "bco", "ipo"]
    assert [part.name for part in loss_parts("kto")] == ["kto"]


@pytest.mark.parametrize(
    ("losses", "options", "message"),
    [
        ([], {}, "the list of losses is empty"),
        ([{"kind": "sigmoid", "weight": -1}], {}, "loss 'sigmoid': weight is -1; it must be a number of 0 or more"),
        ([{"kind": "sigmoid", "gamma": 1}], {}, "loss 'sigmoid' has no option 'gamma'"),
        ([{"kind": "sigmoyd"}], {}, "there is no loss 'sigmoyd' (did you mean 'sigmoid'?)"),
        ([{"weight": 1}], {}, "a loss is {'weight': 1}; expected a mapping with its kind"),
        ([{"kind": "ipo"}], {"beta": 1}, "option 'beta' stands beside a list of losses; set it at the loss"),
        ([{"kind": "kto"}, {"kind": "bco"}], {}, "losses kto and bco need different baselines; drop one of them"),
    ],
)
def test_wrong_lists_are_refused(losses: Any, options: dict[str, Any], message: str) -> None:
    assert message in refusal(lambda: bind(losses, **options))
