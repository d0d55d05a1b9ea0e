"""distribution's parameters: names, defaults, bounds."""

import pytest

from storage.drivers.s3.settings import MAX_CHUNK, MIN_CHUNK, S3Settings

LEAST = {"bucket": "b", "region": "eu-west-1"}


def parse(**parameters: object) -> S3Settings:
    return S3Settings.parse(LEAST | parameters)


def test_the_defaults_are_distributions() -> None:
    found = parse()
    assert (found.chunksize, found.multipartcopychunksize, found.multipartcopythresholdsize) == (
        10 << 20,
        32 << 20,
        32 << 20,
    )
    assert (found.multipartcopymaxconcurrency, found.storageclass, found.objectacl) == (100, "STANDARD", "private")
    assert (found.secure, found.encrypt, found.forcepathstyle, found.loglevel) == (True, False, None, False)


def test_other_stores_than_amazons_are_looked_into() -> None:
    assert not parse().checkuploads
    assert not parse(regionendpoint="https://s3.dualstack.eu-west-1.amazonaws.com").checkuploads
    assert parse(regionendpoint="http://localhost:9000").checkuploads
    assert not parse(regionendpoint="http://localhost:9000", checkuploads="false").checkuploads
    assert parse(checkuploads=True).checkuploads


def test_none_and_empty_text_are_not_set() -> None:
    assert parse(accesskey=None, secretkey="", storageclass="", chunksize=None, keyid="") == parse()


@pytest.mark.parametrize(
    ("parameters", "name", "value"),
    [
        ({"forcepathstyle": "true"}, "forcepathstyle", True),
        ({"forcepathstyle": False}, "forcepathstyle", False),
        ({"secure": "F"}, "secure", False),
        ({"chunksize": "5242880"}, "chunksize", MIN_CHUNK),
        ({"chunksize": MAX_CHUNK}, "chunksize", MAX_CHUNK),
        ({"multipartcopythresholdsize": 0}, "multipartcopythresholdsize", 0),
        ({"storageclass": "onezone_ia"}, "storageclass", "ONEZONE_IA"),
        ({"storageclass": "NONE"}, "storageclass", "NONE"),
        ({"objectacl": "bucket-owner-full-control"}, "objectacl", "bucket-owner-full-control"),
        ({"loglevel": "debugwithsigning"}, "loglevel", True),
        ({"loglevel": False}, "loglevel", False),
        ({"loglevel": "off"}, "loglevel", False),
        ({"accesskey": 12345, "secretkey": "s"}, "accesskey", "12345"),
        ({"encrypt": True, "keyid": "k"}, "keyid", "k"),
        ({"region": "", "regionendpoint": "http://h"}, "region", "us-east-1"),
        ({"readtimeout": 5}, "readtimeout", 5.0),
    ],
)
def test_values(parameters: dict[str, object], name: str, value: object) -> None:
    assert getattr(parse(**parameters), name) == value


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"bucket": ""}, "bucket is missing"),
        ({"region": None}, "region is missing"),
        ({"region": "eu west"}, "region is no name"),
        ({"chunksize": MIN_CHUNK - 1}, "chunksize must be a number from 5242880 to 5368709120, not 5242879"),
        ({"chunksize": MAX_CHUNK + 1}, "chunksize must be"),
        ({"chunksize": True}, "chunksize must be"),
        ({"chunksize": "10MB"}, "chunksize must be"),
        ({"multipartcopychunksize": 1}, "multipartcopychunksize must be"),
        ({"multipartcopymaxconcurrency": 0}, "multipartcopymaxconcurrency must be a number from 1, not 0"),
        ({"multipartcopythresholdsize": -1}, "multipartcopythresholdsize must be"),
        ({"maxconnections": 0}, "maxconnections must be"),
        ({"storageclass": "GLACIER"}, "storageclass must be one of NONE, STANDARD"),
        ({"objectacl": "everybody"}, "objectacl must be one of private"),
        ({"objectacl": ["private"]}, "objectacl must be one of private"),
        ({"secure": "maybe"}, "secure must be true or false, not 'maybe'"),
        ({"secure": 1}, "secure must be true or false, not 1"),
        ({"v4auth": False}, "v4auth: false is not supported"),
        ({"accesskey": "a"}, "accesskey and secretkey go together"),
        ({"secretkey": "a"}, "accesskey and secretkey go together"),
        ({"sessiontoken": "a"}, "sessiontoken needs accesskey"),
        ({"keyid": "a"}, "keyid needs encrypt"),
        ({"accelerate": True, "forcepathstyle": True}, "accelerate needs the bucket in the host name"),
        ({"accelerate": True, "bucket": "a.b"}, "accelerate needs the bucket in the host name"),
        ({"accelerate": True, "usefipsendpoint": True}, "exclude each other"),
        ({"useragent": "a\r\nx: y"}, "useragent must be text without line breaks"),
        ({"bucket": ["b"]}, "bucket must be text"),
        ({"bucket": True}, "bucket must be text"),
        ({"readtimeout": 0}, "readtimeout must be a number of seconds above 0"),
        ({"connecttimeout": "5s"}, "connecttimeout must be a number of seconds"),
        ({"buckets": "b", "ducks": 1}, "no such parameter: buckets, ducks"),
    ],
)
def test_what_is_refused(parameters: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match="storage driver s3: ") as caught:
        parse(**parameters)
    assert text in str(caught.value)


def test_no_secret_is_shown() -> None:
    found = parse(accesskey="A", secretkey="hidden-1", sessiontoken="hidden-2")
    assert "hidden" not in repr(found)


def test_no_secret_is_in_an_error() -> None:
    with pytest.raises(ValueError, match="secretkey must be text") as caught:
        parse(accesskey="A", secretkey="hidden\n")
    assert "hidden" not in str(caught.value)
