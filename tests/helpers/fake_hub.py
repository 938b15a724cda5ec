"""A hub of one model, served from a folder, that remembers which files were taken; and a cache as a tool leaves it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

NAME, COMMIT = "tiny-org/tiny-model", "0123456789abcdef0123456789abcdef01234567"


def build_cache(home: Path, model: Path, files: Sequence[str]) -> Path:
    """The cache below HF_HOME as another tool fills it with some files: blobs, a snapshot of links, a ref."""
    root = home / "hub" / f"models--{NAME.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for name in files:
        content = (model / name).read_bytes()
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    return snapshot


class Hub(ThreadingHTTPServer):
    """Serves the files below `folder` as NAME at COMMIT. `taken` are the files that were read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.taken = folder, set[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, folder = self.path.partition("?")[0], self.server.folder
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        if path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/main"):
            self._json({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        elif path == f"/api/models/{NAME}/tree/{COMMIT}":
            self._json([{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": _id(f)} for f in files])
        elif path.startswith(f"/{NAME}/resolve/") and (name := path.split("/", 5)[5]) in files:
            self._send((folder / name).read_bytes(), {"ETag": f'"{_id(name)}"', "X-Repo-Commit": COMMIT})
            if self.command == "GET":
                self.server.taken.add(name)
        else:
            self.send_error(404)

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _id(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
