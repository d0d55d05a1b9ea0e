"""What only the kernel knows of a connection. How connections end is tested in test_protocol.py."""

import asyncio
import socket
from pathlib import Path

from uvicorn.protocols.http.flow_control import FlowControl

from registry.serving.filesend import FileSender
from registry.serving.limits import Limits
from registry.serving.outlet import Outlet


async def test_unsent_counts_what_the_kernel_holds() -> None:
    """The transport hands over all that the kernel takes, long before a client has it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=accepted)
        outlet = Outlet(transport, Limits(), loop, flow=FlowControl(transport), still_sending=lambda: False)
        outlet.write(bytes(400_000))
        assert transport.get_write_buffer_size() == 0
        assert outlet.sent == 400_000
        assert 300_000 < outlet.unsent() <= 400_000
        outlet.abort()
        assert outlet.is_closing()
        await asyncio.sleep(0)  # the loop closes the socket in its next turn
        assert outlet.unsent() == 0


async def test_files_count_as_sent(tmp_path: Path) -> None:
    """Or a client that takes a large file slowly would look like one that takes nothing."""
    loop = asyncio.get_running_loop()
    (tmp_path / "file").write_bytes(bytes(100_000))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=accepted)
        outlet = Outlet(transport, Limits(), loop, flow=FlowControl(transport), still_sending=lambda: False)
        sender = FileSender(loop)
        outlet.write(b"head")
        with (tmp_path / "file").open("rb") as file:
            await sender.send(outlet, file.fileno(), 10_000, 50_000)
        sender.close()
        assert outlet.sent == 50_004
        outlet.abort()
        await asyncio.sleep(0)
