"""Which of the safetensors files beside each other are the model: a repository may hold its weights twice."""

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from sparring.loop.errors import DataError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r".*-\d{5}-of-\d{5}\.safetensors")
# Other forms of the same weights, and adapters, which are not read here.
OTHERS = ("consolidated*.safetensors", "model.*.safetensors", "adapter_model*.safetensors")


def one_set(names: Sequence[str], folder: Path) -> list[str]:
    """The names, of all *.safetensors in a repository, of those that transformers reads, with heads in files of their
    own (e.g. value_head.safetensors): model.safetensors, or the shards that the index in `folder` names.

    Raises DataError if there is no such set, or if it lacks a file.
    """
    chosen = {WHOLE} if WHOLE in names else _indexed(folder)
    if not chosen:
        raise DataError(
            f"{folder} has {', '.join(names[:4]) or 'no *.safetensors'}, and neither {WHOLE} nor {INDEX}; expected "
            "weights in the format of transformers: convert them, or give another repository of the model"
        )
    if missing := sorted(chosen - set(names)):
        raise DataError(
            f"{folder} lacks {', '.join(missing[:4])}: {len(missing)} of {len(chosen)} files that {INDEX} names; "
            "download the model again"
        )
    heads = {name for name in names if not SHARD.fullmatch(name) and not any(fnmatch(name, o) for o in OTHERS)}
    return sorted(chosen | heads)


def _indexed(folder: Path) -> set[str]:
    path = folder / INDEX
    if not path.exists():
        return set()
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no index of weights ({type(error).__name__}: {error}); expected JSON with a weight_map from "
            "each weight to its file: download the model again"
        ) from error
