"""Bring a file that an older version wrote up to date, on purpose."""

from sparring.loop.errors import StoreError
from sparring.store.db import Database, check_version, migrations


def migrate_file(db: Database) -> tuple[int, int]:
    """The schema version that the file had, and has now. Raises StoreError, StoreTooNew for a newer one."""
    if not db.path.exists():
        raise StoreError(f"there is no store at {db.path}; give --store PATH")
    with db.at_rest():
        with db.connection(read_only=True) as con:
            before = check_version(con)
        with db.write():
            pass
    return before, migrations()[-1][0]
