"""Every object key, as a function. The tree is CNCF distribution's, so that both can serve one folder or bucket. Pure.

docker/registry/v2/
├── blobs/<alg>/<xx>/<hex>/data                       the bytes; xx: first two digits of hex
├── repositories/<name>/
│   ├── _layers/<alg>/<hex>/link                      gates blobs: content is the digest whose data is meant
│   ├── _manifests/revisions/<alg>/<hex>/link         gates manifests
│   ├── _manifests/tags/<tag>/current/link            the tag
│   ├── _manifests/tags/<tag>/index/<alg>/<hex>/link  what the tag has ever named
│   ├── _referrers/<alg>/<hex>/<alg>/<hex>/link       ours, a rebuildable hint: subject, then referrer
│   ├── _referrers/scanned                            ours: seconds since 1970; revisions up to then are in the index
│   └── _uploads/<uuid>/{data,startedat}              upload sessions
└── _moorage/                                         ours: secret, scratch, leases, pieces, eviction; others ignore it

A link holds exactly `<alg>:<hex>`, no newline. Nothing of ours lies below `tags/` (it would show as a tag), and no file
called `data` below `blobs/` that is not a blob (distribution's garbage collector would abort).
"""

from storage.digest import Digest
from storage.names import Reference, RepositoryName, Tag

ROOT = "docker/registry/v2"
REPOSITORIES = f"{ROOT}/repositories"
BLOBS = f"{ROOT}/blobs"
SCRATCH = f"{ROOT}/_moorage/scratch"
SECRET = f"{ROOT}/_moorage/secret"
PIECES = f"{ROOT}/_moorage/pieces"
LEASES = f"{ROOT}/_moorage/leases"
EVICTION = f"{ROOT}/_moorage/eviction"
MANIFESTS_FOLDER = "_manifests"
UPLOADS_FOLDER = "_uploads"
CURRENT_LINK = "current/link"


def blob_data(digest: Digest) -> str:
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def repository(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}"


def layer_link(name: RepositoryName, digest: Digest) -> str:
    return f"{repository(name)}/_layers/{digest.algorithm}/{digest.hex}/link"


def manifests(name: RepositoryName) -> str:
    return f"{repository(name)}/{MANIFESTS_FOLDER}"


def revisions(name: RepositoryName) -> str:
    return f"{manifests(name)}/revisions"


def revision(name: RepositoryName, digest: Digest) -> str:
    """The folder of a revision."""
    return f"{revisions(name)}/{digest.algorithm}/{digest.hex}"


def revision_link(name: RepositoryName, digest: Digest) -> str:
    return f"{revision(name, digest)}/link"


def tags(name: RepositoryName) -> str:
    return f"{manifests(name)}/tags"


def tag(name: RepositoryName, tag: Tag) -> str:
    """The folder of a tag."""
    return f"{tags(name)}/{tag}"


def tag_link(name: RepositoryName, tag_: Tag) -> str:
    return f"{tag(name, tag_)}/{CURRENT_LINK}"


def tag_index(name: RepositoryName, tag_: Tag) -> str:
    """The folder of what the tag has ever named."""
    return f"{tag(name, tag_)}/index"


def tag_index_link(name: RepositoryName, tag_: Tag, digest: Digest) -> str:
    return f"{tag_index(name, tag_)}/{digest.algorithm}/{digest.hex}/link"


def referrers(name: RepositoryName) -> str:
    return f"{repository(name)}/_referrers"


def referrers_of(name: RepositoryName, subject: Digest) -> str:
    """The folder of what refers to subject."""
    return f"{referrers(name)}/{subject.algorithm}/{subject.hex}"


def referrer_link(name: RepositoryName, subject: Digest, referrer: Digest) -> str:
    return f"{referrers_of(name, subject)}/{referrer.algorithm}/{referrer.hex}/link"


def referrers_scanned(name: RepositoryName) -> str:
    return f"{referrers(name)}/scanned"


def uploads(name: RepositoryName) -> str:
    return f"{repository(name)}/{UPLOADS_FOLDER}"


def upload(name: RepositoryName, id: str) -> str:
    """The folder of an upload session."""
    return f"{uploads(name)}/{id}"


def upload_data(name: RepositoryName, id: str) -> str:
    return f"{upload(name, id)}/data"


def upload_started(name: RepositoryName, id: str) -> str:
    return f"{upload(name, id)}/startedat"


def blob_lease(digest: Digest) -> str:
    """Of the replica that fetches the blob."""
    return f"{LEASES}/blobs/{digest.algorithm}/{digest.hex}"


def manifest_lease(name: RepositoryName, reference: Reference) -> str:
    """Of the replica that fetches the manifest. Hashed: a name may have as many components as it likes."""
    return f"{LEASES}/manifests/{Digest.of(f'{name} {reference}'.encode()).hex}"


def digest_of_folder(key: str) -> Digest:
    """The digest that a key `.../<alg>/<hex>/link` stands for. Raises DigestInvalid."""
    *_, algorithm, encoded, _ = "", "", *key.split("/")
    return Digest.parse(f"{algorithm}:{encoded}")
