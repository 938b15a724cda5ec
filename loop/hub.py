"""Models of the hub: one set of weights is downloaded; without a network, what any tool left in the cache is used."""

from pathlib import Path
from typing import Any

from sparring.loop.errors import DataError
from sparring.loop.learning.checkpoint import weight_files
from sparring.loop.learning.weight_sets import one_set

BESIDE = ("*.json", "*.jinja", "*.model", "*.txt")  # config, tokenizer, template
BELOW = "*/*"  # other forms of the model are in folders: original/, onnx/, ...
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "tekken.json")


def from_hub(name: str) -> Path:
    """The cache's folder of a model, downloaded where the hub can be reached.

    Raises DataError for a name that the hub does not know, and for files that neither the hub nor the cache has.
    """
    try:
        folder = _downloaded(name)
    except DataError:  # of what is there
        raise
    except (OSError, ValueError) as error:
        folder = _cached(name, error)
    weight_files(folder)
    if not any(path for pattern in TOKENIZERS for path in folder.glob(pattern)):
        raise DataError(
            f"{folder} has no tokenizer: expected one of {', '.join(TOKENIZERS)} beside config.json; download {name} "
            "again, with its tokenizer"
        )
    return folder


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    what: dict[str, Any] = {"allow_patterns": [*BESIDE, "*.safetensors"], "ignore_patterns": BELOW}
    names = sorted(file.filename for file in snapshot_download(name, dry_run=True, **what))
    folder = Path(snapshot_download(name, allow_patterns=[*BESIDE], ignore_patterns=BELOW))
    weights = one_set([each for each in names if each.endswith(".safetensors")], folder)
    snapshot_download(name, revision=folder.name, allow_patterns=weights)
    return folder


def _cached(name: str, error: Exception) -> Path:
    """The folder in the cache, whole or not. Raises DataError if there is none."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=["config.json"]))
    except (OSError, ValueError):
        raise DataError(
            f"{name!r} is neither a local folder, nor in the cache of the hub, nor a model that the hub provides "
            f"({error}); give a folder, a hub id, or a name that begins with bundled/"
        ) from error
