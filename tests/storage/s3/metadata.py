"""The metadata service of an instance, scripted: what gives a machine with a role its credentials."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.storage.s3.scripted import Captured, Reply, Scripted, scripted


def forget_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, wherever botocore looks: those that a test wants it makes itself. folder: of profiles."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def text_of(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Metadata:
    """The instance's metadata service, version 2: a token by PUT, then the role and its credentials."""

    def __init__(self, *expiries: float) -> None:
        self.expiries, self.served = list(expiries), 0

    def __call__(self, request: Captured) -> Reply:
        if request.method == "PUT" and request.path == "/latest/api/token":
            return Reply(body=b"the-token", headers={"x-aws-ec2-metadata-token-ttl-seconds": "21600"})
        if request.headers.get("x-aws-ec2-metadata-token") != "the-token":
            return Reply(401)
        if request.path == "/latest/meta-data/iam/security-credentials/":
            return Reply(body=b"the-role")
        self.served += 1
        expiry = self.expiries.pop(0) if len(self.expiries) > 1 else self.expiries[0]
        found = {"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": f"ASIA{self.served}", "SecretAccessKey": "s"}
        return Reply(body=json.dumps(found | {"Token": f"t{self.served}", "Expiration": text_of(expiry)}).encode())


@asynccontextmanager
async def instance(service: Metadata, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:
    async with scripted(service) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.port}/")
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        yield server
