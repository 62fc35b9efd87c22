"""A small registry on loopback, from which a real engine pulls: images that were made here, and its bad days."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from cooperbench_assets.execution.sandboxes.docker.engine import Engine

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry:
    """Serves manifests and layers; `failures` requests for a manifest are answered with 503 first."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[tuple[str, str], bytes] = {}
        self.failures = 0
        self.manifests_asked = 0
        registry = self

        class Handler(_Handler):
            owner = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """Host and port, as an image's name begins."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def offer(self, engine: Engine, repository: str, tag: str, files: dict[str, bytes]) -> str:
        """Offer an image with these files; returns its digest. It is not left on the engine."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for name, content in files.items():
                information = tarfile.TarInfo(name)
                information.size = len(content)
                tar.addfile(information, io.BytesIO(content))
        config = {
            "architecture": engine.client.version()["Arch"],
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
            "history": [{"created_by": "test"}],
        }
        described = json.dumps(config).encode()
        packed = gzip.compress(layer.getvalue(), mtime=0)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(described), "digest": self._keep(described)},
            "layers": [{"mediaType": _LAYER, "size": len(packed), "digest": self._keep(packed)}],
        }
        content = json.dumps(manifest).encode()
        self.tags[repository, tag] = self.tags[repository, _digest(content)] = content
        return _digest(content)

    def _keep(self, content: bytes) -> str:
        digest = _digest(content)
        self.blobs[digest] = content
        return digest


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[Registry]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = self.path.removeprefix("/v2/").split("/")
        if parts == [""]:
            self._answer(200, b"{}")
        elif len(parts) >= 3 and parts[-2] == "blobs":
            blob = self.owner.blobs.get(parts[-1])
            self._answer(404 if blob is None else 200, blob or b"", "application/octet-stream")
        else:
            self._manifest("/".join(parts[:-2]), parts[-1])

    do_HEAD = do_GET

    def _manifest(self, repository: str, reference: str) -> None:
        self.owner.manifests_asked += 1
        if self.owner.failures > 0:
            self.owner.failures -= 1
            self._answer(503, b'{"errors":[{"code":"UNAVAILABLE","message":"a bad day"}]}')
            return
        manifest = self.owner.tags.get((repository, reference))
        if manifest is None:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        else:
            self._answer(200, manifest, _MANIFEST)

    def _answer(self, code: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if kind == _MANIFEST:
            self.send_header("Docker-Content-Digest", _digest(content))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
