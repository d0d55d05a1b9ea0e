"""`registry serve`: the registry, in this process or in several, until a signal."""

import errno
import functools
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable

from registry.banner import banner
from registry.commands.check_config import check_files
from registry.commands.refusal import Refusal, explained, one_line
from registry.config import Config, Loaded, files, load
from registry.serving import streams
from registry.version import version
from registry.watching import logs

log = logging.getLogger(__name__)


def run(loaded: Loaded, options: Namespace) -> int:
    """Returns the exit code. Raises Refusal."""
    logs.configure(loaded.config.log)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    check_files(loaded)
    _check_workers(options.workers, loaded.config)
    up, doubt = False, files.doubt(loaded.config)

    def started(addresses: list[str]) -> None:
        nonlocal up
        up = True
        _announce(loaded, addresses, options.workers)
        if doubt:  # not before: what keeps it from starting is one line
            read_only = loaded.config.storage.maintenance.readonly.enabled
            log.log(logging.WARNING if read_only else logging.INFO, "%s", doubt)

    try:
        return _serve(loaded, options, started)
    except OSError as exc:
        if up:
            raise
        raise Refusal(_cannot_listen(loaded.config, exc)) from exc
    except Exception as exc:
        refusal = explained(exc, loaded)
        if refusal is None:
            raise
        raise refusal from exc


def _announce(loaded: Loaded, addresses: list[str], workers: int) -> None:
    facts = banner(loaded, addresses)
    if workers > 1:
        facts = {"listening": facts["listening"], "workers": f"{workers} processes", **facts}
    if loaded.config.log.formatter == "text":
        lines = [f"Moorage {version()}", *(f"  {name:<10}{one_line(fact)}" for name, fact in facts.items()), ""]
        streams.say("\n".join(lines))
    else:  # whoever reads JSON reads every line as JSON
        log.info("started", extra=facts)


def _serve(loaded: Loaded, options: Namespace, started: Callable[[list[str]], None]) -> int:
    from registry.app import create_app
    from registry.processes.reload import Reloader

    reload, workers = Reloader(loaded, lambda: load(options.config, os.environ)), options.workers
    if workers > 1:
        from registry.metrics.numbers import Numbers
        from registry.processes.workers import run as run_workers

        create = functools.partial(create_app, numbers=Numbers(workers))
        return run_workers(
            create, loaded.config, workers, started=started, failed=lambda exc: _say_why(exc, loaded), reload=reload
        )

    from registry.serving.server import run as run_here

    app = create_app(loaded.config)
    run_here(app, loaded.config, started=started, debug=app.debug, health=app.health, reload=reload)
    return 0


def _say_why(exc: Exception, loaded: Loaded) -> None:
    """In a worker, which ends with it."""
    refusal = explained(exc, loaded)
    if refusal is None:
        sys.excepthook(type(exc), exc, exc.__traceback__)
    else:
        sys.stderr.write(f"registry: {one_line(str(refusal))}\n")


def _check_workers(count: int, config: Config) -> None:
    if count > 1 and config.storage.driver == "inmemory":
        raise Refusal(
            f"--workers {count}: the inmemory storage lives inside one process, each worker would have content of its"
            " own; use another storage, or one worker"
        )


def _cannot_listen(config: Config, exc: OSError) -> str:
    addr, other = config.http.addr, f"REGISTRY_HTTP_ADDR={_elsewhere(config)}"
    if exc.filename == config.http.debug.addr != addr:
        addr, other = config.http.debug.addr, "REGISTRY_HTTP_DEBUG_ADDR"
    match exc.errno:
        case errno.EADDRINUSE:
            return (
                f"cannot listen on {addr}: stop the process that holds it (`ss -lnp`), or choose another with {other}"
            )
        case errno.EACCES | errno.EPERM:
            return f"may not listen on {addr}: only root may below port 1024; choose another with {other}"
        case errno.EADDRNOTAVAIL:
            return f"cannot listen on {addr}: this machine has no such address; choose another with {other}"
    return f"cannot listen on {addr}: {exc.strerror or exc}; choose another with {other}"


def _elsewhere(config: Config) -> str:
    if config.http.net == "unix":
        return "/run/registry/other.sock"
    port = config.http.addr.rpartition(":")[2]
    return f":{int(port) + 1}" if port.isdigit() and 1023 < int(port) < 65535 else ":5001"
