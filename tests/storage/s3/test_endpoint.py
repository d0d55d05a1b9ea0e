"""Hosts and paths, Amazon's against botocore's own rules."""

import itertools
from typing import Any

import botocore.session
import pytest

from storage.drivers.s3.endpoint import Endpoint
from storage.drivers.s3.settings import S3Settings


def endpoint(**parameters: object) -> Endpoint:
    return Endpoint.of(S3Settings.parse({"bucket": "bkt", "region": "eu-west-1"} | parameters))


@pytest.fixture(scope="module")
def rules() -> Any:
    from botocore.endpoint_provider import EndpointProvider

    loader = botocore.session.get_session().get_component("data_loader")
    return EndpointProvider(loader.load_service_model("s3", "endpoint-rule-set-1"), loader.load_data("partitions"))


REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-7", "us-gov-west-1", "cn-north-1"]
FLAGS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("bucket", ["my-bucket", "dotted.bucket.example"])
def test_amazons_hosts(rules: Any, region: str, bucket: str) -> None:
    for (dual, fips), path_style in itertools.product(FLAGS, [False, True]):
        if fips and region.startswith("cn-"):  # there is none
            continue
        theirs = rules.resolve_endpoint(
            Bucket=bucket, Region=region, UseDualStack=dual, UseFIPS=fips, ForcePathStyle=path_style
        ).url
        found = endpoint(
            bucket=bucket, region=region, usedualstack=dual, usefipsendpoint=fips, forcepathstyle=path_style
        )
        assert (found.origin + found.path("")).rstrip("/") == theirs, (dual, fips, path_style)


@pytest.mark.parametrize(
    "region", ["us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "us-isof-south-1", "eusc-de-east-1"]
)
def test_hosts_of_other_partitions(rules: Any, region: str) -> None:
    assert endpoint(region=region).origin == rules.resolve_endpoint(Bucket="bkt", Region=region).url


@pytest.mark.parametrize("dual", [False, True])
def test_transfer_acceleration(rules: Any, dual: bool) -> None:
    theirs = rules.resolve_endpoint(Bucket="bkt", Region="eu-west-1", Accelerate=True, UseDualStack=dual).url
    assert endpoint(accelerate=True, usedualstack=dual).origin == theirs


@pytest.mark.parametrize(
    ("parameters", "url"),
    [
        ({"regionendpoint": "http://minio:9000"}, "http://minio:9000/bkt/k"),
        ({"regionendpoint": "minio:9000"}, "https://minio:9000/bkt/k"),
        ({"regionendpoint": "minio:9000", "secure": False}, "http://minio:9000/bkt/k"),
        ({"regionendpoint": "https://minio:443/"}, "https://minio/bkt/k"),
        ({"regionendpoint": "http://store.example.com/base/"}, "http://store.example.com/base/bkt/k"),
        ({"regionendpoint": "https://oss.example.com", "forcepathstyle": False}, "https://bkt.oss.example.com/k"),
        ({"regionendpoint": "http://127.0.0.1:9000", "forcepathstyle": False}, "http://127.0.0.1:9000/bkt/k"),
        ({"regionendpoint": "http://[::1]:9000", "forcepathstyle": False}, "http://[::1]:9000/bkt/k"),
        ({"regionendpoint": "https://s3.eu-west-1.amazonaws.com"}, "https://bkt.s3.eu-west-1.amazonaws.com/k"),
        ({"secure": False}, "http://bkt.s3.eu-west-1.amazonaws.com/k"),
        ({"secure": False, "bucket": "aa.bb"}, "http://aa.bb.s3.eu-west-1.amazonaws.com/k"),
        ({"bucket": "Upper_Case"}, "https://s3.eu-west-1.amazonaws.com/Upper_Case/k"),
    ],
)
def test_urls(parameters: dict[str, object], url: str) -> None:
    found = endpoint(**parameters)
    assert found.origin + found.path("k") == url


def test_odd_keys() -> None:
    assert endpoint().path("a b/ü+~%_-.") == "/a%20b/%C3%BC%2B~%25_-."


@pytest.mark.parametrize("name", ["regionendpoint", "redirectendpoint"])
@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://u:p@h", "http://h?x=1", "http://h:port", "http://h#f"])
def test_what_is_no_endpoint(name: str, url: str) -> None:
    settings = S3Settings.parse({"bucket": "bkt", "region": "r", name: url})
    with pytest.raises(ValueError, match=f"storage driver s3: {name} must be a URL"):
        Endpoint.for_redirects(settings)


def test_where_redirects_lead() -> None:
    settings = S3Settings.parse(
        {"bucket": "bkt", "regionendpoint": "http://inside:9000", "redirectendpoint": "https://cdn.example.com"}
    )
    found = Endpoint.for_redirects(settings)
    assert found.origin + found.path("k") == "https://cdn.example.com/bkt/k"
    assert Endpoint.for_redirects(S3Settings.parse({"bucket": "bkt", "region": "r"})).host == "bkt.s3.r.amazonaws.com"


@pytest.mark.parametrize("url", ["cdn.example.com", "https://cdn.example.com/base"])
def test_redirects_need_a_scheme_and_no_path(url: str) -> None:
    settings = S3Settings.parse({"bucket": "bkt", "region": "r", "redirectendpoint": url})
    with pytest.raises(ValueError, match="redirectendpoint must be a URL"):
        Endpoint.for_redirects(settings)
