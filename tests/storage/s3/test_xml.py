"""S3's XML, as several stores write it, and what is none."""

import pytest

from storage.drivers.s3 import xml
from storage.drivers.s3.bucket import Listed, Part, Upload
from storage.drivers.s3.xml import ErrorAnswer, Malformed

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
T = "2026-11-22T10:00:00.000Z"
AT = 1795341600.0


@pytest.mark.parametrize("namespace", ["", f" {NAMESPACE}"])
def test_a_page(namespace: str) -> None:
    body = f"""<?xml version="1.0" encoding="UTF-8"?>
    <ListBucketResult{namespace}><Name>b</Name><Prefix>p/</Prefix><EncodingType>url</EncodingType>
    <Contents><Key>p/a%20b+c%2Bd%C3%BC</Key><LastModified>{T}</LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>
    <Contents><Key>p/z</Key><LastModified>2026-11-22T11:00:00+01:00</LastModified><Size>0</Size></Contents>
    <CommonPrefixes><Prefix>p/x%2Fy/</Prefix></CommonPrefixes>
    <IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;u</NextContinuationToken></ListBucketResult>"""
    page = xml.parse_page(body.encode())
    assert page.objects == [Listed("p/a b c+dü", 7, '"e"', AT), Listed("p/z", 0, "", AT)]
    assert (page.prefixes, page.token) == (["p/x/y/"], "t&u")


def test_a_page_that_is_not_encoded() -> None:
    page = xml.parse_page(
        b"<ListBucketResult><CommonPrefixes><Prefix>a+b%20/</Prefix></CommonPrefixes></ListBucketResult>"
    )
    assert (page.objects, page.prefixes, page.token) == ([], ["a+b%20/"], None)


def test_parts() -> None:
    part = f"<Part><PartNumber>2</PartNumber><LastModified>{T}</LastModified><ETag>e</ETag><Size>5</Size>{{}}</Part>"
    for root in ("ListPartsResult", "ListPartsResponse"):  # moto's
        body = f"<{root} {NAMESPACE}>{part.format('<ChecksumCRC32>c==</ChecksumCRC32>')}{part.format('')}</{root}>"
        assert xml.parse_parts(body.encode()) == ([Part(2, 5, "e", AT, "c=="), Part(2, 5, "e", AT)], None)
    more = "<NextPartNumberMarker>2</NextPartNumberMarker><IsTruncated>true</IsTruncated>"
    assert xml.parse_parts(f"<ListPartsResult>{more}</ListPartsResult>".encode()) == ([], "2")


def test_uploads() -> None:
    body = f"""<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
    <NextKeyMarker>a%2Fb</NextKeyMarker><NextUploadIdMarker>i%</NextUploadIdMarker>
    <Upload><Key>a%2Fb</Key><UploadId>i%</UploadId><Initiated>{T}</Initiated></Upload></ListMultipartUploadsResult>"""
    assert xml.parse_uploads(body.encode()) == ([Upload("a/b", "i%", AT)], ("a/b", "i%"))


def test_small_answers() -> None:
    assert (
        xml.parse_upload_id(b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        == "u"
    )
    copied = f"<CopyPartResult><ETag>e</ETag><LastModified>{T}</LastModified></CopyPartResult>"
    assert xml.parse_copied_part(copied.encode()) == ("e", AT, "")


def test_errors() -> None:
    fields = b"<Code>C</Code><Message>M</Message><RequestId>R</RequestId><Region>r</Region>"
    for busy in (b"  \n<?xml version='1.0'?>", b"<?xml version='1.0'?>" + b" " * 9000):
        assert xml.parse_error(busy + b"<Error>" + fields + b"</Error>") == ErrorAnswer("C", "M", "R", "", "r")
    assert xml.parse_error(b"<Error><ActualObjectSize>7</ActualObjectSize></Error>") == ErrorAnswer("", size="7")


@pytest.mark.parametrize("body", [b"", b"<html>Error</html>", b"<Error><Code>", b"<Errors/>", b"{}", b"\xff<Error/>"])
def test_what_is_no_error(body: bytes) -> None:
    assert xml.parse_error(body) in (None, ErrorAnswer(""))


def test_errors_of_deletes() -> None:
    one = "<Error><Key>k</Key><Code>{}</Code></Error>"
    assert xml.parse_deleted(b"<DeleteResult/>") is None
    assert xml.parse_deleted(f"<DeleteResult>{one.format('NoSuchKey')}</DeleteResult>".encode()) is None
    found = xml.parse_deleted(
        f"<DeleteResult>{one.format('NoSuchKey')}{one.format('AccessDenied')}</DeleteResult>".encode()
    )
    assert found == ErrorAnswer("AccessDenied")
    assert xml.parse_deleted(b"<Error><Code>InternalError</Code></Error>") == ErrorAnswer("InternalError")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not xml",
        b"<html/>",
        b"<ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>k</Key><Size>x</Size><LastModified>2026</LastModified></Contents></ListBucketResult>",
        b"<ListPartsResult><Part/></ListPartsResult>",
        b"<ListMultipartUploadsResult><Upload/></ListMultipartUploadsResult>",
        b"<InitiateMultipartUploadResult/>",
        b"<CopyPartResult><LastModified>2026-11-22T10:00:00</LastModified></CopyPartResult>",
        b'<?xml version="1.0" encoding="odd"?><ListBucketResult/>',
    ],
)
def test_what_cannot_be_read(body: bytes) -> None:
    readers = [xml.parse_page, xml.parse_parts, xml.parse_uploads, xml.parse_upload_id, xml.parse_copied_part]
    for reader in readers:
        with pytest.raises(Malformed):
            reader(body)


def test_the_body_of_a_delete() -> None:
    body = xml.delete_body(["a&b", "<c>"])
    assert b"<Quiet>true</Quiet>" in body
    assert b"<Object><Key>a&amp;b</Key></Object><Object><Key>&lt;c&gt;</Key></Object>" in body


def test_the_body_of_a_completion_has_checksums_of_all_parts_or_none() -> None:
    with_one, without = Part(1, 5, '"e"', 0.0, "c=="), Part(2, 5, '"f"', 0.0)
    assert xml.complete_body([with_one]).count(b"<ChecksumCRC32>c==</ChecksumCRC32>") == 1
    assert b"Checksum" not in xml.complete_body([with_one, without])
    assert b'<PartNumber>2</PartNumber><ETag>"f"</ETag>' in xml.complete_body([with_one, without])
