"""The servers that the other tests rely on: what they keep, refuse and forget."""

import os
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.ports import free_ports
from tests.s3.servers import S3Server, moto_server


@pytest.mark.slow
def test_each_bucket_is_new_and_empty(s3_server: S3Server) -> None:
    one, other = s3_server.new_bucket(), s3_server.new_bucket()
    s3_server.client().put_object(Bucket=one, Key="a/b", Body=b"x")
    assert (s3_server.keys_of(one), s3_server.keys_of(other)) == (["a/b"], [])
    assert s3_server.content(one, "a/b") == b"x"
    upload = s3_server.client().create_multipart_upload(Bucket=other, Key="large")
    assert s3_server.open_uploads(other) == ["large"]
    s3_server.client().abort_multipart_upload(Bucket=other, Key="large", UploadId=upload["UploadId"])
    assert s3_server.open_uploads(other) == []


@pytest.mark.slow
def test_a_root_is_a_folder_of_its_own(s3_server: S3Server) -> None:
    (bucket, one), (same, other) = s3_server.new_root(), s3_server.new_root()
    assert bucket == same
    s3_server.client().put_object(Bucket=bucket, Key=f"{one}/k", Body=b"x")
    assert s3_server.keys_of(bucket, f"{one}/") == [f"{one}/k"]
    assert s3_server.keys_of(bucket, f"{other}/") == []


@pytest.mark.slow
def test_the_reader_may_get_and_list_and_write_nothing(seaweedfs: S3Server) -> None:
    bucket = seaweedfs.new_bucket()
    seaweedfs.client().put_object(Bucket=bucket, Key="k", Body=b"x")
    reader = seaweedfs.client(seaweedfs.reader)
    assert reader.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert reader.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    with pytest.raises(reader.exceptions.NoSuchKey):
        reader.get_object(Bucket=bucket, Key="none")
    writes: dict[str, dict[str, Any]] = {
        "put_object": {"Key": "k", "Body": b"y"},
        "delete_object": {"Key": "k"},
        "copy_object": {"Key": "l", "CopySource": f"{bucket}/k"},
        "create_multipart_upload": {"Key": "l"},
    }
    for verb, arguments in writes.items():
        with pytest.raises(ClientError) as caught:
            getattr(reader, verb)(Bucket=bucket, **arguments)
        assert caught.value.response["Error"]["Code"] == "AccessDenied"
    assert seaweedfs.content(bucket, "k") == b"x"


@pytest.mark.slow
def test_nothing_is_left_of_a_server() -> None:
    with moto_server() as server:
        folder, process = server.folder, server.process
        assert folder.is_dir()
    assert process.returncode is not None
    assert not folder.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(8))) == 8
