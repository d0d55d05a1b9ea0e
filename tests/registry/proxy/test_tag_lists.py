"""Tags of what is proxied: the upstream's and the cache's together, from as few of its pages as it takes."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.config.upstreams import UpstreamConfig
from registry.proxy.repository import MAX_TAGS
from registry.serving.lifespan import lifespan
from storage.errors import UpstreamUnavailable
from storage.repository import TagPage
from tests.api import INDEX, index

from .conftest import Ask
from .scripted import Exchange, Scripted

NAME = "team/app"
LIST = f"/v2/{NAME}/tags/list"


@pytest.fixture
async def http(hub: Scripted, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """`hub` is a named upstream, and the default one."""
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path)})
    app = create_app(Config(storage=storage, upstreams=(UpstreamConfig(url=hub.url, name="hub", default=True),)))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cache") as client,
    ):
        yield client


def tagged(hub: Scripted, *tags: str) -> None:
    for tag in tags:
        hub.image(NAME, tag)


async def pages(http: httpx.AsyncClient, url: str) -> list[list[str]]:
    """All of them, by the links that a client follows."""
    found = []
    following: str | None = url
    while following is not None:
        answer = await http.get(following)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["tags"])
        following = answer.links["next"]["url"] if "next" in answer.links else None
    return found


def by_age(*tags: str) -> object:
    """An upstream that lists in another order, and goes on behind `last` in that order."""

    async def act(exchange: Exchange) -> None:
        last = exchange.seen.query.get("last", [""])[0]
        rest = list(tags[tags.index(last) + 1 if last in tags else 0 :])
        page = rest[: int(exchange.seen.query["n"][0])]
        link = {"Link": f'<{LIST}?n={len(page)}&last={page[-1]}>; rel="next"'} if len(page) < len(rest) else {}
        await exchange.json(200, {"name": NAME, "tags": page}, **link)

    return act


async def test_links_keep_the_upstream(hub: Scripted, http: httpx.AsyncClient) -> None:
    """Without `ns` the next page would be that of another's repository of the name."""
    tagged(hub, "a", "b", "c")
    first = await http.get(f"{LIST}?n=2&ns=hub")
    assert first.links["next"]["url"] == f"{LIST}?n=2&last=b&ns=hub"
    assert await pages(http, f"{LIST}?n=2&ns=hub") == [["a", "b"], ["c"]]
    assert (await http.get(f"{LIST}?n=2")).links["next"]["url"] == f"{LIST}?n=2&last=b"


async def test_a_page_costs_a_page(hub: Scripted, http: httpx.AsyncClient) -> None:
    tags = [f"v{number:03}" for number in range(40)]
    tagged(hub, *tags)
    assert (await http.get(f"{LIST}?n=10")).json()["tags"] == tags[:10]
    assert [seen.target for seen in hub.requests] == [f"{LIST}?n=10", f"{LIST}?n=1&last=v009-"]
    assert sum(await pages(http, f"{LIST}?n=10"), []) == tags  # noqa: RUF017 - four of them
    assert len(hub.requests) == 2 + 7


async def test_the_cache_has_more(hub: Scripted, http: httpx.AsyncClient) -> None:
    """What the upstream has no more is between the others."""
    tagged(hub, "a", "b1", "c", "e")
    for tag in ("b1", "e"):
        assert (await http.get(f"/v2/{NAME}/manifests/{tag}")).status_code == 200
        del hub.manifests[NAME, tag]
    tagged(hub, "d")
    assert await pages(http, f"{LIST}?n=2") == [["a", "b1"], ["c", "d"], ["e"]]
    assert await pages(http, LIST) == [["a", "b1", "c", "d", "e"]]


@pytest.mark.parametrize(
    "order", [["c", "a", "d", "b"], ["b", "c", "d", "a"], ["a", "c", "b", "d"], ["A", "a", "B", "c"]]
)
async def test_another_order(hub: Scripted, http: httpx.AsyncClient, order: list[str]) -> None:
    hub.on("GET", LIST, by_age(*order))  # type: ignore[arg-type]
    assert sum(await pages(http, f"{LIST}?n=3"), []) == sorted(order)  # noqa: RUF017 - two of them


async def test_a_list_in_another_order_is_fetched_once(hub: Scripted, http: httpx.AsyncClient) -> None:
    hub.on("GET", LIST, by_age(*(f"v{number:03}" for number in reversed(range(40)))))  # type: ignore[arg-type]
    assert len(await pages(http, f"{LIST}?n=5")) == 8
    assert [seen.target for seen in hub.requests] == [f"{LIST}?n=5", f"{LIST}?n=1000"]


async def test_an_upstream_that_knows_no_last(hub: Scripted, ask: Ask) -> None:
    async def everything(exchange: Exchange) -> None:
        await exchange.json(200, {"name": "a/b", "tags": ["a", "b", "c"]})

    hub.on("GET", "/v2/a/b/tags/list", everything)
    repository = ask(hub)
    assert await repository.list_tags("", 2) == TagPage(["a", "b"], True)
    assert await repository.list_tags("a", 2) == TagPage(["b", "c"], False)
    assert await repository.list_tags("b&n=1", 5) == TagPage(["c"], False)
    assert hub.requests[-2].query["last"] == ["b&n=1"]


async def test_a_list_without_end(hub: Scripted, ask: Ask) -> None:
    """Memory is bounded."""
    number = 0

    async def more(exchange: Exchange) -> None:
        nonlocal number
        number += 1
        tags = [f"{number}-{each}" for each in range(20_000)]
        await exchange.json(200, {"tags": tags}, Link=f'</v2/a/b/tags/list?page={number}>; rel="next"')

    hub.on("GET", "/v2/a/b/tags/list", more)
    with pytest.raises(UpstreamUnavailable, match="does not end"):
        await ask(hub).all_tags()
    assert number == MAX_TAGS // 20_000 + 1


async def test_links_of_referrers_keep_the_upstream(
    hub: Scripted, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.handlers.referrers._PAGE_BYTES", 1)
    subject = hub.image(NAME, "v1")
    for number in range(2):
        body = index().replace(
            b"{",
            b'{"subject": {"mediaType": "%s", "digest": "%s", "size": 1}, "n": %d, '
            % (INDEX.encode(), str(subject).encode(), number),
            1,
        )
        hub.image(NAME, f"r{number}", body)
    first = await http.get(f"/v2/{NAME}/referrers/{subject}?ns=hub")
    assert first.links["next"]["url"].endswith("&ns=hub")
    assert len((await http.get(first.links["next"]["url"])).json()["manifests"]) == 1
