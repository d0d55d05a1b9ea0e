"""Every setting, as frozen dataclasses: the names are the names in the file, the values here are the defaults.

Rules:
- `Config()` alone serves. A new setting is a new field: the loader, the variables and check-config follow from it,
  and a test asks for its line in config.example.yaml and docs/configuration.md.
- A name has no underscore: in a variable (REGISTRY_HTTP_ADDR) it parts the levels.
- An annotation says how a value is read: `bool`, `int`, `str`, `tuple[str, ...]`, `Mapping`; a `float` is a duration,
  in seconds here and as Go writes it ("1h30m") in the file. `setting(default, reader)` is for whatever needs more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from . import values
from .upstreams import ProxyConfig, UpstreamConfig

T = TypeVar("T")
MIB = 1 << 20


def setting(default: T, reader: Callable[..., T]) -> T:
    """A field with a reader of its own (see values.py)."""
    made: Any = field(default=default, metadata={"reader": reader})
    return made  # type: ignore[no-any-return]


def empty() -> Any:
    """A field that holds a mapping, by default without entries."""
    return field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessLogConfig:
    disabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    level: str = setting("info", values.one_of("error", "warn", "info", "debug"))
    formatter: str = setting("text", values.one_of("text", "json", "logstash"))
    fields: Mapping[str, object] = empty()
    accesslog: AccessLogConfig = field(default_factory=AccessLogConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeleteConfig:
    enabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RedirectConfig:
    """disable: send blobs ourselves where the driver could give clients a URL to fetch them from."""

    disable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOnlyConfig:
    enabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadPurgingConfig:
    """Upload sessions older than `age` are removed every `interval` (seconds)."""

    enabled: bool = True
    age: float = 168 * 3600.0
    interval: float = setting(24 * 3600.0, values.positive_duration)
    dryrun: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MaintenanceConfig:
    readonly: ReadOnlyConfig = field(default_factory=ReadOnlyConfig)
    uploadpurging: UploadPurgingConfig = field(default_factory=UploadPurgingConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesystemConfig:
    """What `storage.filesystem` may hold; it reaches the driver as `StorageConfig.parameters`."""

    rootdirectory: str = setting("/var/lib/registry", values.non_empty)


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemoryConfig:
    """`storage.inmemory` has no parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Config:
    """What `storage.s3` may hold. The driver checks it: bounds, and what one parameter says of another.

    accesskey and secretkey: without them the machine's own credentials.
    forcepathstyle, checkuploads: None: as regionendpoint needs.
    """

    bucket: str = setting("", values.non_empty)
    region: str = ""
    accesskey: str = ""
    secretkey: str = ""
    sessiontoken: str = ""
    regionendpoint: str = ""
    redirectendpoint: str = ""
    forcepathstyle: bool | None = None
    rootdirectory: str = ""
    encrypt: bool = False
    keyid: str = ""
    storageclass: str = "STANDARD"
    objectacl: str = "private"
    secure: bool = True
    skipverify: bool = False
    cabundle: str = ""
    v4auth: bool = True
    chunksize: int = setting(10 * MIB, values.size)
    multipartcopychunksize: int = setting(32 * MIB, values.size)
    multipartcopymaxconcurrency: int = setting(100, values.positive)
    multipartcopythresholdsize: int = setting(32 * MIB, values.size)
    usedualstack: bool = False
    accelerate: bool = False
    usefipsendpoint: bool = False
    useragent: str = ""
    loglevel: str = "off"
    checkuploads: bool | None = None
    connecttimeout: float = setting(5.0, values.positive_duration)
    readtimeout: float = setting(30.0, values.positive_duration)
    maxconnections: int = setting(1000, values.positive)


# The drivers that are built in. A third party's driver gets its parameters as YAML gave them, unchecked.
DRIVERS: Mapping[str, type] = MappingProxyType(
    {"filesystem": FilesystemConfig, "inmemory": InMemoryConfig, "s3": S3Config, "s3aws": S3Config}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """In the file the driver is a key beside the settings: `storage: {filesystem: {...}, delete: {...}}`."""

    driver: str = "filesystem"
    parameters: Mapping[str, object] = field(
        default_factory=lambda: MappingProxyType({"rootdirectory": FilesystemConfig().rootdirectory})
    )
    delete: DeleteConfig = field(default_factory=DeleteConfig)
    redirect: RedirectConfig = field(default_factory=RedirectConfig)
    maintenance: MaintenanceConfig = field(default_factory=MaintenanceConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class TLSConfig:
    """certificate and key: paths of PEM files; both empty means plain HTTP."""

    certificate: str = ""
    key: str = ""
    minimumtls: str = setting("tls1.2", values.one_of("tls1.0", "tls1.1", "tls1.2", "tls1.3"))
    ciphersuites: tuple[str, ...] = ()
    clientcas: tuple[str, ...] = ()
    clientauth: str = setting(
        "require-and-verify-client-cert",
        values.one_of(
            "request-client-cert",
            "require-any-client-cert",
            "verify-client-cert-if-given",
            "require-and-verify-client-cert",
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PrometheusConfig:
    """repositories: how many of them have numbers of their own, per process; the others share theirs."""

    enabled: bool = False
    path: str = setting("/metrics", values.debug_path)
    repositories: int = setting(0, values.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class DebugConfig:
    """addr: HOST:PORT of a second address, for operators; empty: none."""

    addr: str = ""
    prometheus: PrometheusConfig = field(default_factory=PrometheusConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class HTTPConfig:
    """addr: HOST:PORT (without HOST: every address, IPv4 and IPv6), or a path when net is "unix".

    host: the URL that clients use; when set, Location is absolute and starts with it, else it is relative.
    draintimeout: seconds that running requests have after a signal to stop.
    shutdowndelay: seconds before that, for which all is answered still, and /readyz says no.
    """

    addr: str = setting(":5000", values.non_empty)
    net: str = setting("tcp", values.one_of("tcp", "unix"))
    host: str = setting("", values.base_url)
    prefix: str = setting("", values.url_prefix)
    relativeurls: bool = True
    secret: str = ""
    draintimeout: float = 30.0
    shutdowndelay: float = 0.0
    headers: Mapping[str, tuple[str, ...]] = empty()
    tls: TLSConfig = field(default_factory=TLSConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageCheckConfig:
    """interval: seconds, of every check.   threshold: failures in a row from which on a check has failed, of all."""

    enabled: bool = False
    interval: float = 10.0
    threshold: int = setting(1, values.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCheckConfig:
    """Fails while the file exists."""

    file: str = ""
    interval: float = 10.0
    threshold: int = setting(1, values.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class HTTPCheckConfig:
    """Fails unless a HEAD of the URI has that status. timeout: seconds."""

    uri: str = setting("", values.http_url)
    headers: Mapping[str, tuple[str, ...]] = empty()
    statuscode: int = setting(200, values.size)
    timeout: float = 5.0
    interval: float = 10.0
    threshold: int = setting(1, values.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class TCPCheckConfig:
    """Fails unless addr (HOST:PORT) can be connected to. timeout: seconds."""

    addr: str = ""
    timeout: float = 5.0
    interval: float = 10.0
    threshold: int = setting(1, values.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthConfig:
    """While one of these checks fails, every request is answered with 503. A 0 in any of them means its default."""

    storagedriver: StorageCheckConfig = field(default_factory=StorageCheckConfig)
    file: tuple[FileCheckConfig, ...] = ()
    http: tuple[HTTPCheckConfig, ...] = ()
    tcp: tuple[TCPCheckConfig, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class HtpasswdConfig:
    path: str = setting("", values.non_empty)
    realm: str = setting("Registry", values.realm)


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthConfig:
    """At most one method; none means that everyone may do everything."""

    htpasswd: HtpasswdConfig | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogConfig:
    maxentries: int = setting(1000, values.entries(1000, negative=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class TagsConfig:
    maxtags: int = setting(1000, values.entries(1000, negative=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class URLRulesConfig:
    """Regular expressions (RE2) for the `urls` of a layer. Without any, every http and https URL may be named."""

    allow: tuple[str, ...] = setting((), values.patterns)
    deny: tuple[str, ...] = setting((), values.patterns)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformConfig:
    architecture: str = ""
    os: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRulesConfig:
    """Which images of an index must be present when it is pushed: all, none, or those of `platformlist`."""

    platforms: str = setting("all", values.one_of("all", "none", "list"))
    platformlist: tuple[PlatformConfig, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestRulesConfig:
    """sparse: accept manifests and indexes whose blobs and images are not here."""

    sparse: bool = False
    urls: URLRulesConfig = field(default_factory=URLRulesConfig)
    indexes: IndexRulesConfig = field(default_factory=IndexRulesConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """disabled: no rules for URLs, and none for the images of an index. load() applies it to `manifests`,
    so that only check-config needs to look at it."""

    disabled: bool = False
    manifests: ManifestRulesConfig = field(default_factory=ManifestRulesConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferrersConfig:
    """rescan: seconds after which the index of referrers is compared with what other servers may have pushed."""

    rescan: float = setting(600.0, values.positive_duration)


@dataclass(frozen=True, kw_only=True, slots=True)
class GarbageConfig:
    """grace: seconds since it was last pushed or asked for by a pusher, for which nothing is garbage.

    The time that the longest push may take between its first blob and its manifest.
    """

    grace: float = 24 * 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheRangesConfig:
    """Of blobs that are not cached. fillafter: percent of a blob, asked for by Range, after which the whole is fetched;
    0: at once, 100: never.   size: bytes of such pieces on local disk, of each process; 0: none are kept."""

    fillafter: int = setting(25, values.percent)
    size: int = setting(4 << 30, values.capacity)


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """linkttl: only where calls to the store are dear (S3): seconds for which a repository is believed to hold still
    what it was seen to hold; None: as long as the mode of the registry allows (app.py).

    The bounds of what upstreams brought. size: bytes; 0: any.   age: seconds without use; 0: any; None: proxy.ttl where
    there is a proxy.remoteurl, else any.   grace: seconds in which what was used stays; None: as the store needs it.

    followers: what a replica on S3 does with what another one fetches: wait for it, or fetch it from the upstream, too.
    """

    linkttl: float | None = None
    size: int = setting(0, values.capacity)
    age: float | None = None
    grace: float | None = setting(None, values.positive_duration)
    followers: str = setting("wait", values.one_of("wait", "upstream"))
    ranges: CacheRangesConfig = field(default_factory=CacheRangesConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadsConfig:
    """Only where calls to the store are dear (S3). shareable: an upload is in the store from its POST on, so that
    distribution can go on with it; up to four more calls for each."""

    shareable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsConfig:
    """What one client may take. Times in seconds, sizes in bytes; a time of 0 is for ever, a rate of 0 any rate.

    A client has `headtimeout` for a request's head; after it, either direction must move `minrate` bytes a second
    over every `stalltimeout`. `keepalive` is how long an idle connection stays: longer than the idle time-out of
    the clients and proxies in front (Go clients 90 s, nginx 60 s), or they race our close.
    """

    headtimeout: float = 30.0
    stalltimeout: float = 30.0
    minrate: int = setting(1024, values.size)
    keepalive: float = 120.0
    maxconnections: int = setting(4000, values.positive)
    headsize: int = setting(64 << 10, values.positive)
    headerfields: int = setting(100, values.positive)
    manifestsize: int = setting(4 * MIB, values.positive)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    log: LogConfig = field(default_factory=LogConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    http: HTTPConfig = field(default_factory=HTTPConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    tags: TagsConfig = field(default_factory=TagsConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    referrers: ReferrersConfig = field(default_factory=ReferrersConfig)
    garbage: GarbageConfig = field(default_factory=GarbageConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    uploads: UploadsConfig = field(default_factory=UploadsConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    upstreams: tuple[UpstreamConfig, ...] = ()
    hosted: tuple[str, ...] = ()
    limits: LimitsConfig = field(default_factory=LimitsConfig)
