"""What a request to S3 is, by its operation's name in AWS's words."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.s3.http1 import Head

LIST, GET, HEAD = "ListObjectsV2", "GetObject", "HeadObject"
READS = frozenset({GET, HEAD, LIST})
"""What a user that may s3:GetObject and s3:ListBucket alone can ask."""

# method, is it about a key, a parameter or header that marks it -> operation; the first that fits
_OPERATIONS = [
    ("GET", True, "uploadid", "ListParts"),
    ("GET", True, "", GET),
    ("GET", False, "list-type", LIST),
    ("GET", False, "uploads", "ListMultipartUploads"),
    ("GET", False, "location", "GetBucketLocation"),
    ("GET", False, "", "ListObjects"),
    ("HEAD", True, "", HEAD),
    ("HEAD", False, "", "HeadBucket"),
    ("PUT", True, "partnumber+x-amz-copy-source", "UploadPartCopy"),
    ("PUT", True, "partnumber", "UploadPart"),
    ("PUT", True, "x-amz-copy-source", "CopyObject"),
    ("PUT", True, "", "PutObject"),
    ("PUT", False, "", "CreateBucket"),
    ("POST", True, "uploads", "CreateMultipartUpload"),
    ("POST", True, "uploadid", "CompleteMultipartUpload"),
    ("POST", False, "delete", "DeleteObjects"),
    ("DELETE", True, "uploadid", "AbortMultipartUpload"),
    ("DELETE", True, "", "DeleteObject"),
    ("DELETE", False, "", "DeleteBucket"),
]


@dataclass
class Call:
    """One request. status: what the client was answered, None where it got no answer (yet).

    stored: what the store answered, where it was asked; fault: the kind of fault that was injected. delivered: bytes of
    the answer's body that went on to the client, so far.
    """

    method: str
    operation: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    status: int | None = None
    stored: int | None = None
    fault: str | None = None
    delivered: int = 0

    def __str__(self) -> str:
        fault = f" [{self.fault}]" if self.fault else ""
        return f"{self.operation} {self.key} {self.status or '-'}{fault}"


def call_of(head: Head) -> Call:
    """The request in path style: /bucket/key?query."""
    method, target = head.start[0], urlsplit(head.start[1])
    bucket, _, key = unquote(target.path).lstrip("/").partition("/")
    query = dict(parse_qsl(target.query, keep_blank_values=True))
    marks = {name.lower() for name in query} | head.fields.keys()
    operation = next(
        (
            name
            for verb, of_key, mark, name in _OPERATIONS
            if verb == method and of_key == bool(key) and set(filter(None, mark.split("+"))) <= marks
        ),
        "Unknown",
    )
    return Call(method, operation, bucket, key, query, head.fields)
