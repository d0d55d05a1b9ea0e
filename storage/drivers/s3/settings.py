"""What `storage.s3` may say: distribution's parameters, parsed once.

The names, bounds and defaults are those of registry:2 and registry:3. Where the two differ, or where theirs would only
fail later, the field says what we do. `cabundle`, `checkuploads`, `connecttimeout`, `readtimeout` and
`maxconnections` are ours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

MIN_CHUNK: Final = 5 << 20
MAX_CHUNK: Final = 5 << 30
"""S3's own bounds for a part that is not the last, and for what one request may send or copy."""

STORAGE_CLASSES: Final = (
    "NONE",
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "OUTPOSTS",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
)
"""NONE: name no class in requests, for stores that know none. Those that need a restore before a read are missing."""

ACLS: Final = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)

_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_REGION = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Settings:
    """Sizes in bytes, times in seconds; "" is "not said".

    forcepathstyle: None: path style where regionendpoint is set and is not Amazon's (registry:2 always does so then,
    registry:3 never), else the bucket in the host name. loglevel: whether each call is logged.
    checkuploads: look for the object after the end of an upload in parts: stores other than Amazon's have been seen to
    answer 200 and to have nothing (SeaweedFS #8908).
    """

    bucket: str
    region: str
    accesskey: str = ""
    secretkey: str = field(default="", repr=False)
    sessiontoken: str = field(default="", repr=False)
    regionendpoint: str = ""
    redirectendpoint: str = ""
    forcepathstyle: bool | None = None
    encrypt: bool = False
    keyid: str = ""
    secure: bool = True
    skipverify: bool = False
    chunksize: int = 10 << 20
    multipartcopychunksize: int = 32 << 20
    multipartcopymaxconcurrency: int = 100
    multipartcopythresholdsize: int = 32 << 20
    rootdirectory: str = ""
    storageclass: str = "STANDARD"
    objectacl: str = "private"
    useragent: str = ""
    usedualstack: bool = False
    accelerate: bool = False
    usefipsendpoint: bool = False
    loglevel: bool = False
    cabundle: str = ""
    checkuploads: bool = False
    connecttimeout: float = 5.0
    readtimeout: float = 30.0
    maxconnections: int = 1000

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> "S3Settings":
        """Raises ValueError with a sentence that names the parameter."""
        return _Reader(parameters).settings()


class _Reader:
    """One pass over the parameters. None and "" mean that a parameter is not set, as in distribution."""

    def __init__(self, parameters: Mapping[str, object]) -> None:
        unknown = sorted(set(parameters) - set(S3Settings.__dataclass_fields__) - {"v4auth"})
        if unknown:
            raise ValueError(f"storage driver s3: no such parameter: {', '.join(unknown)}")
        self.given = {name: value for name, value in parameters.items() if value is not None and value != ""}

    def settings(self) -> S3Settings:
        found = S3Settings(
            bucket=self.text("bucket"),
            region=self.text("region"),
            accesskey=self.text("accesskey"),
            secretkey=self.text("secretkey"),
            sessiontoken=self.text("sessiontoken"),
            regionendpoint=self.text("regionendpoint"),
            redirectendpoint=self.text("redirectendpoint"),
            keyid=self.text("keyid"),
            rootdirectory=self.text("rootdirectory"),
            useragent=self.text("useragent"),
            cabundle=self.text("cabundle"),
            forcepathstyle=self.boolean("forcepathstyle") if "forcepathstyle" in self.given else None,
            secure=self.boolean("secure", True),
            checkuploads=self.boolean("checkuploads", self.is_foreign()),
            encrypt=self.boolean("encrypt"),
            skipverify=self.boolean("skipverify"),
            usedualstack=self.boolean("usedualstack"),
            accelerate=self.boolean("accelerate"),
            usefipsendpoint=self.boolean("usefipsendpoint"),
            chunksize=self.integer("chunksize", 10 << 20, MIN_CHUNK, MAX_CHUNK),
            multipartcopychunksize=self.integer("multipartcopychunksize", 32 << 20, MIN_CHUNK, MAX_CHUNK),
            multipartcopymaxconcurrency=self.integer("multipartcopymaxconcurrency", 100, 1, None),
            multipartcopythresholdsize=self.integer("multipartcopythresholdsize", 32 << 20, 0, MAX_CHUNK),
            storageclass=self.choice("storageclass", "STANDARD", STORAGE_CLASSES),
            objectacl=self.choice("objectacl", "private", ACLS),
            loglevel=str(self.given.get("loglevel", "")).lower().startswith("debug"),
            connecttimeout=self.seconds("connecttimeout", 5.0),
            readtimeout=self.seconds("readtimeout", 30.0),
            maxconnections=self.integer("maxconnections", 1000, 1, None),
        )
        return self.checked(found)

    def is_foreign(self) -> bool:
        """Is the store another one than Amazon's?"""
        endpoint = self.text("regionendpoint")
        return bool(endpoint) and ".amazonaws." not in endpoint

    def checked(self, found: S3Settings) -> S3Settings:
        """What one parameter says of another."""
        if not found.bucket:
            raise ValueError("storage driver s3: bucket is missing")
        if not found.region:
            if not found.regionendpoint:
                raise ValueError("storage driver s3: region is missing; it may be left out beside regionendpoint alone")
            found = replace(found, region="us-east-1")  # what stores that know no regions sign with
        if not _REGION.fullmatch(found.region):
            raise ValueError(f"storage driver s3: region is no name of a region: {found.region!r}")
        if not self.boolean("v4auth", True):
            raise ValueError("storage driver s3: v4auth: false is not supported: requests are signed with version 4")
        if bool(found.accesskey) != bool(found.secretkey):
            raise ValueError("storage driver s3: accesskey and secretkey go together, or leave out both")
        if found.sessiontoken and not found.accesskey:
            raise ValueError("storage driver s3: sessiontoken needs accesskey and secretkey")
        if found.keyid and not found.encrypt:
            raise ValueError("storage driver s3: keyid needs encrypt: true")
        if found.accelerate and (found.forcepathstyle or "." in found.bucket):
            raise ValueError("storage driver s3: accelerate needs the bucket in the host name: no dots, no path style")
        if found.accelerate and found.usefipsendpoint:
            raise ValueError("storage driver s3: accelerate and usefipsendpoint exclude each other")
        return found

    def text(self, name: str) -> str:
        found = self.given.get(name, "")
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise ValueError(f"storage driver s3: {name} must be text")
        if _CONTROL.search(str(found)):
            raise ValueError(f"storage driver s3: {name} must be text without line breaks and control characters")
        return str(found)

    def boolean(self, name: str, default: bool = False) -> bool:
        found = self.given.get(name, default)
        if isinstance(found, bool):
            return found
        if isinstance(found, str) and found.lower() in _TRUE | _FALSE:
            return found.lower() in _TRUE
        raise ValueError(f"storage driver s3: {name} must be true or false, not {found!r}")

    def integer(self, name: str, default: int, low: int, high: int | None) -> int:
        found = self.given.get(name, default)
        if isinstance(found, str) and re.fullmatch(r"[0-9]+", found):
            found = int(found)
        bounds = f"from {low}" if high is None else f"from {low} to {high}"
        if type(found) is not int or found < low or (high is not None and found > high):
            raise ValueError(f"storage driver s3: {name} must be a number {bounds}, not {found!r}")
        return found

    def seconds(self, name: str, default: float) -> float:
        found = self.given.get(name, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < float("inf"):
            raise ValueError(f"storage driver s3: {name} must be a number of seconds above 0, not {found!r}")
        return float(found)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Case does not count."""
        found = self.given.get(name, default)
        for choice in choices:
            if isinstance(found, str) and found.lower() == choice.lower():
                return choice
        raise ValueError(f"storage driver s3: {name} must be one of {', '.join(choices)}, not {found!r}")
