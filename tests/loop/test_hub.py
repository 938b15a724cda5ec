"""Models of the hub: one set of weights is downloaded; a cache that another tool filled is used without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sparring.loop.learning.checkpoint import weights_sha256
from tests.helpers.fake_hub import COMMIT, NAME, build_cache, serving
from tests.helpers.paths import ROOT
from tests.helpers.shards import shard
from tests.helpers.tiny import build_tiny_model

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors")
RESOLVE = (
    "import sys\n"
    "from sparring.loop.errors import DataError\n"
    "from sparring.loop.models import resolve_model\n"
    f"try: print(resolve_model({NAME!r}))\n"
    "except DataError as error: sys.exit(str(error))\n"
)
NOWHERE = "http://127.0.0.1:9"  # nothing listens there: as without a network

pytestmark = pytest.mark.slow


def resolved(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    ours |= {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    return subprocess.run([sys.executable, "-c", RESOLVE], cwd=ROOT, env=ours, capture_output=True, text=True)


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}])
def test_without_a_network_what_another_tool_cached_is_used(
    tiny: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    snapshot = build_cache(tmp_path, tiny, FILES)
    done = resolved(tmp_path, **environment)
    assert done.stdout.strip() == str(snapshot), done.stderr
    assert weights_sha256(snapshot) == weights_sha256(tiny)


def test_a_cache_that_lists_more_files_than_it_holds_is_used(tiny: Path, tmp_path: Path) -> None:
    """A tool that takes only the files that it needs leaves the list of all beside them."""
    snapshot = build_cache(tmp_path, tiny, FILES)
    listed = (*FILES, "README.md", "merges.txt", "training_args.json", "consolidated.safetensors")
    tree = snapshot.parent.parent / "trees" / f"{COMMIT}.json"
    with serving(tiny) as hub:  # the list in the form of the installed hub client
        other = resolved(tmp_path / "other", HF_ENDPOINT=hub.url)
    assert other.returncode == 0, other.stderr
    form = json.loads(next((tmp_path / "other").rglob(f"trees/{COMMIT}.json")).read_text())
    kept = _with_files(form, listed)
    tree.parent.mkdir()
    tree.write_text(json.dumps(kept))
    done = resolved(tmp_path, HF_HUB_OFFLINE="1")
    assert done.stdout.strip() == str(snapshot), done.stderr


def _with_files(form: dict[str, object], listed: tuple[str, ...]) -> dict[str, object]:
    """The cached list with these files, each with the facts of config.json."""
    (key,) = (key for key, value in form.items() if isinstance(value, dict) and "config.json" in value)
    files = form[key]
    assert isinstance(files, dict)
    return form | {key: dict.fromkeys(listed, files["config.json"])}


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "safetensors"),
        ("tokenizer.json", "tokenizer.json"),
        ("model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    ],
)
def test_the_file_that_a_cache_lacks_is_named(tmp_path: Path, lacking: str, named: str) -> None:
    model = build_tiny_model(tmp_path / "model")
    if "-of-" in lacking:
        shard(model)
    build_cache(tmp_path, model, [p.name for p in model.iterdir() if p.name != lacking])
    done = resolved(tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and named in done.stderr


def test_no_cache_and_no_network_says_both(tmp_path: Path) -> None:
    done = resolved(tmp_path, HF_ENDPOINT=NOWHERE)
    assert done.returncode == 1 and NAME in done.stderr and "cache" in done.stderr


@pytest.mark.parametrize("sharded", [False, True])
def test_one_set_of_weights_is_downloaded(tmp_path: Path, sharded: bool) -> None:
    """As a Mistral repository holds them: consolidated beside the shards; and folders with other forms."""
    model = build_tiny_model(tmp_path / "model")
    whole = load_file(model / "model.safetensors")
    if sharded:
        shard(model)
    expected = {path.name for path in model.iterdir()}
    save_file(whole, model / "consolidated.safetensors")
    (model / "params.json").write_text("{}")
    (model / "README.md").write_text("a card")
    for below in ("original", "onnx"):
        (model / below).mkdir()
        save_file(whole, model / below / "model.safetensors")
        (model / below / "config.json").write_text("{}")
    with serving(model) as hub:
        done = resolved(tmp_path, HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        assert hub.taken == expected | {"params.json"}
        again = resolved(tmp_path, HF_ENDPOINT=hub.url)
    offline = resolved(tmp_path, HF_HUB_OFFLINE="1")
    assert done.stdout == again.stdout == offline.stdout
    assert weights_sha256(Path(done.stdout.strip())) == weights_sha256(model)


def test_a_repository_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    (model / "model.safetensors").rename(model / "consolidated.safetensors")
    with serving(model) as hub:
        done = resolved(tmp_path, HF_ENDPOINT=hub.url)
        assert "consolidated.safetensors" not in hub.taken
    assert done.returncode == 1 and "consolidated.safetensors" in done.stderr
