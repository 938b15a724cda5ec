"""The dataset card of an exported folder: its content, where the rows come from, and their licences."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sparring.loop.types import Split
from sparring.store.db import Database, rows
from sparring.store.exchange.formats import What
from sparring.store.exchange.writing import MARK

if TYPE_CHECKING:
    from sparring.store.exchange.exporting import Exported

Row = dict[str, Any]
# The hub's names of licences, by the names that people write.
LICENCES = {
    "mit": "mit",
    "apache-2.0": "apache-2.0",
    "apache 2.0": "apache-2.0",
    "bsd-3-clause": "bsd-3-clause",
    "cc0": "cc0-1.0",
    "cc0-1.0": "cc0-1.0",
    **{f"cc {kind} {n}": f"cc-{kind}-{n}" for kind in ("by", "by-sa", "by-nc", "by-nc-sa") for n in ("3.0", "4.0")},
    **{f"cc-{kind}-{n}": f"cc-{kind}-{n}" for kind in ("by", "by-sa", "by-nc", "by-nc-sa") for n in ("3.0", "4.0")},
    "odc-by": "odc-by",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TRAINS = {
    "pairs": "Each row is a preference: `chosen` was preferred to `rejected` with probability `p_chosen`.",
    "groups": "Each row is a prompt with its answers: `scores` stand along `completions`, null where one has none.",
    "labels": "Each row is one answer, and whether it is a good one: `label`.",
    "comparisons": "Each row is a comparison of two answers, ties among them: `p_a` is P(`response_a` is better).",
}

RUNS = """
SELECT run_id, CASE kind WHEN 'loop' THEN 'self-play' ELSE kind END AS kind, config_sha256 FROM runs
WHERE list_contains($runs, run_id) ORDER BY run_id
"""
JUDGES = """
SELECT j.judge, coalesce(k.kind, '') AS kind, count(*) AS judgements FROM judgements j
JOIN completions c USING (completion_id) JOIN prompts p USING (prompt_id) LEFT JOIN judges k USING (judge)
WHERE list_contains($runs, c.run_id) AND p.split = $split GROUP BY ALL ORDER BY j.judge
"""
FILES = """
SELECT source, licence, path, left(sha256, 16) AS sha256, rows, refused FROM sources WHERE list_contains($runs, run_id)
ORDER BY source, path
"""


def card(db: Database, what: What, split: Split, done: "Exported") -> str:
    """The text of README.md: front matter that `datasets` and the hub read, then counts for people."""
    runs = sorted({run for run, _ in done.units})
    with db.read() as con:
        exported = rows(con, RUNS, {"runs": runs})
        judges = rows(con, JUDGES, {"runs": runs, "split": split})
        files = rows(con, FILES, {"runs": runs})
    front = yaml.safe_dump(_front(what, split, done, files, exported), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{_body(what, split, done, exported, judges, files)}"


def _front(what: What, split: Split, done: "Exported", files: Sequence[Row], runs: Sequence[Row]) -> dict[str, Any]:
    size = next((name for bound, name in SIZES if done.rows < bound), "n>1M")
    return {
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*"}]}],
        **_licence({file["licence"] for file in files}, all(run["kind"] == "import" for run in runs)),
        "size_categories": [size],
        "tags": ["preference", what, MARK],
    }


def _licence(names: Iterable[str], imported: bool) -> dict[str, str]:
    """The licence in the front matter. Rows made here have none on record. Several are listed in a table below."""
    licences = sorted(set(names))
    if not licences or licences == ["unknown"]:
        return {"license": "unknown"}
    if imported and len(licences) == 1 and licences[0].lower() in LICENCES:
        return {"license": LICENCES[licences[0].lower()]}
    return {"license": "other", "license_name": "see-sources"}


def _body(
    what: What, split: Split, done: "Exported", runs: Sequence[Row], judges: Sequence[Row], files: Sequence[Row]
) -> str:
    counted = {run["run_id"]: [(r, n) for (name, r), n in done.units.items() if name == run["run_id"]] for run in runs}
    parts = [
        f"# {what.capitalize()} from a preference store\n",
        f"{TRAINS[what]} Made with sparring. All prompts are of the split `{split}`.\n",
        _table(("what", "count"), [("rows", done.rows), ("prompts", len(done.prompts)), ("runs", len(runs)),
               ("rounds", len(done.units)), ("judges", len(judges))]),
        "Columns: " + ", ".join(f"`{name}`" for name in done.columns) + ".\n",
        "## Where the rows come from\n",
        _table(
            ("run", "kind", "rounds", "rows", "hash of its config"),
            [
                (r["run_id"], r["kind"], ", ".join(str(k) for k, _ in sorted(counted[r["run_id"]])),
                 sum(n for _, n in counted[r["run_id"]]), r["config_sha256"][:16])
                for r in runs
            ],
        ),
        _table(("prompts from", "rows"), [(_shown(source), n) for source, n in sorted(done.sources.items())]),
    ]  # fmt: skip
    if judges:
        parts.append(_table(("judge", "kind", "judgements"), [tuple(judge.values()) for judge in judges]))
    if files:
        head = ("source", "licence", "file", "sha256", "rows", "refused")
        body = [tuple((file | {"path": _shown(file["path"])}).values()) for file in files]
        parts += ["## Sources and licences\n", _table(head, body)]
    if any(run["kind"] != "import" for run in runs):
        parts.append("What was made here has the licence of its prompts and of the models that answered and judged.\n")
    return "\n".join(parts)


def _shown(name: str) -> str:
    """The name, or the last part of a path on someone's machine."""
    path = Path(name)
    return path.name if path.is_absolute() else name


def _table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(_cell(value) for value in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
