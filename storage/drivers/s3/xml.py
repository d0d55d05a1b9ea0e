"""S3's XML: what it answers, bounded in size, and the two bodies that we send.

Answers come from the store that the operator chose, so they are trusted not to be bombs; expat refuses those anyway.
Elements are found by their local names, since not every store sends Amazon's namespace.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from storage.drivers.s3.bucket import Listed, Page, Part, Upload

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class Malformed(Exception):
    """An answer that is not what S3 says."""


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What an <Error> says, and what else of it is used: of a missing range the size, of a wrong region the right."""

    code: str
    message: str = ""
    request_id: str = ""
    size: str = ""
    region: str = ""


def parse(body: bytes, stem: str) -> Element:
    """The root element, whose name must begin so: `ListParts` is ListPartsResult, and ListPartsResponse of moto's.

    Raises Malformed. Spaces may come first, sent by a store that was busy.
    """
    try:
        root = ElementTree.fromstring(body.lstrip())  # noqa: S314 - see the module's docstring
    except (ElementTree.ParseError, ValueError, LookupError) as exc:
        raise Malformed(f"no XML where <{stem}> is expected") from exc
    if not _local(root).startswith(stem):
        raise Malformed(f"<{_local(root)[:40]}> where <{stem}> is expected")
    return root


def parse_error(body: bytes) -> ErrorAnswer | None:
    """None for a body that is no <Error>: proxies answer with HTML."""
    if b"<Error" not in body:
        return None
    try:
        return _error(parse(body, "Error"))
    except Malformed:
        return None


def parse_page(body: bytes) -> Page:
    root = parse(body, "ListBucket")
    decode = unquote_plus if _text(root, "EncodingType") == "url" else str
    objects: list[Listed] = []
    prefixes: list[str] = []
    for element in root:
        match _local(element):
            case "Contents":
                fields = {_local(child): child.text or "" for child in element}
                try:
                    size, modified = int(fields["Size"]), parse_time(fields["LastModified"])
                    objects.append(Listed(decode(fields["Key"]), size, fields.get("ETag", ""), modified))
                except (KeyError, ValueError) as exc:
                    raise Malformed("an entry of a list without its key, size or time") from exc
            case "CommonPrefixes":
                prefixes.append(decode(_text(element, "Prefix")))
    truncated = _text(root, "IsTruncated") == "true"
    token = _text(root, "NextContinuationToken") if truncated else None
    if truncated and not token:
        raise Malformed("a list goes on, and does not say how")
    return Page(objects, prefixes, token)


def parse_parts(body: bytes) -> tuple[list[Part], str | None]:
    """As listed, and the marker of the next page."""
    root = parse(body, "ListParts")
    parts = []
    for element in _children(root, "Part"):
        fields = {_local(child): child.text or "" for child in element}
        try:
            number, size = int(fields["PartNumber"]), int(fields["Size"])
            modified = parse_time(fields["LastModified"])
            parts.append(Part(number, size, fields["ETag"], modified, fields.get("ChecksumCRC32", "")))
        except (KeyError, ValueError) as exc:
            raise Malformed("a part of a list without its number, size or time") from exc
    return parts, _text(root, "NextPartNumberMarker") if _text(root, "IsTruncated") == "true" else None


def parse_uploads(body: bytes) -> tuple[list[Upload], tuple[str, str] | None]:
    """As listed, and the markers (key, upload id) of the next page."""
    root = parse(body, "ListMultipartUploads")
    decode = unquote_plus if _text(root, "EncodingType") == "url" else str
    uploads = []
    for element in _children(root, "Upload"):
        fields = {_local(child): child.text or "" for child in element}
        try:
            uploads.append(Upload(decode(fields["Key"]), fields["UploadId"], parse_time(fields["Initiated"])))
        except (KeyError, ValueError) as exc:
            raise Malformed("an upload of a list without its key, id or time") from exc
    if _text(root, "IsTruncated") != "true":
        return uploads, None
    return uploads, (decode(_text(root, "NextKeyMarker")), _text(root, "NextUploadIdMarker"))


def parse_upload_id(body: bytes) -> str:
    found = _text(parse(body, "InitiateMultipartUpload"), "UploadId")
    if not found:
        raise Malformed("an upload without an id")
    return found


def parse_copied_part(body: bytes) -> tuple[str, float, str]:
    """ETag, time, CRC32."""
    root = parse(body, "CopyPart")
    try:
        return _text(root, "ETag"), parse_time(_text(root, "LastModified")), _text(root, "ChecksumCRC32")
    except ValueError as exc:
        raise Malformed("a copied part without its time") from exc


def parse_deleted(body: bytes) -> ErrorAnswer | None:
    """The first error of an answer to DeleteObjects; a key that is gone already is none."""
    if found := parse_error(body):
        return found
    errors = (_error(element) for element in _children(parse(body, "Delete"), "Error"))
    return next((error for error in errors if error.code != "NoSuchKey"), None)


def parse_time(text: str) -> float:
    """Seconds since 1970 of "2026-11-22T10:00:00.000Z". Raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"a time without its zone: {text}")
    return found.timestamp()


def delete_body(keys: list[str]) -> bytes:
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f'<Delete xmlns="{_NAMESPACE}"><Quiet>true</Quiet>{objects}</Delete>'.encode()


def complete_body(parts: list[Part]) -> bytes:
    """The checksums are named where every part has one: a store that keeps them wants all, others know none."""
    with_checksums = all(part.checksum for part in parts)
    entries = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>"
        + (f"<ChecksumCRC32>{escape(part.checksum)}</ChecksumCRC32>" if with_checksums else "")
        + "</Part>"
        for part in parts
    )
    return f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{entries}</CompleteMultipartUpload>'.encode()


def _error(root: Element) -> ErrorAnswer:
    return ErrorAnswer(
        code=_text(root, "Code"),
        message=_text(root, "Message"),
        request_id=_text(root, "RequestId"),
        size=_text(root, "ActualObjectSize"),
        region=_text(root, "Region"),
    )


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(root: Element, name: str) -> Iterator[Element]:
    return (child for child in root if _local(child) == name)


def _text(root: Element, name: str) -> str:
    return next((child.text or "" for child in _children(root, name)), "")
