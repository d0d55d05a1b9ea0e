"""Dispatch: what happens when the store fails. Everything else of it is in tests/behaviour."""

import errno
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from registry.app import create_app
from registry.config import Config, StorageConfig
from registry.responses import ZERO_COPY_SEND, ResponseBroken
from registry.serving.filesend import TruncatedFile
from storage import layout
from storage.digest import Digest
from storage.driver import CHUNK
from storage.names import parse_name


def put_sparse(root: Path, size: int) -> Digest:
    """A blob of zeros, straight into the store."""
    digest = Digest("sha256", hashlib.sha256(b"its name does not matter").hexdigest())
    for key, content in (
        (layout.blob_data(digest), b""),
        (layout.layer_link(parse_name("a/b"), digest), str(digest).encode()),
    ):
        (root / key).parent.mkdir(parents=True)
        (root / key).write_bytes(content)
    os.truncate(root / layout.blob_data(digest), size)
    return digest


async def test_a_store_that_fails_within_a_body_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Config(storage=StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path)})))
    digest = put_sparse(tmp_path, 3 * CHUNK)
    path = f"/v2/a/b/blobs/{digest}"
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body"):
            os.truncate(tmp_path / layout.blob_data(digest), 0)

    with pytest.raises(ResponseBroken):
        await app({**scope, "asgi": {"spec_version": "2.4"}, "query_string": b""}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == f"a response broke off: a stored object ends {2 * CHUNK} bytes early"


@pytest.mark.parametrize("fault", [TruncatedFile(), OSError(errno.EIO, "Input/output error")])
async def test_so_is_a_disk_that_fails_while_the_server_sends_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: OSError
) -> None:
    app = create_app(Config(storage=StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path)})))
    path = f"/v2/a/b/blobs/{put_sparse(tmp_path, 3 * CHUNK)}"
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == ZERO_COPY_SEND:
            raise fault

    with pytest.raises(ResponseBroken):
        await app(
            {**scope, "asgi": {"spec_version": "2.4"}, "query_string": b"", "extensions": {ZERO_COPY_SEND: {}}},
            receive,
            send,
        )
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == f"a response broke off: {fault}"
