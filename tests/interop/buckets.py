"""One bucket on a real S3 server that several registries share: what `Lab` is for a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.s3.servers import Keys, S3Server

from .peers import Lab, Program


@dataclass(frozen=True)
class BucketLab:
    """A folder of a bucket. Registries started here keep all of theirs in it, with one and the same configuration."""

    folder: Path
    server: S3Server
    place: tuple[str, str] = field(kw_only=True)
    """Bucket, and `rootdirectory` in it."""

    @classmethod
    def new(cls, folder: Path, server: S3Server) -> "BucketLab":
        return cls(folder, server, place=server.new_root())

    @property
    def store(self) -> str:
        return f"{self.place[1]}/docker/registry/v2/"

    def storage(self, *, keys: Keys | None = None, redirects: bool = False, **more: Any) -> dict[str, Any]:
        """`storage` of the configuration. more: of its sections."""
        return {
            "s3": {**self.server.parameters(*self.place, keys=keys), "v4auth": True},
            "delete": {"enabled": True},
            "redirect": {"disable": not redirects},
            "cache": {"blobdescriptor": ""},
            **more,
        }

    @contextmanager
    def serving(
        self, program: Program, *, storage: dict[str, Any] | None = None, **more: Any
    ) -> Iterator[httpx.Client]:
        with Lab(self.folder).serving(program, storage=storage or self.storage(), **more) as http:
            yield http

    def garbage_collect(self, peer: Program, *options: str) -> str:
        """Run the peer's collector for real on the bucket; what it printed."""
        return Lab(self.folder).garbage_collect(peer, *options, storage=self.storage())

    def listed(self, *ignored: str) -> list[str]:
        """Every key of the store but those below folders called `ignored`."""
        found = [key.removeprefix(self.store) for key in self.server.keys_of(self.place[0], self.store)]
        return [key for key in found if not set(ignored).intersection(key.split("/"))]

    def objects(self, *ignored: str) -> dict[str, bytes]:
        return {key: self.server.content(self.place[0], self.store + key) for key in self.listed(*ignored)}

    def open_uploads(self) -> list[str]:
        """Keys of multipart uploads that are open in this store."""
        found = self.server.open_uploads(self.place[0])
        return [key.removeprefix(self.store) for key in found if key.startswith(self.store)]
