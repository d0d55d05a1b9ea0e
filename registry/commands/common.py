"""What commands on a store share: which stores they refuse, and how they write numbers."""

import sys
from collections.abc import Callable
from pathlib import Path

from registry.commands.refusal import Refusal
from registry.config import Config
from registry.proxy.directory import directory_of
from storage import layout
from storage.names import RepositoryName


def check_store(config: Config, command: str, status: int = 1) -> None:
    """Raises Refusal where there is nothing to work on, or where the command would do harm."""
    if config.storage.driver == "inmemory":
        raise Refusal(f"{command}: the inmemory storage lives inside the serving process, and goes with it", status)
    if config.storage.driver == "filesystem":
        root = Path(str(config.storage.parameters["rootdirectory"]))
        if not root.is_dir():
            raise Refusal(
                f"{command}: there is no folder {root}; set storage.filesystem.rootdirectory to the one that"
                " the registry uses, and mount it",
                status,
            )


def hint(config: Config) -> str:
    """What to look at where the store does not answer as it should."""
    if config.storage.driver == "s3":
        return "the line of the log above it says why; check storage.s3 (bucket, region, regionendpoint, keys)"
    return f"check {place(config)}"


def place(config: Config) -> str:
    """Where the store is, for people."""
    parameters = config.storage.parameters
    if config.storage.driver == "s3":
        root = str(parameters.get("rootdirectory") or "").strip("/")
        return f"the bucket {parameters.get('bucket')}" + (f" below {root}" if root else "")
    return str(parameters.get("rootdirectory") or f"the {config.storage.driver} storage")


def warn_of_nothing(config: Config, command: str) -> None:
    """For a store in which nothing was found: it may be new, or another one than was meant."""
    sys.stderr.write(
        f"registry: {command}: there is nothing in {place(config)}; if the registry has images, correct"
        f" storage.{config.storage.driver}.rootdirectory (the one that holds {layout.ROOT}), or mount it\n"
    )


def is_cached(config: Config) -> Callable[[RepositoryName], bool]:
    """Is what lies in the store under a name a cache of an upstream?"""
    directory = directory_of(config.proxy, config.upstreams, config.hosted)
    return lambda name: directory is not None and directory.cached(name) is not None


def bytes_text(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    number, units = size / 1000, ["PB", "TB", "GB", "MB", "kB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop()
    return f"{number:.1f} {units[-1]}" if number < 99.5 else f"{number:.0f} {units[-1]}"


def counted(count: int, noun: str, plural: str = "") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {plural or f'{noun}s'}"


def seconds_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
