"""The table of errors against everything that it must agree with: the classes, the spec's codes, the documentation."""

import importlib
import inspect
import json
import logging
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from starlette.requests import Request

import registry
import storage
from registry import errors, headers
from registry.errors import FAULT_CODES, SPEC_CODES, TABLE, RegistryError, Row, error_body, respond, row_of
from registry.serving import refusals
from registry.serving.refusals import Refusal
from storage import errors as storage_errors
from storage.errors import ManifestBlobUnknown, RepositoryUnknown, StorageError, StorageFull, Unavailable, Unsupported
from tests.api import Api, error_of

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"

# distribution-spec, "Error Codes", code-1 to code-14
CODES_OF_THE_SPEC = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
]

NEVER_ANSWERED = {
    RegistryError,  # nobody raises the bases
    StorageError,
    storage_errors.NotFound,
    storage_errors.Invalid,
    storage_errors.ObjectNotFound,  # a driver's word: repositories say what of theirs was not found
}


def classes_of(*modules: ModuleType) -> set[type[Exception]]:
    """The errors of ours that these modules define."""
    return {
        found
        for module in modules
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, StorageError | RegistryError) and found.__module__ == module.__name__
    }


def all_modules() -> Iterator[ModuleType]:
    for package in (registry, storage):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                yield importlib.import_module(info.name)


def test_every_error_has_a_row() -> None:
    """By itself or by an ancestor: what has none would be answered as a bug of ours."""
    defined = classes_of(*all_modules())
    assert defined >= classes_of(storage_errors, errors, headers)
    without = {kind for kind in defined if not any(base in TABLE for base in kind.__mro__)}
    assert without == NEVER_ANSWERED


def test_every_row_is_an_error() -> None:
    assert set(TABLE) <= classes_of(storage_errors, errors, headers)


def test_codes_are_those_of_the_spec() -> None:
    assert frozenset(CODES_OF_THE_SPEC) == SPEC_CODES
    assert len(CODES_OF_THE_SPEC) == 14
    assert not SPEC_CODES & FAULT_CODES


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_code_fits_status(kind: type[Exception]) -> None:
    status, code = TABLE[kind]
    assert 400 <= status < 600
    assert code in (SPEC_CODES if status < 500 else FAULT_CODES)


def all_refusals() -> dict[str, Refusal]:
    return {name: found for name, found in vars(refusals).items() if isinstance(found, Refusal)}


@pytest.mark.parametrize("name", all_refusals())
def test_refusal_of_the_server_is_of_the_same_form(name: str) -> None:
    refusal = all_refusals()[name]
    assert refusal.code in (SPEC_CODES if refusal.status < 500 else FAULT_CODES)
    assert refusal.body() == error_body(refusal.code, refusal.message)


def documented(columns: int) -> dict[str, tuple[int, str]]:
    """The rows of the table with that many columns."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in DOCS.read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]
    found = [row for row in rows if len(row) == columns and row[1].isdigit()]
    assert all(all(row) for row in found), "an empty cell"
    assert len({row[0] for row in found}) == len(found), "a doubled row"
    return {row[0]: (int(row[1]), row[2]) for row in found}


def test_documentation_of_the_table() -> None:
    assert documented(5) == {kind.__name__: tuple(row) for kind, row in TABLE.items()}


def test_documentation_of_the_refusals() -> None:
    assert documented(4) == {name: (refusal.status, refusal.code) for name, refusal in all_refusals().items()}


def test_most_specific_class_decides() -> None:
    assert row_of(StorageFull()) == Row(507, "UNAVAILABLE")
    assert row_of(Unavailable("x")) == Row(503, "UNAVAILABLE")
    assert row_of(storage_errors.DigestUnsupported("md5")) == Row(400, "DIGEST_INVALID")
    assert row_of(headers.UploadRangeReversed("x")) == Row(416, "BLOB_UPLOAD_INVALID")
    assert row_of(headers.QueryInvalid("x", "digest")) == Row(400, "DIGEST_INVALID")
    assert row_of(headers.QueryInvalid("x", "n")) == Row(400, "UNSUPPORTED")
    assert row_of(LookupError("x")) == Row(500, "UNKNOWN")


def test_body() -> None:
    assert json.loads(error_body("DENIED", "no\u2028 \u00e9")) == {
        "errors": [{"code": "DENIED", "message": "no\u2028 \u00e9"}]
    }
    assert json.loads(error_body("DENIED", "no", [1]))["errors"][0]["detail"] == [1]


REQUEST = Request({"type": "http", "method": "GET", "path": "/", "headers": []})


async def answered(exc: Exception) -> tuple[int, dict[str, object], dict[str, str]]:
    """Status, error and headers of the response to an exception."""
    response = await respond(REQUEST, exc)
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.body)
    (error,) = json.loads(bytes(response.body))["errors"]
    return response.status_code, error, dict(response.headers)


async def test_details() -> None:
    _, error, _ = await answered(RepositoryUnknown("a/b"))
    assert error["detail"] == {"name": "a/b"}
    _, error, _ = await answered(ManifestBlobUnknown([f"sha256:{n}" for n in range(200)]))
    assert error["detail"] == [{"digest": f"sha256:{n}"} for n in range(100)]
    _, error, _ = await answered(storage_errors.BlobUnknown("x"))
    assert set(error) == {"code", "message"}


async def test_headers_travel_with_the_error() -> None:
    _, _, found = await answered(errors.MethodNotAllowed("GET, HEAD"))
    assert found["allow"] == "GET, HEAD"
    _, _, found = await answered(errors.Unauthorized('Basic realm="x"'))
    assert found["www-authenticate"] == 'Basic realm="x"'
    _, _, found = await answered(storage_errors.RangeNotSatisfiable(7))
    assert found["content-range"] == "bytes */7"
    _, _, found = await answered(Unsupported("x"))
    assert "allow" in found  # RFC 9110 section 15.5.6: a 405 must have it
    _, _, found = await answered(errors.UploadOffset("x", {"Range": "0-4", "Location": "/x"}))
    assert (found["range"], found["location"]) == ("0-4", "/x")


@pytest.mark.parametrize("exc", [Unavailable("the store fails"), StorageFull()])
async def test_fault_is_asked_about_again(exc: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its cause, which the client is not told."""
    exc.__cause__ = OSError(28, "No space left on device", "/secret/path")
    with caplog.at_level(logging.ERROR):
        status, error, found = await answered(exc)
    assert (status, error["code"]) == (TABLE[type(exc)].status, "UNAVAILABLE")
    assert int(found["retry-after"]) > 0
    assert "/secret/path" not in json.dumps(error)
    assert "/secret/path" in str(caplog.records[0].__dict__["cause"])


async def test_bug_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette raises it on, and the server logs it with its traceback: once is enough."""
    with caplog.at_level(logging.ERROR):
        status, error, found = await answered(LookupError("secret"))
    assert (status, error["code"]) == (500, "UNKNOWN")
    assert "secret" not in str(error)
    assert not caplog.records
    assert "retry-after" not in found


async def test_refusal_is_not_logged_as_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    await answered(storage_errors.BlobUnknown("x"))
    assert not caplog.records


SHAPES = {
    "404": ("GET", "/nope", 404, "UNSUPPORTED"),
    "404-below-v2": ("GET", "/v2/nope", 404, "UNSUPPORTED"),
    "405": ("POST", "/v2/", 405, "UNSUPPORTED"),
    "405-repository": ("PATCH", "/v2/a/tags/list", 405, "UNSUPPORTED"),
    "413": ("PUT", "/v2/a/manifests/v1", 413, "SIZE_INVALID"),
    "414": ("GET", "/v2/a/tags/list?" + "x&" * 300, 414, "UNSUPPORTED"),
    "416": ("PATCH", "", 416, "BLOB_UPLOAD_INVALID"),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_shape(api: Api, shape: str) -> None:
    """The framework's own pages never show: the router's 404 and 405 are JSON too."""
    method, target, status, code = SHAPES[shape]
    content = b" " * (5 << 20) if shape == "413" else b"x" if shape == "416" else None
    fields = {"Content-Range": "9-9"} if shape == "416" else {}
    response = await api.http.request(method, target or await api.start("a"), content=content, headers=fields)
    assert error_of(response) == (status, code)
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert ("Allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("target", ["/nope", "/v2/a/tags/list", "/v2/a/manifests/x", "/v2/UPPER/tags/list"])
async def test_head_has_the_headers_of_get(api: Api, target: str) -> None:
    get, head = await api.http.get(target), await api.http.head(target)
    assert (head.status_code, head.content) == (get.status_code, b"")
    ids = {answer.headers.pop("X-Request-Id") for answer in (get, head)}
    assert len(ids) == 2
    assert head.headers == get.headers


@pytest.mark.parametrize(
    ("exc", "status", "retry"),
    [
        (storage_errors.UpstreamUnavailable("x"), 502, "5"),
        (storage_errors.UpstreamUnavailable("x", 0.2), 502, "1"),
        (storage_errors.UpstreamBusy("x", 7.1), 503, "8"),
        (storage_errors.UpstreamTimeout("x"), 504, "5"),
        (storage_errors.TooManyRequests(), 429, "5"),
        (storage_errors.TooManyRequests(3600), 429, "3600"),
    ],
)
async def test_fault_of_an_upstream_says_when_to_ask_again(exc: Exception, status: int, retry: str) -> None:
    found, _, fields = await answered(exc)
    assert (found, fields["retry-after"]) == (status, retry)
