"""Looks at a registry after it was killed: everything acknowledged is there, and nothing is half there."""

import httpx

from tests.api import digest_of

from .model import ABSENT, Model, Upload
from .pusher import Pusher


class Looker:
    """Checks one model against the registry, and settles in it what was open."""

    def __init__(self, model: Model, http: httpx.AsyncClient) -> None:
        self._model = model
        self._http = http

    async def look(self, digests: set[str]) -> None:
        """At these blobs and manifests, and at all tags, lists and open uploads."""
        for digest in sorted(digests):
            if digest in self._model.blobs:
                await self._blob(digest)
            if digest in self._model.manifests:
                await self._manifest(digest)
        await self._tags()
        for subject in sorted({m.subject for d, m in self._model.manifests.items() if d in digests and m.subject}):
            await self._referrers(subject)
        for upload in self._model.uploads:
            await self._upload(upload)

    async def _get(self, path: str, absent: bool = True) -> bytes | None:
        response = await self._http.get(f"/v2/{self._model.name}/{path}")
        assert response.status_code in ((200, 404) if absent else (200,)), f"{path}: {response} {response.text[:300]}"
        return response.content if response.status_code == 200 else ABSENT

    async def _blob(self, digest: str) -> None:
        found = await self._get(f"blobs/{digest}")
        self._model.blobs[digest].seen(found, f"blob {digest}")

    async def _manifest(self, digest: str) -> None:
        found = await self._get(f"manifests/{digest}")
        manifest = self._model.manifests[digest]
        manifest.seen(found, f"manifest {digest}")
        if manifest.present:
            for blob in manifest.blobs:
                head = await self._http.head(f"/v2/{self._model.name}/blobs/{blob}")
                assert head.status_code == 200, f"{digest} is there without its blob {blob}: {head}"

    async def _tags(self) -> None:
        """What is listed pulls, what pulls is listed."""
        response = await self._http.get(f"/v2/{self._model.name}/tags/list")
        assert response.status_code in (200, 404), response.text
        listed = response.json()["tags"] if response.status_code == 200 else []
        for name, tag in self._model.tags.items():
            body = await self._get(f"manifests/{name}", absent=name not in listed)
            assert (body is not ABSENT) == (name in listed)
            digest = ABSENT if body is ABSENT else digest_of(body)
            tag.seen(digest.encode() if digest else ABSENT, f"tag {name}")
            if digest:
                manifest = self._model.manifests[digest]
                manifest.seen(body, f"manifest {digest}, which the tag {name} names")
                assert await self._get(f"manifests/{digest}", absent=False) == body
        assert set(listed) <= set(self._model.tags)

    async def _referrers(self, subject: str) -> None:
        response = await self._http.get(f"/v2/{self._model.name}/referrers/{subject}")
        assert response.status_code == 200, response.text
        listed = {found["digest"] for found in response.json()["manifests"]}
        for digest, manifest in self._model.manifests.items():
            if manifest.subject == subject:
                await self._manifest(digest)
                assert manifest.present == (digest in listed), f"referrer {digest} of {subject}: {manifest.present}"
                listed.discard(digest)
        assert not listed

    async def _upload(self, upload: Upload) -> None:
        """Everything acknowledged is stored; more may be, of what was sent."""
        response = await self._http.get(upload.location)
        assert response.status_code == 204, f"{response} {response.text[:300]}"
        stored = int(response.headers["Range"].removeprefix("0-")) + 1
        if stored == 1 and upload.acknowledged == 0:
            # `0-0` is said of no byte and of one alike: a PATCH without Content-Range goes where the session stands
            stored = upload.acknowledged
            assert upload.sent > 1 or upload.sent == 0
        assert upload.acknowledged <= stored <= upload.sent, (upload.acknowledged, stored, upload.sent)
        upload.acknowledged = upload.sent = stored
        upload.location = response.headers["Location"]

    async def finish_uploads(self, pusher: Pusher) -> None:
        """The bytes before the offset were right, or the digest would be wrong now."""
        for upload in list(self._model.uploads):
            await pusher.finish(upload, upload.data[upload.sent :])
