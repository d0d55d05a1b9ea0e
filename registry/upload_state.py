"""What a client carries between the requests of an upload: the `_state` parameter of Location. Pure.

It is distribution's: base64url(HMAC-SHA256(secret, json) || json), json with Name, UUID, Offset, StartedAt, so that
each can go on with sessions of the other. Ours has more keys, which distribution ignores: `v`, `exp` (seconds since
1970), and `alg` and `sum`, the digest of the bytes so far, from which a closing PUT knows the digest without reading
them again; and `stored`, true where the session is in the store already without a byte. What has no `v` is signed by
distribution, which has all of its sessions in the store. Signed JSON, never a concatenation of fields, and never
anything that has to be unpickled.
"""

import base64
import binascii
import hashlib
import hmac
import json

from storage.digest import HEX_LENGTH, SHA256, Digest
from storage.errors import DigestInvalid, UploadUnknown
from storage.names import RepositoryName
from storage.repository import UploadSession

LIFETIME = 7 * 24 * 3600.0
"""Seconds from the last answer; as long as distribution keeps an abandoned upload by default."""

_MAC = 32
_VERSION = 1


def encode(secret: bytes, name: RepositoryName, session: UploadSession, now: float) -> str:
    """The value of `_state`; it still has to be quoted for a URL."""
    claims: dict[str, object] = {
        "Name": name,
        "UUID": session.id,
        "Offset": session.offset,
        "StartedAt": session.started,
        "v": _VERSION,
        "exp": int(now + LIFETIME),
        "alg": session.algorithm,
    }
    if session.prefix is not None:
        claims["sum"] = str(session.prefix)
    if session.stored:
        claims["stored"] = True
    body = json.dumps(claims, separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(_sign(secret, body) + body).decode("ascii")


def decode(secret: bytes, name: RepositoryName, id: str, state: str, now: float) -> UploadSession:
    """The session that the client was given. Raises UploadUnknown for what nobody with our secret has signed."""
    try:
        raw = base64.b64decode(state.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as exc:
        raise UploadUnknown from exc
    mac, body = raw[:_MAC], raw[_MAC:]
    if not hmac.compare_digest(mac, _sign(secret, body)):
        raise UploadUnknown
    try:
        return _session(json.loads(body), name, id, now)
    except (KeyError, TypeError, ValueError, DigestInvalid) as exc:
        raise UploadUnknown from exc


def _session(claims: dict[str, object], name: RepositoryName, id: str, now: float) -> UploadSession:
    offset, started, expires = claims["Offset"], claims["StartedAt"], claims.get("exp", now)
    algorithm, known = claims.get("alg", SHA256), claims.get("sum")
    if claims["Name"] != name or claims["UUID"] != id:
        raise UploadUnknown  # signed for another repository or session
    if not isinstance(expires, int | float) or expires < now:
        raise UploadUnknown
    if not isinstance(offset, int) or offset < 0 or not isinstance(started, str) or algorithm not in HEX_LENGTH:
        raise UploadUnknown
    prefix = Digest.parse(known) if isinstance(known, str) else None
    stored = "v" not in claims or claims.get("stored") is True
    return UploadSession(id, offset, started, str(algorithm), prefix, stored)


def _sign(secret: bytes, body: bytes) -> bytes:
    return hmac.new(secret, body, hashlib.sha256).digest()
