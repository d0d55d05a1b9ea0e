"""`registry garbage-collect`: distribution's command, with its flags and its lines, and a grace period."""

import asyncio
import sys
from argparse import Namespace

from registry.commands.common import bytes_text, check_store, counted, hint, seconds_text, warn_of_nothing
from registry.commands.progress import Progress
from registry.commands.refusal import Refusal
from registry.config import Config
from registry.config.values import go_duration
from registry.stores import open_driver
from storage.content import ContentStore
from storage.digest import Digest
from storage.errors import StorageError
from storage.garbage.collect import Collected, Collector, Options
from storage.garbage.manifests import UnreadableManifest
from storage.names import RepositoryName


class Report(Progress):
    """Prints what is removed on stdout, a line each, in the words of distribution's."""

    def manifest(self, name: RepositoryName, digest: Digest) -> None:
        self._say(f"manifest eligible for deletion: {name}@{digest}")

    def blob(self, digest: Digest, size: int) -> None:
        self._say(f"blob eligible for deletion: {digest}")

    def link(self, name: RepositoryName, digest: Digest) -> None:
        self._say(f"{name}: layer link eligible for deletion: {digest}")

    def _say(self, line: str) -> None:
        if not self._quiet:
            self.clear()
            sys.stdout.write(f"{line}\n")


def run(config: Config, options: Namespace) -> int:
    """Raises Refusal."""
    check_store(config, "garbage-collect")
    if config.proxy.remoteurl:
        raise Refusal(
            "garbage-collect: this is a pull-through cache (proxy.remoteurl): nothing is pushed to it, and what nobody"
            " pulls leaves it by itself; set cache.size or cache.age to bound it, and run the command with the"
            " configuration of a registry that is pushed to"
        )
    grace = _grace(config, options.grace)
    purging = config.storage.maintenance.uploadpurging
    chosen = Options(
        grace=grace,
        untagged=options.delete_untagged,
        dry_run=options.dry_run,
        purge=purging.age if purging.enabled else None,
    )
    warning = _warning(config, grace)
    if warning and not options.quiet:
        sys.stderr.write(f"registry: warning: {warning}\n")
    report = Report(quiet=options.quiet)
    try:
        done = asyncio.run(_collect(config, chosen, report))
    finally:
        report.clear()
    if not options.quiet:
        if not done.repositories and not done.blobs:
            warn_of_nothing(config, "garbage-collect")
        sys.stdout.write("\n".join(["", *summary(done, chosen), ""]))
    return 0


async def _collect(config: Config, options: Options, report: Report) -> Collected:
    content = ContentStore(open_driver(config))
    collector = Collector(content, options, report)
    try:
        return await collector.run()
    except StorageError as exc:
        done = collector.done
        removed = "nothing was removed"
        if (done.swept or done.removed) and not options.dry_run:
            removed = f"{counted(done.removed, 'manifest')} and {counted(done.swept, 'blob')} had been removed"
        what_next = "" if isinstance(exc, UnreadableManifest) else f"; {hint(config)}, and run it again"
        raise Refusal(f"garbage-collect stopped, {removed}: {exc}{what_next}") from exc
    finally:
        await content.aclose()


def _grace(config: Config, asked: float | None) -> float:
    """Of a registry that is read-only nobody pushes: distribution's manual asks for this mode."""
    if asked is not None:
        return asked
    return 0.0 if config.storage.maintenance.readonly.enabled else config.garbage.grace


def _warning(config: Config, grace: float) -> str:
    if grace >= config.garbage.grace:
        return ""
    if config.storage.maintenance.readonly.enabled:
        return (
            f"the configuration is read-only, so the grace is {go_duration(grace)}: if it is that of a replica, and"
            " another registry takes pushes for this store, stop, and run it with the configuration of that one"
        )
    return (
        f"with a grace of {go_duration(grace)}, shorter than garbage.grace ({go_duration(config.garbage.grace)}),"
        " a push that runs meanwhile may lose its blobs: make sure that nobody pushes"
    )


def summary(done: Collected, options: Options) -> list[str]:
    """The first line is distribution's."""
    lines = [
        f"{done.marked} blobs marked, {done.swept} blobs and {done.removed} manifests eligible for deletion",
        f"{'would remove' if options.dry_run else 'removed'} {counted(done.swept, 'blob')} ({bytes_text(done.size)}),"
        f" {counted(done.removed, 'manifest')}, {counted(done.links, 'link')} and"
        f" {counted(done.uploads.sessions, 'abandoned upload')} ({bytes_text(done.uploads.bytes)});"
        f" {counted(done.repositories, 'repository', 'repositories')},"
        f" {counted(done.manifests, 'manifest')}, {counted(done.blobs, 'blob')} looked at"
        f" in {seconds_text(done.seconds)}",
    ]
    if done.young:
        lines.append(
            f"left: {counted(done.young, 'blob')} ({bytes_text(done.young_size)}) that nothing needs, younger than"
            f" {go_duration(options.grace)}; while nobody pushes, --grace 0s takes them too"
        )
    return lines
