"""The URLs that the registry answers with: relative, unless `http.host` says what clients call it. Pure.

Never from the Host or X-Forwarded-* headers: whoever sends those would decide where other headers point (behaviour
S21).
"""

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from storage.digest import Digest
from storage.names import RepositoryName


@dataclass(frozen=True, slots=True)
class Urls:
    """base: what stands before `/v2/`: "" or "https://registry.example.com", with `http.prefix`; no trailing slash."""

    base: str = ""

    @property
    def is_absolute(self) -> bool:
        return "://" in self.base

    def blob(self, name: RepositoryName, digest: Digest) -> str:
        return f"{self.base}/v2/{name}/blobs/{digest}"

    def manifest(self, name: RepositoryName, reference: object) -> str:
        return f"{self.base}/v2/{name}/manifests/{reference}"

    def upload(self, name: RepositoryName, id: str, state: str) -> str:
        return f"{self.base}/v2/{name}/blobs/uploads/{id}?_state={quote(state, safe='')}"

    def tags(self, name: RepositoryName, **query: str | int) -> str:
        return f"{self.base}/v2/{name}/tags/list?{urlencode(query)}"

    def catalog(self, **query: str | int) -> str:
        return f"{self.base}/v2/_catalog?{urlencode(query)}"

    def referrers(self, name: RepositoryName, subject: Digest, **query: str | int) -> str:
        return f"{self.base}/v2/{name}/referrers/{subject}?{urlencode(query)}"
