"""Which storage drivers there are: a table of our own, and what third parties register as entry points.

A factory is called with the driver's parameters, as they stand in the configuration, and returns a StorageDriver. It
raises ValueError, with a sentence that names the parameter, for one that it does not know or that has a wrong value. No
driver is imported before it is asked for: some bring large dependencies.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
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


def _check_names(driver: str, parameters: Mapping[str, object], *known: str) -> None:
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(f"storage driver {driver}: no such parameter: {', '.join(unknown)}")


_BUILT_IN: dict[str, Factory] = {"filesystem": _filesystem, "inmemory": _memory}
