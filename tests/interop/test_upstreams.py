"""CNCF distribution as an upstream: what the proxy reads from it, with no login, with a password, with tokens."""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from registry.config.upstreams import UpstreamConfig
from registry.proxy.repository import UpstreamRepository
from registry.proxy.upstream import Upstream
from storage.digest import Digest
from storage.errors import BlobUnknown, ManifestUnknown, RepositoryUnknown, UpstreamDenied, UpstreamUnavailable
from storage.names import Tag, parse_name
from storage.ranges import RangeRequest
from tests.api import INDEX, index
from tests.registry.proxy.scripted import Exchange, Scripted, scripted

from .content import Content
from .corpora import noise
from .peers import Lab, Program

pytestmark = [pytest.mark.interop, pytest.mark.slow]

USER, PASSWORD = "carol", "canary: a Pa55word"
SERVICE, ISSUER = "peer", "issuer of the test"
NOWHERE = Digest.of(b"nowhere")
V1 = Tag("v1")


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """Makes tokens as distribution wants them: a JWT whose key is certified in `x5c` (docker's JWT specification)."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("tokens.test")
        folder.mkdir(parents=True, exist_ok=True)
        self.bundle = folder / "tokens.pem"
        authority.cert_pem.write_to_path(str(self.bundle))
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
        self._x5c = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()

    def token(self, *access: tuple[str, list[str]]) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [self._x5c]}
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "iat": now, "nbf": now - 10, "exp": now + 300, "jti": "1"}
        rights = [{"type": "repository", "name": name, "actions": actions} for name, actions in access]
        parts = [json.dumps(part).encode() for part in (header, {**claims, "access": rights})]
        signed = ".".join(map(unpadded, parts))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{unpadded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    async def serve(self, exchange: Exchange) -> None:
        """A token server: carol may pull what she asks for."""
        if exchange.seen.headers.get("authorization") != basic(USER, PASSWORD):
            await exchange.error(401, "UNAUTHORIZED")
            return
        scopes = [scope.split(":") for scope in exchange.seen.query.get("scope", [])]
        granted = [(name, ["pull"]) for kind, name, _ in scopes if kind == "repository"]
        await exchange.json(200, {"token": self.token(*granted), "expires_in": 300})


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def open_peer(lab: Lab, peer: Program) -> Iterator[httpx.Client]:
    with lab.serving(peer) as http:
        yield http


@contextmanager
def password_peer(lab: Lab, peer: Program) -> Iterator[httpx.Client]:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    path = lab.folder / "htpasswd"
    path.write_text(f"{USER}:{hashed}\n")
    with lab.serving(peer, auth={"htpasswd": {"realm": "peer, \\ of the test", "path": str(path)}}) as http:
        http.auth = (USER, PASSWORD)
        yield http


@contextmanager
def token_peer(lab: Lab, peer: Program, signer: Signer, tokens: Scripted) -> Iterator[httpx.Client]:
    settings = {
        "realm": f"{tokens.url}/token",
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(signer.bundle),
    }
    tokens.on("GET", "/token", signer.serve)
    with lab.serving(peer, auth={"token": settings}) as http:
        http.headers["Authorization"] = f"Bearer {signer.token(('a/b', ['pull', 'push']), ('c', ['pull', 'push']))}"
        yield http


@asynccontextmanager
async def upstream(http: httpx.Client, **settings: Any) -> AsyncIterator[Callable[[str], UpstreamRepository]]:
    made = Upstream(UpstreamConfig(url=str(http.base_url), **settings), environ={})
    try:
        yield lambda name: UpstreamRepository(made, parse_name(name))
    finally:
        await made.aclose()


async def check_all(content: Content, http: httpx.Client, repository: UpstreamRepository) -> None:
    """Push, and read each thing in each way."""
    image = content.image(http, "a/b", noise("a", 3_000_000), tag="v1")
    for tag in ("v2", "V3", "0"):
        media_type, body = content.of("a/b").manifests[image["digest"]]
        content.manifest(http, "a/b", body, media_type, tag=tag)
    held = content.of("a/b")
    found = await repository.fetch_manifest(V1)
    assert found is not None
    media_type, body = held.manifests[image["digest"]]
    assert (str(found.manifest.digest), found.manifest.media_type) == (image["digest"], media_type)
    assert found.manifest.body == body
    assert found.etag is not None
    assert await repository.fetch_manifest(V1, found.etag) is None
    assert await repository.head_manifest(V1, found.etag) is None
    assert (await repository.get_manifest(found.manifest.digest)).body == body
    head = await repository.head_manifest(V1)
    assert head is not None
    assert (head.digest, head.size) == (found.manifest.digest, len(body))
    for digest, data in held.blobs.items():
        assert await repository.stat_blob(Digest.parse(digest)) == len(data)
        for wanted in (None, RangeRequest(0, 1), RangeRequest(1), RangeRequest(suffix=1)):
            async with await repository.open_blob(Digest.parse(digest), wanted) as reader:
                got = b"".join([chunk async for chunk in reader.chunks()])
            assert got == data[reader.span.start : reader.span.stop]
            assert reader.size == len(data)
    assert await repository.all_tags() == sorted(held.tags)


async def check_unknown(repository: UpstreamRepository, nothing: UpstreamRepository) -> None:
    for call in (repository.get_manifest(Tag("none")), repository.head_manifest(Tag("none"))):
        with pytest.raises(ManifestUnknown):
            await call
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(NOWHERE)
    with pytest.raises(BlobUnknown):
        await repository.open_blob(NOWHERE)
    with pytest.raises(RepositoryUnknown):
        await nothing.all_tags()


async def test_without_login(lab: Lab, peer: Program) -> None:
    with open_peer(lab, peer) as http:
        async with upstream(http) as of:
            await check_all(Content(), http, of("a/b"))
            await check_unknown(of("a/b"), of("none"))


async def test_referrers_of_a_peer_that_does_not_know_them(lab: Lab, peer: Program) -> None:
    """Those under the fallback tag."""
    content = Content()
    with open_peer(lab, peer) as http:
        subject = content.image(http, "a/b", noise("a", 100), tag="v1")
        async with upstream(http) as of:
            assert await of("a/b").list_referrers(Digest.parse(subject["digest"])) == []
            content.manifest(http, "a/b", index(subject), INDEX, tag=subject["digest"].replace(":", "-"))
            (found,) = await of("a/b").list_referrers(Digest.parse(subject["digest"]))
            assert str(found.digest) == subject["digest"]


async def test_with_a_password(lab: Lab, peer: Program) -> None:
    with password_peer(lab, peer) as http:
        async with upstream(http, username=USER, password=PASSWORD) as of:
            await check_all(Content(), http, of("a/b"))
            await check_unknown(of("a/b"), of("none"))
        async with upstream(http, username=USER, password="wrong") as of:
            with pytest.raises((UpstreamDenied, UpstreamUnavailable)):
                await of("a/b").get_manifest(V1)
        async with upstream(http) as of:
            with pytest.raises(UpstreamDenied):
                await of("a/b").get_manifest(V1)


async def test_with_tokens(lab: Lab, peer: Program) -> None:
    """One login for a repository, however much is read; the realm must be listed."""
    signer = Signer(lab.folder)
    async with scripted() as tokens:
        realms = (f"127.0.0.1:{tokens.port}",)
        with token_peer(lab, peer, signer, tokens) as http:
            async with upstream(http, username=USER, password=PASSWORD, realms=realms) as of:
                await check_all(Content(), http, of("a/b"))
                assert tokens.count("GET", "/token") == 1
                await check_unknown(of("a/b"), of("none"))
                assert tokens.count("GET", "/token") == 2
            async with upstream(http, username=USER, password="wrong", realms=realms) as of:
                with pytest.raises(UpstreamUnavailable):
                    await of("a/b").get_manifest(V1)
            seen = len(tokens.requests)
            async with upstream(http, username=USER, password=PASSWORD) as of:
                with pytest.raises(UpstreamUnavailable):
                    await of("a/b").get_manifest(V1)
            assert len(tokens.requests) == seen


async def test_a_peer_that_is_stopped(lab: Lab, peer: Program) -> None:
    content = Content()
    with open_peer(lab, peer) as http:
        content.image(http, "a/b", noise("a", 100), tag="v1")
        address = http.base_url
    async with upstream(httpx.Client(base_url=address)) as of:
        for call in (of("a/b").get_manifest(V1), of("a/b").open_blob(NOWHERE), of("a/b").all_tags()):
            with pytest.raises(UpstreamUnavailable):
                await call
