"""Which storage drivers there are: a table of our own, and what third parties register as entry points.

A factory is called with the driver's parameters, as they stand in the configuration, and returns a StorageDriver. It
raises ValueError, with a sentence that names the parameter, for one that it does not know or that has a wrong value. No
driver is imported before it is asked for: some bring large dependencies.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from storage.driver import StorageDriver

GROUP = "moorage.drivers"
"""The group of entry points in which other packages register a factory under the driver's name."""

_SCRATCH = "docker/registry/v2/_moorage/scratch"
"""As storage/layout.py has it; distribution looks at nothing there."""

Factory = Callable[[Mapping[str, object]], StorageDriver]


def create(name: str, parameters: Mapping[str, object]) -> StorageDriver:
    """The driver of that name. Raises ValueError for an unknown name, or what its factory says of the parameters."""
    factory = _BUILT_IN.get(name)
    if factory is None:
        registered = {entry.name: entry for entry in entry_points(group=GROUP)}
        if name not in registered:
            known = ", ".join(sorted({*_BUILT_IN, *registered}))
            raise ValueError(f"there is no storage driver {name!r}; known here: {known}")
        factory = _load(registered[name])
    return factory(parameters)


def known() -> list[str]:
    """The names that `create` takes, in order."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


def _load(entry: EntryPoint) -> Factory:
    try:
        factory: Factory = entry.load()
    except (ImportError, AttributeError) as exc:
        raise ValueError(f"the storage driver {entry.name!r} ({entry.value}) cannot be loaded: {exc}") from exc
    return factory


def _filesystem(parameters: Mapping[str, object]) -> StorageDriver:
    """rootdirectory, maxthreads as distribution's; scratch: the key of the folder for files that are no objects."""
    from storage.drivers.filesystem import FilesystemDriver

    _check_names("filesystem", parameters, "rootdirectory", "maxthreads", "scratch")
    root = parameters.get("rootdirectory", "/var/lib/registry")
    scratch = parameters.get("scratch", _SCRATCH)
    threads = parameters.get("maxthreads")
    if not isinstance(root, str | Path) or not str(root):
        raise ValueError(f"storage driver filesystem: rootdirectory must be a path, not {root!r}")
    if not isinstance(scratch, str):
        raise ValueError(f"storage driver filesystem: scratch must be a key, not {scratch!r}")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise ValueError(f"storage driver filesystem: maxthreads must be a number from 1, not {threads!r}")
    return FilesystemDriver(Path(root), scratch=scratch, threads=threads)


def _memory(parameters: Mapping[str, object]) -> StorageDriver:
    from storage.drivers.memory import MemoryDriver

    _check_names("inmemory", parameters, "scratch")
    return MemoryDriver()


def _s3(parameters: Mapping[str, object]) -> StorageDriver:
    """distribution's parameters; see storage/drivers/s3/settings.py. Makes no call."""
    from storage.drivers.s3.settings import S3Settings

    settings = S3Settings.parse(parameters)
    # botocore is looked for, not imported: that takes long, and credentials in the settings do without it
    if find_spec("aiohttp") is None or find_spec("botocore") is None:
        raise ValueError("storage driver s3 needs packages that are not installed: pip install 'moorage[s3]'")
    from storage.drivers.s3.driver import S3Driver
    from storage.drivers.s3.rest import RestBucket

    return S3Driver(settings, RestBucket(settings))


def _check_names(driver: str, parameters: Mapping[str, object], *known: str) -> None:
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(f"storage driver {driver}: no such parameter: {', '.join(unknown)}")


_BUILT_IN: dict[str, Factory] = {"filesystem": _filesystem, "inmemory": _memory, "s3": _s3, "s3aws": _s3}
