"""Tests of long bodies that are taken from aiohttp: every byte, every way in which they may end."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from socket import SO_LINGER, SOL_SOCKET

import aiohttp
import pytest

from storage.drivers.s3.body import RestBody
from storage.drivers.s3.bucket import Head
from storage.drivers.s3.errors import Fault
from storage.drivers.s3.taken import ROOM
from storage.ranges import ByteRange

SIZE = 18 << 20
BLOCK = bytes(range(251)) * 4179
"""About 1 MiB, in which no two places a power of two apart are alike."""
CONTENT = (BLOCK * 19)[:SIZE]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Failed(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(repr(fault.cause))


@asynccontextmanager
async def body_of(serve: Serve, patience: float = 30.0) -> AsyncIterator[tuple[RestBody, aiohttp.TCPConnector]]:
    """serve: what follows the head of the answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass  # the client left
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    connector = aiohttp.TCPConnector()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=patience)
    async with server, aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        port = server.sockets[0].getsockname()[1]
        response = await session.get(f"http://127.0.0.1:{port}/")
        body = RestBody(response, Head(SIZE, "", 0, 0), ByteRange(0, SIZE), Failed)
        try:
            yield body, connector
        finally:
            await body.aclose()


async def read(body: RestBody, into: bytearray) -> None:
    async with aclosing(body.chunks()) as chunks:  # type: ignore[type-var] # a generator, by the protocol an iterator
        async for chunk in chunks:
            into += chunk


async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(CONTENT)
    await writer.drain()
    await reader.read()  # until the client closes


async def test_every_byte_comes_and_the_connection_goes() -> None:
    async with body_of(whole) as (body, connector):
        received = bytearray()
        await read(body, received)
        assert received == CONTENT
        assert body.taken
        await body.aclose()
        await body.aclose()
        assert not any(connector._conns.values())  # a second answer on it would have no parser


async def test_a_short_body_is_no_end() -> None:
    async def short(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT[:-5])
        await writer.drain()

    async with body_of(short) as (body, _):
        received = bytearray()
        with pytest.raises(Failed, match="5 bytes too short"):
            await read(body, received)
        assert body.taken
        assert received == CONTENT[:-5]


async def test_a_reset() -> None:
    async def broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT[: SIZE // 2])
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with body_of(broken) as (body, _):
        with pytest.raises(Failed, match=r"ConnectionResetError|too short"):
            await read(body, bytearray())
        assert body.taken


async def test_a_stall_ends_after_the_time_that_aiohttp_was_given() -> None:
    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT[: SIZE // 2])
        await reader.read()

    async with body_of(stalled, patience=0.05) as (body, _):
        with pytest.raises(Failed, match="TimeoutError"):
            await read(body, bytearray())
        assert body.taken


async def test_a_slow_reader_holds_the_store_back() -> None:
    sent = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(0)
        for start in range(0, SIZE, ROOM):
            writer.write(CONTENT[start : start + ROOM])
            await writer.drain()
            sent += ROOM
        await reader.read()

    async with body_of(counted) as (body, _):
        chunks = body.chunks()
        received = bytearray(await anext(chunks))
        while not body.taken:
            received += await anext(chunks)
        before = -1
        while sent != before:  # until nothing more goes into the kernel's buffers, or ours
            before = sent
            for _turn in range(100):
                await asyncio.sleep(0)
        assert sent < SIZE
        async for chunk in chunks:
            received += chunk
        assert received == CONTENT
