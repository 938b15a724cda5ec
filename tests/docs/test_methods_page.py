"""The page on methods uses all that there is by name, says what the code says, and what is refused."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo

from sparring.flows.compose.build import check_labels
from sparring.flows.compose.learner import check_learner
from sparring.flows.compose.sampler import check_sources
from sparring.flows.config import Learn, parse_config
from sparring.loop.errors import ConfigError
from sparring.loop.learning.losses import GROUP_LOSSES, LOSSES, MODIFIERS, REGULARISERS
from sparring.loop.learning.options import Lora, Reference, ReferenceKind
from sparring.loop.learning.policy_options import ALGORITHMS, RECIPES
from sparring.loop.learning.recipes import STEPS
from sparring.loop.pairing import BUILDERS, FILTERS
from sparring.loop.sampling.options import Source
from tests.helpers.methods_page import BASE, CONFIGS, PAGE, Values, default, options, table

# -- the examples use all that there is


def kinds(section: Mapping[str, Any], name: str) -> set[str]:
    return {each["kind"] for each in section.get(name, [])}


def losses(config: Values) -> set[str]:
    loss = config["learn"].get("loss", "sigmoid")
    return {loss} if isinstance(loss, str) else kinds(config["learn"], "loss")


def reference(config: Values) -> set[str]:
    given = config["learn"].get("reference", "previous")
    return {given if isinstance(given, str) else given["kind"]}


USED: dict[str, tuple[set[str], Callable[[Values], set[str]]]] = {
    "losses": ({*LOSSES, *GROUP_LOSSES}, losses),
    "modifiers": ({*MODIFIERS}, lambda config: kinds(config["learn"], "modifiers")),
    "regularisers": ({*REGULARISERS}, lambda config: kinds(config["learn"], "regularisers")),
    "builders": ({*BUILDERS}, lambda config: {config["pair"]["kind"]}),
    "filters": ({*FILTERS}, lambda config: kinds(config["pair"], "filters")),
    "algorithms": ({"preference", *ALGORITHMS}, lambda config: {config["learn"].get("algorithm", "preference")}),
    "references": ({*get_args(ReferenceKind)}, reference),
    "recipes": ({*RECIPES}, lambda config: {config["learn"]["recipe"]} if "recipe" in config["learn"] else set()),
}


@pytest.mark.parametrize("what", USED)
def test_everything_by_name_is_in_an_example(what: str) -> None:
    exist, of = USED[what]
    assert set().union(*(of(config) for config in CONFIGS.values())) == exist


# -- the tables say what the code says


def signature(function: Callable[..., Any], skip: int = 1) -> Values:
    found = list(inspect.signature(function).parameters.items())[skip:]
    return {name: MISSING if p.default is p.empty else p.default for name, p in found}


REGISTRIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "loss": {**LOSSES, **GROUP_LOSSES},
    "modifier": MODIFIERS,
    "regulariser": REGULARISERS,
    "builder": {name: part.make for name, part in BUILDERS.items()},
    "filter": {name: part.make for name, part in FILTERS.items()},
}


def registry_table(header: str) -> dict[str, list[str]]:
    if header != "loss":
        return table(header)
    blocks = re.findall(r"(?m)^\| loss \| options \|.*\n((?:\|.*\n)+)", PAGE)
    assert len(blocks) == 2  # of pairs, of groups
    lines = [line for block in blocks for line in block.splitlines()[1:]]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("header", REGISTRIES)
def test_the_options_of_a_registry_are_those_of_the_table(header: str) -> None:
    said = {name: options(cells[0]) for name, cells in registry_table(header).items()}
    assert said == {name: signature(function) for name, function in REGISTRIES[header].items()}


def test_losses_of_pairs_and_of_groups_stand_in_their_tables() -> None:
    pairs, groups = re.findall(r"(?m)^\| loss \| options \|.*\n((?:\|.*\n)+)", PAGE)
    assert re.findall(r"(?m)^\| `(\w+)`", pairs) and set(re.findall(r"(?m)^\| `(\w+)`", pairs)) == set(LOSSES)
    assert set(re.findall(r"(?m)^\| `(\w+)`", groups)) == set(GROUP_LOSSES)


def test_the_options_of_references_are_those_of_the_table() -> None:
    said = {name: options(cells[0]) for name, cells in table("kind").items()}
    assert set(said) == set(get_args(ReferenceKind))
    exist = {name: field.default for name, field in Reference.model_fields.items() if name != "kind"}
    assert {n: v for each in said.values() for n, v in each.items()} == exist


def test_the_options_of_algorithms_are_those_of_the_table() -> None:
    found = table("option")
    said = {
        name: {option: default(cells[i]) for option, cells in found.items() if cells[i]}
        for i, name in enumerate(ALGORITHMS)
    }
    assert said == {name: signature(options_, 0) for name, options_ in ALGORITHMS.items()}


def test_the_recipes_of_ppo_are_those_of_the_table() -> None:
    said = {
        name: [default(cell) if "e" not in cell else float(cell) for cell in cells]
        for name, cells in table("recipe").items()
    }
    exist = {
        name: [made.missing_eos, STEPS[name]["lr"], STEPS[name]["epochs"], STEPS[name]["batch_size"]]
        for name, made in ((name, recipe()) for name, recipe in RECIPES.items())
    }
    assert said == exist
    differ = {f.name for f in fields(RECIPES["n_plus"]) if f.default != getattr(RECIPES["unpacking"], f.name)}
    assert differ == {"recipe", "missing_eos"}  # a further difference would be a further column


IN_A_SENTENCE: dict[str, Mapping[str, FieldInfo]] = {
    "Each entry takes": Source.model_fields,
    "`learn.lora` has": Lora.model_fields,
    "Two more stand in `learn` itself": {n: Learn.model_fields[n] for n in ("ld_alpha", "from_divergence")},
}


@pytest.mark.parametrize("beginning", IN_A_SENTENCE)
def test_the_options_in_a_sentence_are_those_of_the_config(beginning: str) -> None:
    sentence = PAGE.split(beginning)[1].split("\n\n")[0]
    exist = {name: MISSING if f.is_required() else f.default for name, f in IN_A_SENTENCE[beginning].items()}
    said = {name: options(f"`{name}` {value}")[name] for name, value in re.findall(r"`(\w+)`\s([\w-]+)", sentence)}
    assert said == exist


# -- what does not go together is refused by name

GROUP = {"kind": "group"}
OPTIMISM = [{"kind": "optimism", "weight": 1e-5}]
REFUSED: dict[str, tuple[Values, str]] = {
    "a loss of groups with pairs": (
        {"learn": {"loss": "rpo_nv_group"}},
        "learn.loss 'rpo_nv_group' learns from single answers, and pair.kind 'best_worst' gives pairs; choose one of",
    ),
    "a loss of pairs with groups": (
        {"pair": GROUP, "learn": {"loss": "ipo"}},
        "learn.loss 'ipo' learns from pairs, and pair.kind 'group' gives single answers; choose a builder of pairs",
    ),
    "optimism without a sample": (
        {"learn": {"regularisers": OPTIMISM}},
        "regulariser 'optimism' needs a reference sample beside each pair; set pair.kind: ranked, and sample.extra",
    ),
    "a reference sample that nobody writes": (
        {"pair": {"kind": "ranked"}},
        "pair.kind ranked ranks a reference sample with the policy's answers, and sample.extra asks for none",
    ),
    "given answers that nobody gave": (
        {"pair": {"kind": "gold"}, "sample": {"extra": [{"of": "initial"}]}},
        "pair.kind gold learns from answers that are given, and sample.extra takes none",
    ),
    "kto with a reference that moves": (
        {"learn": {"loss": "kto", "reference": "sync"}},
        "loss kto needs one reference that stays, and learn.reference is sync",
    ),
    "sampled answers of others with ppo": (
        {"pair": GROUP, "learn": {"algorithm": "ppo"}, "sample": {"extra": [{"of": "initial"}]}},
        "with algorithm 'ppo' the policy learns from its own answers alone; take sample.extra out",
    ),
    "ppo with pairs": (
        {"learn": {"algorithm": "ppo"}},
        "with algorithm 'ppo' a round learns from groups of scored answers; set pair.kind: group",
    ),
    "ppo with a mixture": (
        {"pair": GROUP, "learn": {"algorithm": "ppo", "reference": "mixture"}},
        "with algorithm 'ppo' the KL is to one policy that stays; learn.reference is 'mixture'",
    ),
    "grpo with sync": (
        {"pair": GROUP, "learn": {"algorithm": "grpo", "reference": "sync"}},
        "with algorithm 'grpo' the KL is to one policy that stays; learn.reference is 'sync'",
    ),
    "a KL without a reference": (
        {"pair": GROUP, "learn": {"algorithm": "rloo", "reference": "none"}},
        "kl_coef is 0.05 and learn.reference is none; set learn.kl_coef: 0",
    ),
    "ld_alpha with a loss of groups": (
        {"pair": GROUP, "learn": {"loss": "nca_group", "ld_alpha": 0.5}},
        "learn.ld_alpha has no meaning with loss 'nca_group'; leave it out",
    ),
    "ld_alpha with a mixture": (
        {"learn": {"ld_alpha": 0.5, "reference": "mixture"}},
        "learn.ld_alpha weighs tokens, and a mixture of references is one of answers; drop one",
    ),
    "a loss with an algorithm": (
        {"pair": GROUP, "learn": {"algorithm": "ppo", "loss": "ipo"}},
        "learn.loss has no meaning with algorithm 'ppo'; leave it out",
    ),
    "a modifier with a loss of groups": (
        {"pair": GROUP, "learn": {"loss": "nca_group", "modifiers": [{"kind": "wpo"}]}},
        "learn.modifiers has no meaning with loss 'nca_group'; leave it out",
    ),
    "a clip without log-ratios": (
        {"learn": {"loss": "simpo", "modifiers": [{"kind": "clip", "beta": 2, "chosen": 1, "rejected": 1}]}},
        "modifier 'clip' has no meaning for loss 'simpo'; it has one for",
    ),
    "two baselines": (
        {"learn": {"loss": [{"kind": "kto"}, {"kind": "bco"}]}},
        "losses kto and bco need different baselines; drop one of them",
    ),
    "a filter of pairs with groups": (
        {"pair": GROUP | {"filters": [{"kind": "dedup"}]}, "learn": {"loss": "nca_group"}},
        "pair filter 'dedup' does not go with pair builder 'group': it looks at pairs, and this makes examples",
    ),
    "an option of another algorithm": (
        {"pair": GROUP, "learn": {"algorithm": "rloo", "lam": 0.9}},
        "algorithm 'rloo' has no option 'lam'",
    ),
    "a recipe that is none": (
        {"pair": GROUP, "learn": {"algorithm": "ppo", "recipe": "n_minus"}},
        "recipe is 'n_minus'; choose one of unpacking, n_plus",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_go_together_is_refused(what: str) -> None:
    changes, message = REFUSED[what]
    with pytest.raises(ConfigError, match=re.escape(message)):
        config = parse_config(BASE | {"learn": {}} | changes, what)
        check_labels(config)
        check_learner(config)
        check_sources(config, [])


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_is_valid_as_it_stands(name: str) -> None:
    config = parse_config(CONFIGS[name], name)
    check_labels(config)
    check_learner(config)
