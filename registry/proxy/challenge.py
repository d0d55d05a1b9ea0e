"""WWW-Authenticate to token requests, and the answers to those. Pure: no I/O, no clock, no HTTP client.

    401, WWW-Authenticate ──parse_challenges──> Challenge ──select──> Bearer or BASIC
    Bearer + scopes + Credentials ──token_request──> TokenRequest
    body of the token server ──parse_token──> Grant

Rules: RFC 9110 section 11.6.1 for the header, docker's "Token Authentication" and RFC 6750 for what it means. What has
two readings is refused, not guessed. Nothing here decides whether a realm may be asked: realms.py does.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from urllib.parse import urlencode, urlsplit

MAX_HEADER = 16 << 10
"""Characters of all WWW-Authenticate headers of an answer that are looked at."""

MIN_LIFETIME = 60.0
"""Seconds. docker's rule: a token is taken to live this long at least, also where the server does not say."""

MAX_LIFETIME = 24 * 3600.0
MAX_TOKEN = 64 << 10
CLIENT = "moorage"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 -- RFC 9110's word for it, not a secret
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|\Z)")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")(?=[ \t]*(?:,|\Z))', re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SENDABLE = re.compile(r"[\x21-\x7e]+")  # RFC 6750 is narrower, but registries are not; no blank and no line end


class ChallengeInvalid(ValueError):
    """What the upstream or its token server says cannot be acted upon. The message holds no secret."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme of a WWW-Authenticate header. scheme and names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bearer:
    """Fetch a token at realm. scope: what the upstream would like to see asked for; may be empty."""

    realm: str
    service: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Basic:
    """Send user and password themselves."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are for an upstream. All empty: nobody. The secrets never show in a repr.

    identity_token: what `docker login` got instead of a password; it buys tokens by POST.
    registry_token: a bearer token to be sent as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def anonymous(self) -> bool:
        return not (self.username or self.identity_token or self.registry_token)

    def basic(self) -> str | None:
        """The value of Authorization with user and password; None where there are none."""
        if not self.username:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


ANONYMOUS = Credentials()


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What to send to a token server. authorization and form hold secrets: they never show in a repr."""

    method: str
    url: str
    authorization: str | None = field(default=None, repr=False)
    form: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """A bearer token and for how many seconds from now it may be used."""

    token: str = field(repr=False)
    lifetime: float


# The header


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Every challenge of all WWW-Authenticate headers of an answer, in order.

    A header is read up to where it is malformed. A challenge that names a parameter twice is left out: two readers
    would take two different realms.
    """
    found: list[Challenge] = []
    room = MAX_HEADER
    for header in headers:
        if len(header) > room:
            break
        room -= len(header)
        found.extend(_challenges(header))
    return tuple(found)


def _challenges(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = _skip(header, 0)
    while at < len(header):
        if (match := _SCHEME.match(header, at)) is None:
            break
        scheme, at = match[1].lower(), match.end()
        parameters: dict[str, str] = {}
        doubled = False
        if (token68 := _TOKEN68.match(header, at)) and not _PARAMETER.match(header, at) and at != match.start():
            at = _skip(header, token68.end())
        else:
            while (match := _PARAMETER.match(header, at)) is not None:
                name = match[1].lower()
                doubled = doubled or name in parameters
                parameters[name] = match[2] if match[3] is None else _ESCAPED.sub(r"\1", match[3])
                at = _skip(header, match.end())
        at = _skip(header, at)
        if not doubled:
            found.append(Challenge(scheme, MappingProxyType(parameters)))
    return found


def _skip(header: str, at: int) -> int:
    """Behind blanks and the commas of a list, which may be empty elements (RFC 9110 section 5.6.1)."""
    while at < len(header) and header[at] in " \t,":
        at += 1
    return at


def select(challenges: Sequence[Challenge]) -> Bearer | Basic | None:
    """The one to answer: Bearer before Basic; None where there is neither.

    Raises ChallengeInvalid where two Bearer challenges name different realms or services: one of them may be forged.
    """
    bearers = {
        Bearer(realm, each.parameters.get("service", ""), each.parameters.get("scope", ""))
        for each in challenges
        if each.scheme == "bearer" and (realm := each.parameters.get("realm"))
    }
    if len({(each.realm, each.service) for each in bearers}) > 1:
        raise ChallengeInvalid("the upstream names two different token servers")
    if bearers:
        return min(bearers, key=lambda each: each.scope)
    return Basic() if any(each.scheme == "basic" for each in challenges) else None


# The token server


def token_request(bearer: Bearer, scopes: Sequence[str], credentials: Credentials) -> TokenRequest:
    """GET as docker does it; POST (OAuth 2, RFC 6749 section 6) where all that we have is an identity token.

    scopes: each becomes a parameter of its own (GET), or they are joined by blanks (POST).
    """
    if credentials.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": bearer.service,
            "client_id": CLIENT,
            "scope": " ".join(scopes),
            "refresh_token": credentials.identity_token,
        }
        return TokenRequest("POST", bearer.realm, form=urlencode(form).encode("ascii"))
    query = [("service", bearer.service)] if bearer.service else []
    query += [("scope", scope) for scope in scopes]
    if credentials.username:
        query.append(("account", credentials.username))
    joint = "&" if urlsplit(bearer.realm).query else "?"
    url = bearer.realm + (joint + urlencode(query) if query else "")
    return TokenRequest("GET", url, authorization=credentials.basic())


def parse_token(body: bytes, *, now: datetime, date: str | None = None) -> Grant:
    """What a token server answered. Raises ChallengeInvalid.

    date: its Date header. issued_at is compared with that, by its own clock, because ours may be wrong; a token that
    it hands out a second time is then not taken for a new one. now: our clock, where it sends no Date.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ChallengeInvalid("the token server did not answer with JSON") from None
    if not isinstance(found, dict):
        raise ChallengeInvalid("the token server did not answer with a JSON object")
    token = found.get("token") or found.get("access_token")
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token) or len(token) > MAX_TOKEN:
        raise ChallengeInvalid("the token server's answer holds no token that can be sent")
    lifetime = min(max(_seconds(found.get("expires_in")), MIN_LIFETIME), MAX_LIFETIME)
    issued = _instant(found.get("issued_at"))
    age = 0.0 if issued is None else ((_date(date) or now) - issued).total_seconds()
    # A token that seems to be from the future, or that has expired, says only that the clocks disagree.
    return Grant(token, lifetime - age if 0.0 < age < lifetime else lifetime)


def _seconds(value: object) -> float:
    """Some servers quote the number."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return found if math.isfinite(found) else 0.0


def _instant(value: object) -> datetime | None:
    """RFC 3339. Go writes nanoseconds, which Python cuts to what it can hold."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
    return None if found is None else found.replace(tzinfo=found.tzinfo or UTC)


def _date(value: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(value) if value else None
    except (ValueError, OverflowError, TypeError):
        return None
    return None if found is None else found.replace(tzinfo=found.tzinfo or UTC)


# docker's form of user and password


def parse_basic(text: str) -> Credentials:
    """The `auth` of docker's config.json: base64 of user:password. Raises ChallengeInvalid."""
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ChallengeInvalid("it is not base64 of user:password") from None
    if not colon or not user:
        raise ChallengeInvalid("it is not base64 of user:password")
    return Credentials(user, password.rstrip("\0"))  # docker pads old ones with zero bytes
