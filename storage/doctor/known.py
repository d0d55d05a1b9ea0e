"""By which tags people know the manifests of one repository that findings are about. Pure.

A manifest is known by the tags that name it, and by those of what it belongs to: an index that has it as an image, the
subject that it refers to, and so on upwards. Tags are told last, and only those that are wanted need to be.

Memory: 300 bytes for each image of an index, and for each manifest that is asked for.
"""

from collections.abc import Iterable, Iterator

from storage.digest import Digest
from storage.doctor.findings import Finding, Image
from storage.names import RepositoryName


class Known:
    def __init__(self, name: RepositoryName) -> None:
        self._name = name
        self._above: dict[Digest, list[tuple[str, Digest]]] = {}
        self._asked: dict[Digest, list[Finding]] = {}
        self._tags: dict[Digest, list[str]] = {}

    def index(self, index: Digest, images: Iterable[Digest]) -> None:
        for image in images:
            self._above.setdefault(image, []).append(("index", index))

    def referrer(self, referrer: Digest, subject: Digest) -> None:
        self._above.setdefault(referrer, []).append(("subject", subject))

    def ask(self, finding: Finding, manifest: Digest) -> None:
        """Once for each manifest that the finding is about."""
        self._asked.setdefault(manifest, []).append(finding)

    def wanted(self) -> frozenset[Digest]:
        """The manifests whose tags are to be told. For when all has been asked."""
        return frozenset(digest for manifest in self._asked for _, digest in self._upwards(manifest))

    def tag(self, tag: str, manifest: Digest) -> None:
        self._tags.setdefault(manifest, []).append(tag)

    def answer(self) -> None:
        """Tell the findings."""
        for manifest, findings in self._asked.items():
            images = [
                Image(self._name, str(digest), tag, through)
                for through, digest in self._upwards(manifest)
                for tag in sorted(self._tags.get(digest, ()))
            ]
            for finding in findings:
                finding.concerns(images or [Image(self._name, str(manifest))])

    def _upwards(self, manifest: Digest) -> Iterator[tuple[str, Digest]]:
        """The manifest itself, then all that it belongs to; with what the first step was."""
        waiting, seen = [("", manifest)], {manifest}
        for through, digest in waiting:
            yield through, digest
            for how, above in self._above.get(digest, ()):
                if above not in seen:
                    seen.add(above)
                    waiting.append((through or how, above))
