"""docs/own-parts.md: each part of the page, in a file outside the repository, plays two rounds of a tiny model."""

import re
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml

import sparring
from sparring.loop.errors import ConfigError, StepError
from tests.helpers.paths import ROOT
from tests.helpers.spar import python

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "own-parts.md").read_text(encoding="utf-8")
FILES = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
CONFIGS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
SOURCE = "\n".join(text for _, text in FILES)

DROPPED = """
from dataclasses import replace

from sparring.loop.pairing import Dropped


def half(logps):
    return replace(logps, weight=logps.weight / 2)


def pull(logps, *, weight: float = 0.1):
    return -weight * logps.policy_chosen


def short(rows, *, least: int = 1):
    return [row if len(row.item.chosen.completion.text) >= least else Dropped("chosen is too short") for row in rows]
"""
PLAYED: dict[str, Mapping[str, Any]] = {
    "function judge": CONFIGS[0],
    "class judge": {
        "judge": {"kind": "./parts.py:Length", "target": 2},
        "sample": {"n": 8, "max_tokens": 24},  # so that answers differ in words
    },
    "loss": CONFIGS[1],
    "reference-free loss": {"learn": {"loss": "./parts.py:margin"}},
    "builder": CONFIGS[2],
    "filter": {"pair": {"filters": [{"kind": "./parts.py:short", "least": 2}]}},
    "weighted sum": {"learn": {"loss": [{"kind": "ipo"}, {"kind": "./parts.py:squared_sigmoid", "weight": 0.5}]}},
    "modifier": {"learn": {"modifiers": [{"kind": "./parts.py:half"}]}},
    "regulariser": {"learn": {"regularisers": [{"kind": "./parts.py:pull", "weight": 0.2}]}},
    "stop rule": {"stop": {"rules": [{"kind": "./parts.py:too_long", "bound": 1000}]}},
    "panel": {"judge": {"kind": "panel", "judges": [{"kind": "./parts.py:vowels"}, {"kind": "./parts.py:Length"}]}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Outside the repository: the page's parts in one file, beside where a config would be."""
    (tmp_path / "parts.py").write_text(SOURCE + DROPPED)
    with chdir(tmp_path):
        yield tmp_path


def config(tiny: Path, changes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    rows = [{"prompt": f"Say {word}."} for word in ("red", "blue", "one", "two", "north", "south")]
    values: dict[str, Any] = {
        "name": "own",
        "rounds": 2,
        "seed": 2,
        "policy": {"model": str(tiny)},
        "prompts": {"train": rows[:4], "eval": rows[4:]},
        "sample": {"n": 4, "max_tokens": 8, "engine": "transformers"},
        "judge": {"kind": "./parts.py:vowels"},
        "learn": {"lr": 1e-3, "batch_size": 2},
        "evaluate": {"n": 1, "gate": None},
    }
    here = yaml.safe_load(re.sub(r"\./\w+\.py:", "./parts.py:", yaml.safe_dump(dict(changes))))
    for key, value in {**here, **more}.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    if "kind" in here.get("judge", {}):
        values["judge"] = here["judge"]
    return values


@pytest.mark.parametrize("case", PLAYED)
def test_each_part_plays_two_rounds(tiny: Path, folder: Path, case: str) -> None:
    result = sparring.run(config(tiny, PLAYED[case]), quiet=True)
    assert result.rounds == 2
    assert result.sql("SELECT count(*) AS n FROM pairs").rows()[0]["n"] > 0


def test_a_stop_rule_stops_the_run_after_its_round(tiny: Path, folder: Path) -> None:
    values = config(tiny, {"stop": {"rules": [{"kind": "./parts.py:too_long", "bound": 1}]}})
    with pytest.raises(StepError, match=r"round 1 stopped the run by stop\.too_long@\w+: .*more than 1"):
        sparring.run(values, quiet=True)


ENTRY_POINTS = """
import sys
from sparring.judges import JUDGES
from sparring.loop.learning.losses import ANY_LOSS
from sparring.loop.pairing import BUILDERS
asked = (JUDGES, "vowels"), (ANY_LOSS, "squared"), (BUILDERS, "neighbours"), (JUDGES, "my_parts:Length")
for registry, name in asked:
    part = registry[name]
    print(part.name, part.label.split("@")[0], len(part.source))
try:
    JUDGES["broken"]
except Exception as error:
    print(type(error).__name__, error)
"""


def test_an_installed_package_offers_its_parts_by_name(folder: Path) -> None:
    (folder / "my_parts.py").write_text(SOURCE)
    (folder / "broken_parts.py").write_text("1 / 0")
    info = folder / "my_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sparring.judges]\nvowels = my_parts:vowels\nbroken = broken_parts:x\n"
        "[sparring.losses]\nsquared = my_parts:squared_sigmoid\n"
        "[sparring.builders]\nneighbours = my_parts:neighbours\n"
    )
    lines = python("-c", f"import sys; sys.path.append({str(folder)!r})\n{ENTRY_POINTS}", cwd=folder).out.splitlines()
    assert [line.split()[:3] for line in lines[:4]] == [
        ["vowels", "vowels", "64"],
        ["squared", "squared_sigmoid", "64"],
        ["neighbours", "neighbours", "64"],
        ["my_parts:Length", "Length", "64"],
    ]
    assert lines[4].startswith("ConfigError") and "broken_parts.py, line 1: ZeroDivisionError" in lines[4]


def test_every_part_of_the_page_is_played() -> None:
    names = set(re.findall(r"^(?:def|class) (\w+)", SOURCE, re.MULTILINE))
    assert names == {name for name in names if f":{name}" in yaml.safe_dump(list(map(dict, PLAYED.values())))}


def test_two_versions_of_a_judge_never_share_rows(tiny: Path, folder: Path) -> None:
    first = sparring.run(config(tiny, {}, rounds=1), quiet=True)
    rows = "SELECT DISTINCT judge FROM judgements ORDER BY 1"
    ((before,),) = [tuple(row.values()) for row in first.sql(rows).rows()]
    (folder / "parts.py").write_text((SOURCE + DROPPED).replace("/ len(text)", "/ len(text) / 2"))
    with pytest.raises(ConfigError, match=r"(?s)-judge\.kind: vowels@\w+\n\+judge\.kind: vowels@\w+.*another name"):
        sparring.run(config(tiny, {}), quiet=True)
    sparring.run(config(tiny, {}, name="own2", rounds=1), quiet=True)
    judges = [row["judge"] for row in first.sql(rows).rows()]
    assert len(judges) == 2 and before in judges
    assert first.sql("SELECT count(*) AS n FROM judgements GROUP BY judge").rows()[0]["n"] > 0


@pytest.mark.parametrize("changed", ["loss", "builder"])
def test_a_run_does_not_go_on_with_another_loss_or_builder(tiny: Path, folder: Path, changed: str) -> None:
    sparring.run(config(tiny, PLAYED[changed], rounds=1), quiet=True)
    (folder / "parts.py").write_text(SOURCE + DROPPED + "\n# edited")
    with pytest.raises(ConfigError, match="was started with another config"):
        sparring.run(config(tiny, PLAYED[changed]), quiet=True)


def test_the_run_is_the_same_where_the_file_lies_elsewhere(tiny: Path, folder: Path) -> None:
    first = sparring.run(config(tiny, {}, rounds=1), quiet=True)
    (folder / "deeper").mkdir()
    (folder / "parts.py").rename(folder / "deeper" / "parts.py")
    moved = config(tiny, {}, rounds=1) | {"judge": {"kind": "./deeper/parts.py:vowels"}}
    assert sparring.run(moved, quiet=True) == first


MISTAKES = {
    "exception": (
        "def broken(prompt, completion):\n    return 1 / 0\n",
        r"broken\.py, line 2, in broken: ZeroDivision",
    ),
    "text": (
        "def broken(prompt, completion):\n    return 'good'\n",
        "gave 'good' for completion_.*finite number, or None",
    ),
    "nan": ("def broken(prompt, completion):\n    return float('nan')\n", "gave nan for"),
    "no object": ("class broken:\n    pass\n", "expected a judge .*score"),
    "syntax": ("def broken(prompt, completion)\n    return 1\n", r"broken\.py, line 1: expected ':'"),
    "import": ("import no_such_module\n", r"broken\.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
    "name": ("def other(prompt, completion):\n    return 1\n", "has no 'broken'; it has other"),
    "option": (
        "def broken(prompt, completion, *, low: float = 0):\n    return 1\n",
        "has no option 'lo' .*'low'.*takes low",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_the_line(tiny: Path, folder: Path, mistake: str) -> None:
    text, message = MISTAKES[mistake]
    (folder / "broken.py").write_text(text)
    judge = {"kind": "./broken.py:broken", **({"lo": 1} if mistake == "option" else {})}
    values = config(tiny, {}, rounds=1) | {"judge": judge}
    with pytest.raises((ConfigError, StepError), match=message):
        sparring.run(values, quiet=True)


def test_a_loss_of_the_wrong_shape_is_refused(tiny: Path, folder: Path) -> None:
    (folder / "parts.py").write_text(SOURCE + "\n\ndef mean(logps):\n    return logps.gap.mean()\n")
    with pytest.raises(StepError, match=r"gave a tensor of shape \(\); expected a tensor of shape \(\d,\)"):
        sparring.run(config(tiny, {"learn": {"loss": "./parts.py:mean"}}, rounds=1), quiet=True)


def test_an_option_of_the_wrong_type_is_refused(tiny: Path, folder: Path) -> None:
    values = config(tiny, {"learn": {"loss": "./parts.py:squared_sigmoid", "beta": "much"}}, rounds=1)
    with pytest.raises(ConfigError, match="beta is 'much'; it must be a number"):
        sparring.run(values, quiet=True)
