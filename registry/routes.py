"""Which endpoint a path means: matched from the right, by its fixed words, without a regular expression. Pure.

A repository name may contain any of the fixed words (`a/manifests/b` and `tags/list` are names), so only the end of a
path can say what it is. `raw_path` is what was parsed: `%2F` is a slash everywhere, and `..` is never resolved.
"""

from typing import Literal, NamedTuple

from registry.errors import EndpointUnknown
from storage.errors import DigestInvalid, UploadUnknown

EndpointName = Literal["base", "catalog", "blob", "uploads", "upload", "manifest", "tags", "referrers"]


class Match(NamedTuple):
    """name: of the repository, unchecked.   argument: the digest, reference or session id, unchecked."""

    endpoint: EndpointName
    name: str = ""
    argument: str = ""


_WITH_ARGUMENT: dict[str, EndpointName] = {"manifests": "manifest", "blobs": "blob", "referrers": "referrers"}


def match(path: str) -> Match:
    """Raises EndpointUnknown; DigestInvalid or UploadUnknown where slashes stand in what can only be meant as one."""
    if path in ("/v2/", "/v2"):
        return Match("base")
    if path in ("/v2/_catalog", "/v2/_catalog/"):
        return Match("catalog")
    if not path.startswith("/v2/"):
        raise EndpointUnknown
    head, word, last = path.rsplit("/", 2)
    if word in _WITH_ARGUMENT and last and head.startswith("/v2/") and not (word == "blobs" and last == "uploads"):
        return Match(_WITH_ARGUMENT[word], head[len("/v2/") :], last)
    parts = path[len("/v2/") :].split("/")
    if len(parts) >= 3:
        name = parts[:-2]
        if word == "tags" and last == "list":
            return Match("tags", "/".join(name))
        if word == "blobs" and last == "uploads":
            return Match("uploads", "/".join(name))
        if len(parts) >= 4 and parts[-3] == "blobs" and word == "uploads":
            return Match("upload" if last else "uploads", "/".join(parts[:-3]), last)
        if word == "referrers":
            raise DigestInvalid("a digest is missing behind /referrers/")
    return _nearly(parts)


def _nearly(parts: list[str]) -> Match:
    """No endpoint ends like this; an argument with slashes in it (`sha256:../../etc/passwd`) is told so."""
    for at in range(len(parts) - 2, 0, -1):
        if parts[at] in _WITH_ARGUMENT and ":" in parts[at + 1]:
            raise DigestInvalid("malformed digest: it cannot contain '/'")
        if parts[at - 1 : at + 1] == ["blobs", "uploads"]:
            raise UploadUnknown
    raise EndpointUnknown
