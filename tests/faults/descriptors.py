"""A child process that runs out of file descriptors: its output is what the registry answered meanwhile, as JSON.

python -m tests.faults.descriptors ROOT
"""

import asyncio
import json
import os
import resource
import sys
from contextlib import suppress

import httpx

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, StorageConfig
from registry.serving.lifespan import lifespan
from tests.api import IMAGE, Api, digest_of, image, with_query

NAME = "no/descriptors"
LIMIT = 200
SMALL, LARGE = b"small", b"large " * 400_000
OLD, NEW = image(b"{}", (LARGE,)), image(b"{}", (LARGE,), annotations={"is": "new"})


def open_all() -> list[int]:
    """Take every descriptor that is left."""
    taken: list[int] = []
    with suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    return taken


async def ask(api: Api, location: str) -> dict[str, int]:
    """Status by request."""
    http, statuses = api.http, {}
    blobs, manifests = f"/v2/{NAME}/blobs", f"/v2/{NAME}/manifests"
    typed = {"Content-Type": IMAGE}
    for what, request in {
        "GET manifest": http.get(f"{manifests}/t"),
        "GET blob": http.get(f"{blobs}/{digest_of(LARGE)}"),
        "GET tags": http.get(f"/v2/{NAME}/tags/list"),
        "GET referrers": http.get(f"/v2/{NAME}/referrers/{digest_of(OLD)}"),
        "GET catalog": http.get("/v2/_catalog"),
        "POST": http.post(f"{blobs}/uploads/"),
        "PATCH": http.patch(location, content=SMALL),
        "PUT blob": http.put(with_query(location, digest=digest_of(SMALL)), content=SMALL),
        "PUT manifest": http.put(f"{manifests}/t", content=NEW, headers=typed),
        "DELETE tag": http.delete(f"{manifests}/u"),
    }.items():
        statuses[what] = (await request).status_code
    return statuses


async def main(root: str) -> None:
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": root}, delete=DeleteConfig(enabled=True))
    app = create_app(Config(storage=storage))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as http,
    ):
        api = Api(http)
        for data in (b"{}", LARGE):
            await api.push_blob(NAME, data)
        for tag in ("t", "u"):
            await api.push_manifest(NAME, OLD, tag)
        location = await api.start(NAME)
        before = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        taken = open_all()
        without = await ask(api, location)
        for fd in taken:
            os.close(fd)
        leaked = len(os.listdir("/proc/self/fd")) - before
        tag_now = (await http.get(f"/v2/{NAME}/manifests/t")).content == OLD
        print(json.dumps({"without": without, "leaked": leaked, "tag": tag_now, "after": await ask(api, location)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
