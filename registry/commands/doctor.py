"""`registry doctor`: look for damage in a store, repair it, and say who needs a blob.

Ends with 0 where all is well (or was repaired), 1 where something is left to be done, 2 where it could not look.
"""

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from registry.commands.common import bytes_text, check_store, counted, hint, is_cached, warn_of_nothing
from registry.commands.progress import Progress
from registry.commands.refusal import Refusal
from registry.config import Config
from registry.stores import manifest_rules, open_driver
from storage.content import ContentStore
from storage.digest import Digest
from storage.doctor.examine import Examined, Examiner
from storage.doctor.explain import Explained, Use, explain
from storage.doctor.findings import Finding
from storage.errors import DigestInvalid, StorageError
from storage.names import RepositoryName

COULD_NOT_LOOK = 2


def run(config: Config, options: Namespace) -> int:
    """Raises Refusal."""
    check_store(config, "doctor", COULD_NOT_LOOK)
    if options.fix and config.storage.maintenance.readonly.enabled:
        how = "run it with the configuration of a writer"
        raise Refusal(f"doctor --fix: this configuration is read-only (storage.maintenance.readonly); {how}", 2)
    if options.explain is not None and (options.fix or options.deep):
        raise Refusal("doctor --explain only says who needs a digest: leave out --fix and --deep", COULD_NOT_LOOK)
    digest = _digest(options.explain)
    progress = Progress()
    try:
        if digest is not None:
            found = asyncio.run(_explain(config, digest, progress))
            return _tell(found, is_cached(config), as_json=options.json)
        examined = asyncio.run(_examine(config, options, progress))
    except StorageError as exc:
        raise Refusal(f"doctor could not look at everything: {exc}; {hint(config)}", COULD_NOT_LOOK) from exc
    finally:
        progress.clear()
    if not examined.repositories and not examined.blobs:
        warn_of_nothing(config, "doctor")
    _write(_document(examined) if options.json else _text(examined, fix=options.fix))
    return 1 if examined.left else 0


def _digest(text: str | None) -> Digest | None:
    try:
        return None if text is None else Digest.parse(text)
    except DigestInvalid as exc:
        how = "give the digest of a blob or a manifest, as a finding or an image's manifest has it"
        raise Refusal(f"doctor --explain: {exc}; {how}", COULD_NOT_LOOK) from exc


async def _examine(config: Config, options: Namespace, progress: Progress) -> Examined:
    content, purging = ContentStore(open_driver(config)), config.storage.maintenance.uploadpurging
    try:
        examiner = Examiner(
            content,
            manifest_rules(config),
            idle=purging.age if purging.enabled else None,
            caches=is_cached(config),
            deep=options.deep,
            watcher=progress,
        )
        examined = await examiner.examine()
        if options.fix:
            await examiner.repair()
        return examined
    finally:
        await content.aclose()


async def _explain(config: Config, digest: Digest, progress: Progress) -> Explained:
    driver = open_driver(config)
    try:
        return await explain(driver, digest, progress)
    finally:
        await driver.aclose()


# What was found


def _text(examined: Examined, *, fix: bool) -> str:
    lines = []
    for finding in examined.findings:
        place = f"{finding.repository}: " if finding.repository else ""
        lines.append(f"{place}{finding.kind}: {finding.what}")
        if finding.images:
            more = f" and {finding.more} more" if finding.more else ""
            lines.append(f"  spoils {', '.join(map(str, finding.images))}{more}")
        lines.append(f"  {_outcome(finding, fix=fix)}")
    looked = (
        f"{counted(examined.repositories, 'repository', 'repositories')}, {counted(examined.manifests, 'manifest')}"
        f" and {counted(examined.blobs, 'blob')} looked at"
    )
    if examined.bytes:
        looked += f", {bytes_text(examined.bytes)} read"
    found, fixed = len(examined.findings), len(examined.findings) - len(examined.left)
    result = counted(found, "finding") if found else "no damage found"
    if fix and found:
        result += f", {fixed} repaired"
    return "\n".join([*lines, f"{looked}: {result}", ""])


def _outcome(finding: Finding, *, fix: bool) -> str:
    if finding.fixed:
        return f"repaired: --fix {finding.fix}"
    if finding.fix is not None and not fix:
        return f"--fix {finding.fix}; or {finding.advice}" if not finding.cached else f"--fix {finding.fix}"
    return f"to do: {finding.advice}"


def _document(examined: Examined) -> str:
    findings = [
        {
            "kind": finding.kind,
            "repository": finding.repository,
            "digest": finding.digest,
            "what": finding.what,
            "advice": finding.advice,
            "fix": finding.fix,
            "fixed": finding.fixed,
            "cached": finding.cached,
            "images": [asdict(image) for image in finding.images],
            "more_images": finding.more,
        }
        for finding in examined.findings
    ]
    document = {
        "clean": not examined.left,
        "repositories": examined.repositories,
        "manifests": examined.manifests,
        "blobs": examined.blobs,
        "bytes": examined.bytes,
        "findings": findings,
    }
    return json.dumps(document, indent=2) + "\n"


# Who needs it


def _tell(found: Explained, cached: Callable[[RepositoryName], bool], *, as_json: bool) -> int:
    """1 where somebody needs what is not there, and no upstream has it."""
    broken = found.info is None and any(use.keeps and not cached(use.repository) for use in found.uses)
    if as_json:
        uses = [{"repository": u.repository, "how": u.how, "by": u.by, "keeps": u.keeps} for u in found.uses]
        size = found.info.size if found.info else None
        document = {"digest": str(found.digest), "size": size, "kept": found.is_kept, "uses": uses}
        _write(json.dumps(document, indent=2) + "\n")
    else:
        lines = [_presence(found), *(f"  {_sentence(use)}" for use in found.uses), _verdict(found, broken=broken)]
        _write("\n".join([*filter(None, lines), ""]))
    return 1 if broken else 0


def _presence(found: Explained) -> str:
    if found.info is None:
        return f"{found.digest} is not in the store"
    written = datetime.fromtimestamp(found.info.modified, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{found.digest}: {bytes_text(found.info.size)}, last written or asked for {written}"


def _sentence(use: Use) -> str:
    return {
        "link": f"{use.repository}: linked as a blob",
        "revision": f"{use.repository}: is a manifest",
        "tag": f"{use.repository}:{use.by} names it",
        "manifest": f"{use.repository}@{use.by} names it",
        "subject": f"{use.repository}@{use.by} refers to it as its subject",
    }[use.how]


def _verdict(found: Explained, *, broken: bool) -> str:
    if found.info is None:
        if broken:
            return "what needs it is broken: push it again"
        return "it is not cached: the next pull fetches it" if found.is_kept else "nothing needs it"
    if found.is_kept:
        return "garbage-collect keeps it"
    return "nothing needs it: garbage-collect removes it once it is older than the grace (garbage.grace)"


def _write(text: str) -> None:
    sys.stdout.write(text)
