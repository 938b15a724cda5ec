"""A project of the user's, with packages that are called as the folders of this repository."""

from pathlib import Path


def own_packages(folder: Path) -> None:
    """Write packages flows, loop, store and judges that fail when they are imported."""
    for name in ("flows", "loop", "store", "judges"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the user was imported')\n")
