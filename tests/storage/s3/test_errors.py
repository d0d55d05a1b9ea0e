"""Every foreign error becomes one of ours; the operator reads what to do, the client nothing that it should not."""

import asyncio
import inspect
import itertools
import logging
from typing import Any

import aiohttp
import pytest

from storage.drivers.s3 import errors
from storage.drivers.s3.bucket import Refused, UploadGone
from storage.drivers.s3.errors import Fault, Operation, Remedy, describe, remedy, translate
from storage.drivers.s3.xml import ErrorAnswer, Malformed
from storage.errors import ObjectNotFound, PreconditionFailed, RangeNotSatisfiable, StorageFull, Unavailable

OPERATIONS = [each for each in vars(errors).values() if isinstance(each, Operation)]


def of(status: int, code: str = "", message: str = "", **headers: str) -> Fault:
    return Fault(status, ErrorAnswer(code, message, "R-1"), headers)


def error(fault: Fault, operation: Operation = errors.GET, *, conditional: bool = False) -> Exception:
    return translate(fault, operation, "bkt", "the/key", conditional=conditional)


@pytest.mark.parametrize(
    ("fault", "operation", "conditional", "kind"),
    [
        (of(404, "NoSuchKey"), errors.GET, False, ObjectNotFound),
        (of(404, "NoSuchVersion"), errors.GET, False, ObjectNotFound),
        (of(404), errors.HEAD, False, ObjectNotFound),
        (of(404), errors.GET, False, Unavailable),  # a proxy's, or another server's
        (of(404, "NoSuchBucket"), errors.GET, False, Unavailable),
        (of(404, "NoSuchBucket"), errors.PUT, True, Unavailable),
        (of(404, "NoSuchKey"), errors.PUT, True, PreconditionFailed),
        (of(404, "NoSuchKey"), errors.DELETE, True, ObjectNotFound),
        (of(404, "NoSuchUpload"), errors.COMPLETE, False, UploadGone),
        (of(404, "NoSuchUpload"), errors.ABORT, False, UploadGone),
        (of(412, "PreconditionFailed"), errors.PUT, True, PreconditionFailed),
        (of(412), errors.HEAD, False, PreconditionFailed),
        (of(409, "ConditionalRequestConflict"), errors.PUT, True, PreconditionFailed),
        (of(409, "OperationAborted"), errors.PUT, False, Unavailable),
        (of(409, "BucketNotEmpty"), errors.PUT, True, Unavailable),
        (of(416, "InvalidRange"), errors.GET, False, RangeNotSatisfiable),
        (of(403, "AccessDenied"), errors.GET, False, Unavailable),
        (of(403), errors.HEAD, False, Unavailable),
        (of(400, "InvalidRequest"), errors.PUT, False, Refused),
        (of(400, "MetadataTooLarge"), errors.PUT, False, Refused),
        (of(400, "ExpiredToken"), errors.PUT, False, Unavailable),
        (of(501, "NotImplemented"), errors.PUT, False, Refused),
        (of(507), errors.PUT, False, StorageFull),
        (of(400, "QuotaExceeded"), errors.PUT, False, StorageFull),
        (of(503, "SlowDown"), errors.GET, False, Unavailable),
        (of(301), errors.GET, False, Unavailable),
        (of(200, "InternalError"), errors.COMPLETE, False, Unavailable),
    ],
)
def test_answers(fault: Fault, operation: Operation, conditional: bool, kind: type[Exception]) -> None:
    assert type(error(fault, operation, conditional=conditional)) is kind


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_no_answer_but_404_says_that_something_does_not_exist(operation: Operation) -> None:
    for status, conditional in itertools.product(range(300, 600), (False, True)):
        found = error(of(status), operation, conditional=conditional)
        assert isinstance(found, Unavailable | PreconditionFailed | RangeNotSatisfiable) or status == 404


def test_the_size_of_a_range_that_is_not_there() -> None:
    for fault, size in [
        (of(416, **{"Content-Range": "bytes */77"}), 77),
        (Fault(416, ErrorAnswer("InvalidRange", size="78")), 78),
        (of(416, "InvalidRange"), -1),
        (of(416, **{"Content-Range": "bytes */*"}), -1),
    ]:
        found = error(fault)
        assert isinstance(found, RangeNotSatisfiable)
        assert found.size == size


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (of(503, "SlowDown"), Remedy.REPEAT),
        (of(503), Remedy.REPEAT),
        (of(500, "InternalError"), Remedy.REPEAT),
        (of(200, "InternalError"), Remedy.REPEAT),
        (of(400, "RequestTimeout"), Remedy.REPEAT),
        (of(429), Remedy.REPEAT),
        (of(502), Remedy.REPEAT),
        (of(400, "ExpiredToken"), Remedy.CREDENTIALS),
        (of(403, "InvalidAccessKeyId"), Remedy.CREDENTIALS),
        (of(403, "RequestTimeTooSkewed"), Remedy.CLOCK),
        (of(400), Remedy.CREDENTIALS),
        (of(403), Remedy.EITHER),
        (of(403, "AccessDenied"), Remedy.NONE),
        (of(404, "NoSuchKey"), Remedy.NONE),
        (of(412), Remedy.NONE),
        (of(501, "NotImplemented"), Remedy.NONE),
        (Fault(0, cause=aiohttp.ServerDisconnectedError()), Remedy.REPEAT),
        (Fault(0, cause=TimeoutError()), Remedy.REPEAT),
        (Fault(0, cause=aiohttp.InvalidURL("x")), Remedy.NONE),
    ],
)
def test_what_is_repeated(fault: Fault, expected: Remedy) -> None:
    assert remedy(fault) is expected


# What the operator reads


@pytest.mark.parametrize(
    ("fault", "operation", "text"),
    [
        (of(403, "AccessDenied", "no"), errors.GET, "allow s3:GetObject on the bucket"),
        (of(403), errors.HEAD, "allow s3:GetObject on the bucket"),
        (of(403, "AccessDenied"), errors.LIST, "allow s3:ListBucket on"),
        (of(403, "AccessDenied"), errors.LIST_UPLOADS, "allow s3:ListBucketMultipartUploads on"),
        (of(404, "NoSuchBucket"), errors.PUT, "there is no such bucket"),
        (of(403, "InvalidAccessKeyId"), errors.PUT, "correct accesskey"),
        (of(403, "SignatureDoesNotMatch"), errors.PUT, "correct secretkey"),
        (of(503, "SlowDown"), errors.PUT, "the store throttles"),
        (of(503), errors.HEAD, "the store throttles"),
        (of(301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-west-3"}), errors.GET, "set region to eu-west-3"),
        (of(301, **{"x-amz-bucket-region": "eu-west-3"}), errors.HEAD, "set region to eu-west-3"),
        (of(307, "TemporaryRedirect", **{"x-amz-bucket-region": "eu-west-3"}), errors.GET, "set region to eu-west-3"),
        (
            Fault(400, ErrorAnswer("AuthorizationHeaderMalformed", region="eu-west-3")),
            errors.GET,
            "region to eu-west-3",
        ),
        (of(418, "Teapot", "short and stout"), errors.GET, "418 Teapot (short and stout)"),
    ],
)
def test_the_log_says_what_to_do(
    fault: Fault, operation: Operation, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = error(fault, operation)
    (record,) = caplog.records
    line = record.getMessage()
    assert record.levelno == logging.ERROR
    assert line.startswith(f"S3 {operation.name} on bucket 'bkt' failed: {fault.status} ")
    assert text in line
    assert ("[request R-1]" in line) == bool(fault.answer.request_id)
    assert "bkt" not in str(found)
    assert "key" not in str(found)


def test_what_is_no_fault_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    for fault in [of(404, "NoSuchKey"), of(412), of(416), of(404, "NoSuchUpload")]:
        error(fault)
    assert not caplog.records


def test_a_line_stays_a_line() -> None:
    line = describe(of(500, "A\nB", "x\r\ny\x1b[0m" + "z" * 5000), errors.GET, "bkt")
    assert line.isprintable()
    assert len(line) < 1000


def test_no_url_of_an_exception_is_logged() -> None:
    for cause in [
        OSError("cannot reach http://user:hidden@proxy:3128/"),
        aiohttp.InvalidURL("https://h/k?X-Amz-Signature=hidden"),
        response_error("https://h/k?X-Amz-Signature=hidden"),
    ]:
        assert "hidden" not in describe(Fault(0, cause=cause), errors.GET, "bkt")


# Every error of aiohttp's


def response_error(url: str) -> aiohttp.ClientResponseError:
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

    return aiohttp.ClientResponseError(
        aiohttp.RequestInfo(URL(url), "GET", CIMultiDictProxy(CIMultiDict()), URL(url)), (), status=400, message="no"
    )


def of_aiohttp() -> list[type[BaseException]]:
    found = [each for _, each in inspect.getmembers(aiohttp, inspect.isclass) if issubclass(each, Exception)]
    # what no request of ours can raise: queues and messages of websockets, warnings of multipart forms
    foreign = (aiohttp.WebSocketError, aiohttp.WSMessageTypeError, aiohttp.EofStream, Warning)
    return [each for each in found if not issubclass(each, foreign)]


def test_there_are_errors_to_enumerate() -> None:
    assert aiohttp.ClientPayloadError in of_aiohttp()
    assert len(of_aiohttp()) > 20


def plain(kind: type[Any]) -> type[Any]:
    """Of that kind, without the arguments that each wants for its text."""
    return type(kind.__name__, (kind,), {"__str__": lambda self: "no route", "message": "no route"})


@pytest.mark.parametrize(
    "kind", [*of_aiohttp(), TimeoutError, ConnectionResetError, asyncio.IncompleteReadError, Malformed]
)
def test_every_error_of_aiohttp_is_caught_and_becomes_unavailable(kind: type[Any]) -> None:
    assert issubclass(kind, errors.FOREIGN)
    made: Any = plain(kind)
    found = error(Fault(0, cause=made.__new__(made)))
    assert type(found) is Unavailable
    assert str(found).startswith("the registry's storage ")
