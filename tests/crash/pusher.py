"""A client that pushes, tags, refers and deletes at random, until its registry dies; it writes down each answer."""

import random
from collections.abc import Awaitable, Callable

import httpx

from tests.api import IMAGE, digest_of, image, with_query

from .model import ABSENT, Manifest, Model, Thing, Upload

TAGS = ("latest", "v1", "v2", "v3")
CONFIG = b"{}"


class Died(Exception):
    """No answer came: the registry was killed."""


class Pusher:
    """before_request: called before each one; whoever wants to kill counts them."""

    def __init__(
        self, model: Model, http: httpx.AsyncClient, rng: random.Random, before_request: Callable[[], None]
    ) -> None:
        self.model = model
        self.rng = rng
        self._http = http
        self._before = before_request

    async def work(self) -> None:
        """Until the registry dies."""
        actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.push_blob, 6),
            (self.push_image, 6),
            (self.push_referrer, 3),
            (self.begin_upload, 2),
            (self.go_on_with_upload, 3),
            (self.delete_tag, 1),
            (self.delete_manifest, 1),
            (self.delete_blob, 1),
        ]
        ways, weights = zip(*actions, strict=True)
        try:
            while True:
                await self.rng.choices(ways, weights)[0]()
        except Died:
            return

    async def send(self, method: str, url: str, *expected: int, **more: object) -> httpx.Response:
        self._before()
        try:
            response = await self._http.request(method, url, **more)  # type: ignore[arg-type]
        except httpx.TransportError as exc:
            raise Died from exc
        assert response.status_code in expected, f"{method} {url}: {response.status_code} {response.text[:300]}"
        self.model.acknowledged += 1
        return response

    # Blobs

    def some_bytes(self) -> bytes:
        """Mostly new, sometimes what other clients push, too."""
        if self.rng.random() < 0.2:
            return b"shared %d" % self.rng.randrange(8) * 300
        return self.rng.randbytes(self.rng.choice([0, 1, 100, 5_000, 70_000, 1_500_000]))

    async def push_blob(self) -> None:
        await self.pushed(self.some_bytes())

    async def pushed(self, data: bytes) -> str:
        """A blob, by one of the ways that there are; its digest."""
        digest = digest_of(data)
        thing = self.model.blobs.setdefault(digest, Thing())
        self.model.touched.add(digest)
        start = f"/v2/{self.model.name}/blobs/uploads/"
        way = self.rng.choice(["post", "put", "stream", "chunks"])
        if way == "post":
            thing.attempted(data)
            await self.send("POST", f"{start}?digest={digest}", 201, content=data)
        else:
            location = (await self.send("POST", start, 202)).headers["Location"]
            if way != "put":
                location = await self.patched(location, data, in_chunks=way == "chunks")
            thing.attempted(data)
            body = data if way == "put" else b""
            await self.send("PUT", with_query(location, digest=digest), 201, content=body)
        thing.settled(data)
        return digest

    async def patched(self, location: str, data: bytes, in_chunks: bool) -> str:
        size = self.rng.randint(1, max(1, len(data))) if in_chunks else max(1, len(data))
        for at in range(0, len(data), max(size, len(data) // 4 + 1)):
            piece = data[at : at + max(size, len(data) // 4 + 1)]
            headers = {"Content-Range": f"{at}-{at + len(piece) - 1}"} if in_chunks else {}
            location = (await self.send("PATCH", location, 202, content=piece, headers=headers)).headers["Location"]
        return location

    async def delete_blob(self) -> None:
        """One that no manifest names: a manifest must keep what it names."""
        named = {digest for manifest in self.model.manifests.values() for digest in manifest.blobs}
        free = [d for d, thing in self.model.blobs.items() if thing.present and d not in named]
        if free:
            digest = self.rng.choice(free)
            self.model.touched.add(digest)
            self.model.blobs[digest].attempted(ABSENT)
            await self.send("DELETE", f"/v2/{self.model.name}/blobs/{digest}", 202)
            self.model.blobs[digest].settled(ABSENT)

    # Uploads that stay open over the death of the registry

    async def begin_upload(self) -> None:
        data = self.rng.randbytes(self.rng.choice([3_000, 200_000, 2_500_000]))
        if len(self.model.uploads) < 3:
            location = (await self.send("POST", f"/v2/{self.model.name}/blobs/uploads/", 202)).headers["Location"]
            self.model.uploads.append(Upload(location, data))

    async def go_on_with_upload(self) -> None:
        for upload in self.model.uploads[:1]:
            if upload.acknowledged != upload.sent:
                return  # a request died: first somebody must ask where it stands
            piece = upload.data[upload.sent : upload.sent + max(1, len(upload.data) // self.rng.randint(2, 6))]
            upload.sent += len(piece)
            if piece and upload.sent < len(upload.data):
                response = await self.send("PATCH", upload.location, 202, content=piece)
                upload.acknowledged, upload.location = upload.sent, response.headers["Location"]
            else:
                await self.finish(upload, piece)

    async def finish(self, upload: Upload, rest: bytes) -> None:
        digest = digest_of(upload.data)
        thing = self.model.blobs.setdefault(digest, Thing())
        self.model.touched.add(digest)
        thing.attempted(upload.data)
        if upload in self.model.uploads:
            self.model.uploads.remove(upload)
        await self.send("PUT", with_query(upload.location, digest=digest), 201, content=rest)
        thing.settled(upload.data)

    # Manifests

    async def push_image(self) -> None:
        layers = [await self.have(self.some_bytes()) for _ in range(self.rng.randint(0, 2))]
        await self.put_manifest(image(CONFIG, (*layers,), annotations={"n": str(self.rng.random())}))

    async def push_referrer(self) -> None:
        """To what is here, or to what never was."""
        here = [digest for digest, manifest in self.model.manifests.items() if manifest.present]
        subject = self.rng.choice(here) if here and self.rng.random() < 0.9 else digest_of(b"not here")
        named = {"mediaType": IMAGE, "digest": subject, "size": 100}
        annotations = {"n": str(self.rng.random())}
        body = image(CONFIG, (), artifactType="application/vnd.test", subject=named, annotations=annotations)
        await self.put_manifest(body, subject)

    async def have(self, data: bytes) -> bytes:
        thing = self.model.blobs.get(digest_of(data))
        if thing is None or not thing.present:
            await self.pushed(data)
        return data

    async def put_manifest(self, body: bytes, subject: str | None = None) -> None:
        await self.have(CONFIG)
        digest = digest_of(body)
        blobs = tuple(d for d in self.model.blobs if d.encode() in body)
        manifest = self.model.manifests.setdefault(digest, Manifest(blobs=blobs, subject=subject))
        tags = [self.model.tags.setdefault(tag, Thing()) for tag in self.rng.sample(TAGS, self.rng.randint(0, 2))]
        self.model.touched.add(digest)
        manifest.attempted(body)
        for tag in tags:
            tag.attempted(digest.encode())
        names = [name for name, tag in self.model.tags.items() if any(tag is chosen for chosen in tags)]
        by_tag = len(names) == 1 and self.rng.random() < 0.7
        reference = names[0] if by_tag else f"{digest}?{'&'.join(f'tag={name}' for name in names)}"
        url = f"/v2/{self.model.name}/manifests/{reference}"
        await self.send("PUT", url, 201, content=body, headers={"Content-Type": IMAGE})
        manifest.settled(body)
        for tag in tags:
            tag.settled(digest.encode())

    async def delete_tag(self) -> None:
        present = [name for name, tag in self.model.tags.items() if tag.present]
        if present:
            name = self.rng.choice(present)
            self.model.tags[name].attempted(ABSENT)
            await self.send("DELETE", f"/v2/{self.model.name}/manifests/{name}", 202)
            self.model.tags[name].settled(ABSENT)

    async def delete_manifest(self) -> None:
        """With the tags that name it."""
        present = [digest for digest, manifest in self.model.manifests.items() if manifest.present]
        if present:
            digest = self.rng.choice(present)
            doomed = [tag for tag in self.model.tags.values() if tag.may_be == {digest.encode()}]
            self.model.touched.add(digest)
            for thing in (self.model.manifests[digest], *doomed):
                thing.attempted(ABSENT)
            await self.send("DELETE", f"/v2/{self.model.name}/manifests/{digest}", 202)
            for thing in (self.model.manifests[digest], *doomed):
                thing.settled(ABSENT)
