"""Distribution's metrics, for which operators have dashboards: we have their names and labels, or docs say why not."""

from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.app import create_app
from registry.config import StorageConfig
from registry.metrics.catalogue import FAMILIES
from registry.serving.server import running
from tests.interop.peers import V2, V3, Program, started, write_config
from tests.ports import free_port

from .serving import BLOB, LAYER, OCTETS, push
from .test_page import measured, page_of
from .tools import Samples, total, value

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


@dataclass(frozen=True)
class Theirs:
    """As Prometheus' parser calls it: a counter without `_total`. of: the versions that have it."""

    name: str
    labels: frozenset[str]
    of: tuple[Program, ...] = (V2, V3)


def theirs(name: str, *labels: str, of: tuple[Program, ...] = (V2, V3)) -> Theirs:
    return Theirs(name, frozenset(labels), of)


SHARED = (
    theirs("registry_http_in_flight_requests", "handler"),
    theirs("registry_http_request_duration_seconds", "handler", "method"),
    theirs("registry_http_request_size_bytes", "handler"),
    theirs("registry_http_requests", "handler", "code", "method"),
    theirs("registry_http_response_size_bytes", "handler"),
    theirs("registry_storage_action_seconds", "driver", "action"),
    theirs("registry_storage_cache", "type", of=(V2,)),
    theirs("registry_storage_cache_requests", of=(V3,)),
    theirs("registry_storage_cache_hits", of=(V3,)),
    *(
        theirs(f"registry_proxy_{each}", "type", of=(V3,))
        for each in ("requests", "hits", "misses", "pulled_bytes", "pushed_bytes")
    ),
)

NOT_OURS = (
    theirs("registry_storage_cache_errors", of=(V3,)),
    theirs("registry_notifications_events", "type", "endpoint", of=(V3,)),
    theirs("registry_notifications_pending", "endpoint", of=(V3,)),
    theirs("registry_notifications_status", "code", "endpoint", of=(V3,)),
)


@pytest.mark.parametrize("each", SHARED, ids=lambda each: each.name)
def test_ours_has_the_name_and_the_labels(each: Theirs) -> None:
    """A label more leaves sums as they were."""
    assert each.labels <= set(FAMILIES[each.name].labels)


@pytest.mark.parametrize("each", NOT_OURS, ids=lambda each: each.name)
def test_what_ours_lacks_is_explained(each: Theirs) -> None:
    assert each.name not in FAMILIES
    _, _, why = DOCS.read_text().partition("What distribution has and we do not")
    assert each.name in why or f"{each.name.rpartition('_')[0]}_*" in why


@pytest.mark.slow
@pytest.mark.parametrize("peer", [V2, V3], ids=lambda peer: peer.name)
def test_what_distribution_exports_is_in_these_lists(peer: Program, tmp_path: Path) -> None:
    if peer.path is None:
        pytest.skip(f"not installed: {peer.install}")
    port, debug = free_port(), free_port()
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "data")}, "cache": {"blobdescriptor": "inmemory"}}
    http = {
        "addr": f"127.0.0.1:{port}",
        "debug": {"addr": f"127.0.0.1:{debug}", "prometheus": {"enabled": True, "path": "/metrics"}},
    }
    config = write_config(tmp_path, tmp_path / "data", port, storage=storage, http=http)
    with started(peer, config, port, tmp_path / "log"):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            place = httpx.URL(client.post("/v2/a/b/blobs/uploads/").headers["Location"])
            put = client.put(place.copy_merge_params({"digest": LAYER}), content=BLOB, headers=OCTETS)
            assert put.status_code == 201
            assert client.head(f"/v2/a/b/blobs/{LAYER}").status_code == 200
        page = httpx.get(f"http://127.0.0.1:{debug}/metrics", trust_env=False).text
    exported = {
        family.name: frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        for family in text_string_to_metric_families(page)
        if family.name.startswith("registry_")
    }
    known = {each.name: each.labels for each in SHARED + NOT_OURS if peer in each.of}
    assert exported == {name: labels for name, labels in known.items() if name in exported}
    quiet = {each.name for each in NOT_OURS if each.name.startswith("registry_notifications")}  # nobody is notified
    assert known.keys() - exported.keys() <= quiet


@pytest.mark.slow
def test_caches_are_counted_by_both_names(tmp_path: Path) -> None:
    app = create_app(measured(StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path)})))
    with running(app) as server:
        push(server.url)
        before = page_of(app)
        for _ in range(3):
            assert httpx.get(f"{server.url}/v2/a/b/manifests/v1", trust_env=False).status_code == 200
        after = page_of(app)

    def grown(name: str, **labels: str) -> float:
        def of(found: Samples) -> float:
            return value(found, name, cache="manifests", **labels) or 0.0

        return of(after) - of(before)

    requests, hits = grown("registry_storage_cache_requests_total"), grown("registry_storage_cache_hits_total")
    assert requests == 3
    assert hits >= 2
    assert [grown("registry_storage_cache_total", type=kind) for kind in ("Request", "Hit", "Miss")] == [
        requests,
        hits,
        requests - hits,
    ]
    assert total(after, "registry_storage_cache_requests_total", cache="links") == 0
