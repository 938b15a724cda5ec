"""`spar store`: check, migrate, compact, back up, rebuild and prune the store, and forget prompts."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import AsJson, Run, Store, find_run, login, open_store, print_json, say
from sparring.loop.errors import ConfigError, StoreError
from sparring.loop.formatting import size

if TYPE_CHECKING:
    from sparring.store.db import Database
    from sparring.store.maintenance.finding import Finding
    from sparring.store.maintenance.forget import Plan
    from sparring.store.maintenance.rebuild import Rebuilt
    from sparring.store.store import DuckStore

Files = Annotated[bool, typer.Option("--files", help="Compare with the parts and the checkpoints on disk too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")]


def check(store: Store = None, files: Files = False, as_json: AsJson = False) -> None:
    """Check the store's consistency; exits with 1 and a list of problems if there are any."""
    from sparring.store.maintenance.check import check as look

    db = open_store(store).db
    counts, findings = look(db)
    if files and all(f.ok or f.name != "the file can be opened" for f in findings) and counts:
        findings += _files(db)
    bad = [f for f in findings if not f.ok]
    if as_json:
        print_json({"ok": not bad, "tables": counts, "findings": [asdict(f) for f in findings]})
    else:
        _print_findings(counts, findings)
    if bad:
        raise typer.Exit(1)


def _files(db: "Database") -> list["Finding"]:
    from sparring.loop.learning.checkpoint import weights_sha256
    from sparring.store.maintenance.checkpoints import check_checkpoints
    from sparring.store.maintenance.parts import check_parts

    return [*check_parts(db), *check_checkpoints(db, weights_sha256)]


def _print_findings(counts: dict[str, int], findings: list["Finding"]) -> None:
    print(", ".join(f"{n:,} {name}" for name, n in counts.items() if n) or "nothing is stored")
    for finding in findings:
        if not finding.ok or finding.remedy:
            print(f"{'note' if finding.ok else 'PROBLEM'}: {finding.name}: {finding.found}")
            print(f"  to do: {finding.remedy}")
    bad = sum(not finding.ok for finding in findings)
    say(f"{len(findings) - bad} of {len(findings)} checks hold" + (f", {bad} do not" if bad else ""))


def migrate(store: Store = None) -> None:
    """Migrate a store that an older version wrote; any command does so when it first opens the store."""
    from sparring.store.maintenance.migrate import migrate_file

    db = open_store(store).db
    before, after = migrate_file(db)
    say(f"{db.path}: schema version {before}" + (f" -> {after}" if after > before else ", which is the newest"))


def compact(store: Store = None) -> None:
    """Rewrite the store without the space of deleted rows, and merge its small parts."""
    from sparring.store.maintenance.copies import compact as compact_file
    from sparring.store.maintenance.parts import complete_rest, merge
    from sparring.store.parts import parts_folder

    db = open_store(store).db
    with db.at_rest():
        added = complete_rest(db)
        parts_before, parts_after = merge(parts_folder(db.path))
        before, after = compact_file(db)
    say(f"{db.path}: {size(before)} -> {size(after)}; {parts_before} parts -> {parts_after}")
    if added:
        say("rows that were in no part were written to parts: " + ", ".join(f"{n:,} {t}" for t, n in added.items()))


def backup(
    to: Annotated[Path, typer.Argument(help="The new file; an existing file is never overwritten.")],
    store: Store = None,
) -> None:
    """Copy the store as it is now to another file, and compare the two row by row."""
    from sparring.store.maintenance.copies import backup as copy

    db = open_store(store).db
    counts = copy(db, to)
    say(f"{to}: {sum(counts.values()):,} rows of {len(counts)} tables, equal to those of {db.path}")


def rebuild(
    store: Store = None,
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="Leave out damaged parts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild a damaged or lost store from its parts and what can be read of the old file, which is kept."""
    from sparring.store.maintenance.rebuild import rebuild as make

    db = open_store(store).db
    done = make(db, skip_damaged=skip_damaged)
    if as_json:
        print_json(asdict(done))
    else:
        _print_rebuilt(done)
    say(f"{db.path} was rebuilt; check it with: spar store check --files --store {db.path}")


def _print_rebuilt(done: "Rebuilt") -> None:
    for table, n in done.rows.items():
        if n:
            salvaged = done.salvaged.get(table, 0)
            print(f"{table}: {n:,} rows" + (f", {salvaged:,} of them from the old file alone" if salvaged else ""))
    for path in done.without:
        say(f"left out because it is damaged: {path}")
    for why in done.unread:
        say(f"not read: {why}")
    if done.kept:
        say(f"the old file is kept as {done.kept}; remove it when the store is in order")


def forget(
    prompt_id: Annotated[str | None, typer.Argument(help="The id of a prompt.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Every prompt that contains this text, or led to a text that does.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Stored in the tombstone; write nothing private here.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Remove a prompt and everything derived from it from the store, its parts and its runs; a tombstone stays."""
    from sparring.flows.run.forget import files_of, forget_everywhere
    from sparring.store.maintenance.forget import older_copies, plan

    opened = open_store(store)
    removal = plan(opened.db, _asked(opened, prompt_id, text))
    _print_plan(removal, [*files_of(opened, removal.run_ids), *older_copies(opened.db.path)])
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("nothing was done; to confirm, give --yes")
        typer.confirm("Do this? It cannot be undone", abort=True, err=True)
    done = forget_everywhere(opened, removal, reason, login())
    if as_json:
        print_json({**asdict(done.plan), "files": done.files})
    say("done; a process that has the old file or a copy open sees it until it closes it")


def _asked(store: "DuckStore", prompt_id: str | None, text: str | None) -> list[str]:
    from sparring.store.maintenance.prompt_rows import holding

    if (prompt_id is None) == (text is None):
        raise ConfigError("expected a PROMPT_ID or --text TEXT to forget")
    if prompt_id is not None:
        return [prompt_id]
    if not text:
        raise ConfigError("--text is empty, which every prompt contains; give a text or a PROMPT_ID")
    if ids := holding(store.db, text):
        return ids
    raise StoreError(f"no prompt of {store.db.path}, or anything derived from one, contains that text; case matters")


def _print_plan(removal: "Plan", files: list[Path]) -> None:
    if removal.prompt_ids:
        say(f"to forget: {', '.join(removal.prompt_ids)}")
    if removal.again:
        say(f"forgotten before, and searched for again in all files: {', '.join(removal.again)}")
    removed = [f"{n:,} {table}" for table, n in removal.removed.items()]
    removed += [f"their place in {removal.rounds:,} rounds"] * (removal.rounds > 0)
    say(f"rows: {', '.join(removed) or 'none'}")
    for path in files:
        say(f"file: {path}")
    if removal.checkpoint_ids:
        say(
            f"{len(removal.checkpoint_ids)} checkpoints come from {len(removal.update_ids)} updates that learned from "
            f"it, and weights do not forget: {', '.join(removal.checkpoint_ids)}. Remove them and train again if that "
            "matters"
        )
    if removal.run_ids:
        say(
            f"used it: {', '.join(removal.run_ids)}. Such a loop cannot resume; remove the prompt from its file, and "
            "continue from its last policy under another name, with policy.model: run:NAME"
        )


def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest checkpoints to keep.")],
    run: Run = None,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """Remove the files of old checkpoints of a run, as `keep.checkpoints` does; rows and hashes stay."""
    from sparring.flows.run.retention import prune_by_hand, removable, size_of

    opened = open_store(store)
    info = find_run(opened, run)
    if info.kind != "loop":
        raise StoreError(f"{info.id} is no loop, so it has no old checkpoints; see: spar sql 'SELECT run_id FROM runs'")
    sizes = {Path(k.path): size_of(Path(k.path)) for k in removable(opened, info.id, keep)}
    gone = [path for path, n in sizes.items() if n] if dry_run else prune_by_hand(opened, info.id, keep)
    for path in gone:
        print(path)
    freed = size(sum(sizes.get(path, 0) for path in gone))
    say(f"{info.id}: {len(gone)} checkpoints, {freed} " + ("would be freed" if dry_run else "freed"))
