import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparring.flows.compose.build import check_labels, describe, read_all_prompts
from sparring.flows.compose.learner import check_learner
from sparring.flows.config import Config, parse_config, read_config, sha256
from sparring.loop.errors import ConfigError
from tests.helpers.paths import ROOT

SCHEMA = ROOT / "flows" / "config" / "schema.json"
WRITE_SCHEMA = (
    "python -c 'import json; from sparring.flows.config import Config; "
    'print(json.dumps(Config.model_json_schema(), indent=2, sort_keys=True))\' > flows/config/schema.json'
)  # fmt: skip

# The example that docs and design show.
EXAMPLE = """
name: quickstart
store: preferences.duckdb
seed: 0
rounds: 3
policy:   {model: bundled/smollm2-135m-instruct}      # or a local folder, or a hub id
prompts:  {train: examples/quickstart/train.jsonl, eval: examples/quickstart/eval.jsonl}
sample:   {n: 8, temperature: 1.0, max_tokens: 64}
judge:    {kind: rules}
pair:     {kind: best_worst}
learn:    {algorithm: dpo, loss: sigmoid, beta: 0.1, lr: 1.0e-5, batch_size: 8, reference: previous}
evaluate: {rival: initial, n: 4, gate: 0.5}
"""


def values(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(EXAMPLE), **changes}


def mistakes(**changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        check_labels(parse_config(values(**changes), "loop.yaml"))
        check_learner(parse_config(values(**changes), "loop.yaml"))
    return str(error.value)


def overridden(folder: Path, *overrides: str) -> Config:
    (folder / "loop.yaml").write_text(EXAMPLE)
    return read_config(folder / "loop.yaml", overrides)


def bad_override(folder: Path, override: str) -> str:
    with pytest.raises(ConfigError) as error:
        overridden(folder, override)
    return str(error.value)


def test_the_example_means_what_it_says(tmp_path: Path) -> None:
    config = overridden(tmp_path)
    check_labels(config)
    check_learner(config)
    assert (config.name, config.store, config.seed, config.rounds) == ("quickstart", "preferences.duckdb", 0, 3)
    assert config.policy.model == "bundled/smollm2-135m-instruct"
    assert (config.prompts.train, config.prompts.per_round) == ("examples/quickstart/train.jsonl", None)
    assert (config.sample.n, config.sample.temperature, config.sample.max_tokens) == (8, 1.0, 64)
    assert (config.judge.kind, config.judge.options) == ("rules", {})
    assert (config.pair.kind, config.pair.options) == ("best_worst", {})
    learn = config.learn
    assert (learn.algorithm, learn.loss, learn.lr, learn.batch_size) == ("preference", "sigmoid", 0.00001, 8)
    assert (learn.reference.kind, learn.options) == ("previous", {"beta": 0.1})
    assert (config.evaluate.rival, config.evaluate.n, config.evaluate.gate) == ("initial", 4, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rouns": 3}, "rouns: unknown key (did you mean 'rounds'?); there are name, store, seed, rounds, policy,"),
        ({"sample": {"temprature": 1}}, "sample.temprature: unknown key (did you mean 'temperature'?); there are n,"),
        ({"learn": {"lrr": 1}}, "learn.lrr: unknown key (did you mean 'lr'?); learn has algorithm, loss, modifiers,"),
        ({"learn": {"gamma": 1}}, "loss 'sigmoid' has no option 'gamma'; it takes beta, label_smoothing"),
        (
            {"learn": {"loss": "sigmoyd"}},
            "there is no loss 'sigmoyd' (did you mean 'sigmoid'?); choose one of sigmoid,",
        ),
        ({"learn": {"algorithm": "ddpo"}}, "learn.algorithm: found 'ddpo': input should be 'preference', 'ppo'"),
        (
            {"judge": {"kind": "rulez"}},
            "there is no judge 'rulez' (did you mean 'rules'?); choose one of rules, reward",
        ),
        ({"judge": {"max_word": 3}}, "judge 'rules' has no option 'max_word' (did you mean 'max_words'?)"),
        ({"pair": {"kind": "all"}}, "there is no pair builder 'all'; choose one of "),
        ({"pair": {"margin": 1}}, "pair builder 'best_worst' has no option 'margin' (did you mean 'min_margin'?)"),
        ({"rounds": "many"}, "rounds: found 'many': input should be a valid integer"),
        ({"rounds": 0}, "rounds: found 0: input should be greater than or equal to 1"),
        ({"evaluate": {"gate": 1.5}}, "evaluate.gate: found 1.5: input should be less than or equal to 1"),
        ({"policy": {}}, "policy.model: missing; it has no default"),
        ({"policy": None}, "policy: found None: input should be a valid dictionary"),
        ({"name": "a name"}, "name: found 'a name': string should match pattern"),
    ],
)
def test_a_mistake_is_named_with_what_was_wanted(changes: dict[str, Any], message: str) -> None:
    assert message in mistakes(**changes)


def test_all_mistakes_are_told_at_once() -> None:
    assert mistakes(rouns=3, seed=-1, sample={"n": "x"}).count("\n  ") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "holds a list"), ("", "holds a NoneType"), ("a: [", "is not YAML"), ("a: \udce9", "is not YAML")],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "loop.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "loop.yaml")
    with pytest.raises(ConfigError, match=r"there is no config file .*none\.yaml; write one with: spar init"):
        read_config(tmp_path / "none.yaml")


def test_overrides_are_typed(tmp_path: Path) -> None:
    config = overridden(tmp_path, "learn.lr=1e-5", "learn.beta=2E-1", "prompts.per_round=4", "sample={n: 2}", "seed=3")
    assert config.learn.lr == 0.00001
    assert config.learn.options == {"beta": 0.2}
    assert (config.prompts.per_round, config.sample.n, config.seed) == (4, 2, 3)
    assert overridden(tmp_path, "evaluate.gate=null").evaluate.gate is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learn.lr", "--set 'learn.lr' has no value; write it as section.key=value"),
        ("=3", "--set '=3' has no value"),
        ("name.first=a", "--set 'name.first=a': name is a value, not a section"),
        ("sample.n=[", "--set 'sample.n=[': the value is not YAML"),
        ("sample.n=", "sample.n: found None: input should be a valid integer"),
        ("smple.n=4", "smple: unknown key (did you mean 'sample'?)"),
    ],
)
def test_a_bad_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    assert message in bad_override(tmp_path, override)


def test_where_and_how_long_do_not_shape_a_run() -> None:
    prompts = {"train": "a", "eval": "b"}
    shape = parse_config(values(), "").shape(prompts)
    assert parse_config(values(store="elsewhere.duckdb", rounds=9), "").shape(prompts) == shape
    assert parse_config(values(learn={"beta": 0.1, "lr": 2e-5}), "").shape(prompts) != shape
    assert parse_config(values(learn=values()["learn"] | {"beta": 0.2}), "").shape(prompts) != shape
    assert shape["prompts"] == {"per_round": None, "train": "a", "eval": "b"}


def test_keys_that_came_later_do_not_make_another_run_of_an_old_one() -> None:
    """The hash is that of the code before there were filters, sources, modifiers and adapters."""

    def digest(**changes: Any) -> str:
        plain = {"name": "x", "policy": {"model": "m"}, "prompts": {"train": "a", "eval": "b"}, "learn": {"beta": 0.1}}
        return sha256(parse_config(plain | changes, "").shape({"train": "a", "eval": "b"}))

    before = "991acd8a33fa139dcdf07b738e3105596d1a5de17faeec41aef96e293047532d"
    assert digest() == digest(learn={"beta": 0.1, "reference": {"kind": "previous"}}) == before
    others = ({"learn": {"beta": 0.1, "lora": {}}}, {"pair": {"filters": [{"kind": "dedup"}]}}, {"sample": {"n": 0}})
    assert len({before, *(digest(**other) for other in others)}) == 4


def test_a_run_is_named_by_what_its_prompts_say(tmp_path: Path) -> None:
    def run_id(folder: Path) -> str:
        files = {split: str(folder / f"{split}.jsonl") for split in ("train", "eval")}
        config = parse_config(values(prompts=files), "")
        return describe(config, *read_all_prompts(config)).id

    for folder, bird in (("here", "a bird"), ("changed", "a big bird")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(json.dumps({"prompt": f"Name {bird}."}))
        (tmp_path / folder / "eval.jsonl").write_text(json.dumps({"prompt": "Name a fish."}))
    shutil.copytree(tmp_path / "here", tmp_path / "moved")
    here = run_id(tmp_path / "here")
    assert here.startswith("quickstart-")
    assert run_id(tmp_path / "moved") == here
    assert run_id(tmp_path / "changed") != here


def test_the_schema_that_is_shipped_is_the_one_that_is_checked() -> None:
    wanted = json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"
    assert SCHEMA.read_text(encoding="utf-8") == wanted, f"write it again with: {WRITE_SCHEMA}"


def test_an_option_that_a_judge_needs_is_asked_for() -> None:
    assert "judge 'llm' needs the option 'model', and it is not given" in mistakes(judge={"kind": "llm"})
    assert "judge 'panel' needs the option 'judges'" in mistakes(judge={"kind": "panel"})
    assert "'rulez'" in mistakes(judge={"kind": "panel", "judges": [{"kind": "rules"}, {"kind": "rulez"}]})


def test_a_whole_number_of_an_option_is_one_however_it_is_written() -> None:
    """Prefect's page sends 1.0 as 1; that is not another config."""
    written = parse_config(values(learn={"beta": 1.0}), "test")
    sent = parse_config(values(learn={"beta": 1}), "test")
    assert written.shape({}) == sent.shape({}) and json.dumps(written.shape({})) == json.dumps(sent.shape({}))
