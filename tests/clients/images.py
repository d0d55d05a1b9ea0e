"""Make images out of nothing, so that no test needs a base image from anywhere.

An image has four layers: a busybox, a text, 30 MB of random bytes (new ones in every run, so no store or registry can
have them already), and a file that differs by platform. Everything is written as an OCI image layout of which we know
every digest before any client has touched it; `write_context` gives the same files to clients that build.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tools import find

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

GREETING = "moored\n"
RANDOM_SIZE = 30_000_000
HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER = "arm64" if HERE != "arm64" else "amd64"
APPLETS = ("sh", "cat", "sha256sum", "cp")
Files = dict[str, bytes | str]
"""Path to content, or to the target of a symbolic link when it is a string."""


def sha256(content: bytes) -> str:
    return digest_of(content, "sha256")


def digest_of(content: bytes, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


@dataclass(frozen=True)
class Layout:
    """An OCI image layout on disk; the references `multi`, HERE and OTHER name its index and the image per platform."""

    path: Path
    digests: dict[str, str]
    """Reference to digest."""
    random_digest: str
    """Digest of the file /random.bin in every image."""

    def blob(self, digest: str) -> bytes:
        return (self.path / "blobs" / digest.replace(":", "/")).read_bytes()

    def manifest(self, reference: str) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.blob(self.digests[reference]))
        return parsed

    def has_copy(self, path: Path, reference: str) -> bool:
        """Whether another layout holds a manifest and everything that it leads to, byte for byte."""
        other = Layout(path, self.digests, self.random_digest)
        return all(other.blob(digest) == self.blob(digest) for digest in self.below(reference))

    def below(self, reference: str) -> list[str]:
        """The digests of a manifest and of everything that it leads to."""
        return self._below(self.digests[reference])

    def _below(self, digest: str) -> list[str]:
        manifest = json.loads(self.blob(digest))
        if "manifests" in manifest:
            return [digest, *(d for child in manifest["manifests"] for d in self._below(child["digest"]))]
        return [digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def write_layout(path: Path) -> Layout:
    """Write an index of two images, one for this machine and one for a platform that this machine is not."""
    random = os.urandom(RANDOM_SIZE)
    shared: list[Files] = [root_files(), {"greeting": GREETING.encode()}, {"random.bin": random}]
    layers = [add_layer(path, files) for files in shared]
    images = {}
    for architecture in (HERE, OTHER):
        own = add_layer(path, {"platform": f"linux/{architecture}\n".encode()})
        images[architecture] = add_image(path, architecture, [*layers, own])
    index = add_json(path, OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(images.values())})
    named = {"multi": index, **images}
    entries = [d | {"annotations": {"org.opencontainers.image.ref.name": name}} for name, d in named.items()]
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return Layout(path, {name: descriptor["digest"] for name, descriptor in named.items()}, sha256(random))


def write_context(path: Path) -> str:
    """Write a build context: Dockerfile, files. Returns the digest of its random.bin."""
    random = os.urandom(RANDOM_SIZE)
    for name, content in root_files().items():
        target = path / "root" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.symlink_to(content)
        else:
            target.write_bytes(content)
            target.chmod(0o755)
    (path / "random.bin").write_bytes(random)
    (path / "greeting").write_text(GREETING)
    (path / "Dockerfile").write_text(
        "FROM scratch\n"
        "COPY root/ /\n"
        "COPY random.bin /random.bin\n"
        "COPY greeting /\n"
        'ENV PATH=/bin\nLABEL test=moorage\nCMD ["cat", "/greeting"]\n'
    )
    return sha256(random)


def write_archive(layout: Layout, archive: Path) -> None:
    """Pack a layout as a tar file, the form that `ctr images import` reads."""
    with tarfile.open(archive, "w") as tar:
        for entry in sorted(layout.path.rglob("*")):
            tar.add(entry, arcname=str(entry.relative_to(layout.path)), recursive=False)


def root_files() -> Files:
    """A root file system of one static program and its names."""
    busybox = find("busybox")
    assert busybox is not None
    return {"bin/busybox": Path(busybox).read_bytes(), **{f"bin/{name}": "busybox" for name in APPLETS}}


def add_layer(path: Path, files: Files) -> dict[str, Any]:
    """Write one layer; its descriptor has the digest of the unpacked tar too, as `diff`, which add_image takes out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    diff = sha256(packed.getvalue())
    return add_blob(path, OCI_LAYER, gzip.compress(packed.getvalue(), compresslevel=1, mtime=0)) | {"diff": diff}


def add_image(path: Path, architecture: str, layers: list[dict[str, Any]]) -> dict[str, Any]:
    config = {
        "created": "2026-01-01T00:00:00Z",
        "os": "linux",
        "architecture": architecture,
        "config": {"Env": ["PATH=/bin"], "Cmd": ["cat", "/greeting"], "Labels": {"test": "moorage"}},
        "rootfs": {"type": "layers", "diff_ids": [layer["diff"] for layer in layers]},
        "history": [{"created_by": "tests/clients/images.py"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": add_json(path, OCI_CONFIG, config),
        "layers": [{key: value for key, value in layer.items() if key != "diff"} for layer in layers],
    }
    return add_json(path, OCI_MANIFEST, manifest) | {"platform": {"os": "linux", "architecture": architecture}}


def add_json(path: Path, media_type: str, value: dict[str, Any]) -> dict[str, Any]:
    return add_blob(path, media_type, json.dumps(value, indent=1).encode())


def add_blob(path: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = sha256(content)
    target = path / "blobs" / digest.replace(":", "/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}
