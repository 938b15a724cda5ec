"""The migration of a store that an older version wrote."""

from sparring.loop.errors import StoreError
from sparring.store.db import Database, check_version, migrations


def migrate_file(db: Database) -> tuple[int, int]:
    """Migrate the file. Returns its schema version before and now. Raises StoreError, StoreTooNew and StoreTooOld."""
    if not db.path.exists():
        raise StoreError(f"there is no store at {db.path}; give --store PATH")
    with db.at_rest():
        with db.connection(read_only=True) as con:
            before = check_version(con)
        with db.write():
            pass
    return before, migrations()[-1][0]
