"""Credentials for Amazon ECR by the role of the instance: the one module of the proxy that imports aiobotocore.

Imported only where `ecr: true` asks for it, and aiobotocore only at the first login: that takes most of a second.
GetAuthorizationToken gives a password for 12 hours; it is renewed when half of that is over.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from registry.config.errors import ConfigError
from registry.proxy.challenge import ChallengeInvalid, Credentials, parse_basic
from registry.proxy.credentials import Found
from storage.errors import UpstreamUnavailable

log = logging.getLogger(__name__)

# At DEBUG botocore logs the answers of AWS, and with them the password.
for _name in ("botocore", "aiobotocore"):
    logging.getLogger(_name).setLevel(logging.INFO)

HOST = re.compile(r"([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")
LEAST = 60.0
TIMEOUT = 20.0

Authorize = Callable[[str, str], Awaitable[tuple[str, datetime]]]
"""(region, registry's account) to (base64 of user:password, when it expires)."""


class EcrLogin:
    """A source of credentials (credentials.py). authorize: how AWS is asked; tests give another."""

    def __init__(
        self,
        region: str,
        account: str,
        authorize: Authorize | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._region, self._account = region, account
        self._authorize: Authorize = authorize or get_authorization_token
        self._now = now

    @classmethod
    def of(cls, host: str) -> "EcrLogin":
        """host: of the upstream. Raises ConfigError where that is not ECR's."""
        if (match := HOST.fullmatch(host)) is None:
            raise ConfigError("", "ecr needs an url such as https://123456789012.dkr.ecr.eu-west-1.amazonaws.com")
        return cls(region=match[2], account=match[1])

    async def find(self) -> Found:
        try:
            async with asyncio.timeout(TIMEOUT):
                token, expires = await self._authorize(self._region, self._account)
            credentials = parse_basic(token)
        except ChallengeInvalid:
            raise self._failed("AWS answered without a usable token") from None
        except TimeoutError:
            raise self._failed(f"AWS did not answer within {TIMEOUT:g} s") from None
        left = (expires - self._now()).total_seconds()
        return Found(Credentials(credentials.username, credentials.password), max(left / 2, LEAST))

    def _failed(self, reason: str) -> UpstreamUnavailable:
        log.error("no credentials for ECR in %s: %s", self._region, reason)
        return UpstreamUnavailable("this registry cannot get at its credentials for the upstream")


async def get_authorization_token(region: str, account: str) -> tuple[str, datetime]:
    """Ask AWS, with whatever credentials its SDK finds: the instance's role, a web identity, variables."""
    try:
        from aiobotocore.session import get_session
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as exc:
        raise ConfigError("", "ecr needs aiobotocore: pip install 'moorage[s3]'") from exc
    try:
        async with get_session().create_client("ecr", region_name=region) as client:
            answer = await client.get_authorization_token(registryIds=[account])
        (data,) = answer["authorizationData"]
        return data["authorizationToken"], data["expiresAt"]
    except (BotoCoreError, ClientError, ValueError, KeyError) as exc:
        # botocore's texts name the operation, the error's code and the role, and no secret
        log.error("ECR in %s: %s", region, exc)
        raise UpstreamUnavailable("this registry cannot get at its credentials for the upstream") from exc
