"""A registry that is pushed to and pulled from, in this process or as several."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from tests.ports import free_port

BLOB = os.urandom(3 << 20)
LAYER = f"sha256:{sha256(BLOB).hexdigest()}"
OCTETS = {"Content-Type": "application/octet-stream"}
IMAGE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": LAYER, "size": len(BLOB)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": LAYER, "size": len(BLOB)}],
    }
).encode()


def ask(
    url: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def push(url: str, name: str = "a/b") -> None:
    _, headers, _ = ask(url, "POST", f"/v2/{name}/blobs/uploads/")
    target = headers["location"]
    assert ask(url, "PUT", f"{target}&digest={LAYER}", BLOB, OCTETS)[0] == 201
    assert ask(url, "PUT", f"/v2/{name}/manifests/v1", MANIFEST, {"Content-Type": IMAGE})[0] == 201


def pull(url: str, name: str = "a/b") -> None:
    assert ask(url, "GET", f"/v2/{name}/manifests/v1", headers={"Accept": IMAGE})[2] == MANIFEST
    assert ask(url, "GET", f"/v2/{name}/blobs/{LAYER}")[2] == BLOB


@contextmanager
def workers(count: int, root: Path) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """(url, url of the debug address, the parent)."""
    port, debug = free_port(), free_port()
    environ = {
        **os.environ,
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{debug}",
        "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED": "true",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(root / "data"),
    }
    log = (root / "log").open("wb")
    parent = subprocess.Popen(
        [sys.executable, "-m", "registry", "serve", "--workers", str(count)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    try:
        assert parent.stdout
        assert parent.stdout.readline().startswith(b"Moorage")  # said once all of them answer
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{debug}", parent
    finally:
        parent.terminate()
        parent.communicate(timeout=30)
        log.close()
