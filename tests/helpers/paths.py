"""Where the repository is, and the shared data that some tests need (set SPARRING_TEST_DATA to another folder)."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARRING_TEST_DATA", ROOT.parent / "shared" / "data"))
