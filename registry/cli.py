"""The command line: what was asked for is read, and its command called, which is imported only then.

What a user can put right is one line on stderr that says how, and exit code 1; only a bug shows a traceback.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.arguments import parse
from registry.commands.refusal import Refusal, explained, one_line
from registry.serving import streams

if TYPE_CHECKING:
    from registry.config import Loaded


def main(argv: Sequence[str] | None = None, *, settle: "Callable[[Loaded], None] | None" = None) -> int:
    """settle: called with the settings before anything that they name is opened; may raise Refusal."""
    streams.occupy()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv), settle)
    except Refusal as exc:
        print(f"registry: {one_line(str(exc))}", file=sys.stderr)
        return exc.status
    except BrokenPipeError:
        streams.discard()
        return streams.CLOSED_PIPE
    except KeyboardInterrupt:
        return 128 + 2  # as shells report SIGINT


def _run(arguments: list[str], settle: "Callable[[Loaded], None] | None") -> int:
    options = parse(arguments)
    status = 0
    if options is not None:
        options.settle = settle
        status = RUN[options.command](options)
    sys.stdout.flush()  # while somebody can still say what came of it
    return status


def serve(options: Namespace) -> int:
    from registry.commands import serve as command

    return command.run(_load(options), options)


def garbage_collect(options: Namespace) -> int:
    from registry.commands import garbage_collect as command

    with _working(options, 1) as loaded:
        return command.run(loaded.config, options)


def doctor(options: Namespace) -> int:
    """0: all is well. 1: something is left to be done. 2: could not look."""
    from registry.commands import doctor as command

    with _working(options, command.COULD_NOT_LOOK) as loaded:
        return command.run(loaded.config, options)


def upstreams(options: Namespace) -> int:
    """0: all can be used. 1: one cannot. 2: could not ask."""
    return _on_upstreams(options, "upstreams")


def prefetch(options: Namespace) -> int:
    """0: all is cached. 1: an image is not. 2: could not begin."""
    return _on_upstreams(options, "prefetch")


def _on_upstreams(options: Namespace, name: str) -> int:
    from importlib import import_module

    with _working(options, 2) as loaded:
        try:
            command = import_module(f"registry.commands.{name}")
        except ModuleNotFoundError as exc:
            how = f"needs packages that are missing: pip install 'moorage[proxy]' ({exc})"
            raise Refusal(f"{name}: {how}", 2) from exc
        status: int = command.run(loaded.config, options)
        return status


def healthcheck(options: Namespace) -> int:
    from registry.commands import healthcheck as command

    options.config = options.config or command.serving_config()
    return command.run(_load(options).config, options)


def check_config(options: Namespace) -> int:
    from registry.commands import check_config as command

    return command.run(_load(options))


@contextmanager
def _working(options: Namespace, status: int) -> Iterator["Loaded"]:
    """For a command that works on the store and then ends. status: where it could not begin, or had to stop."""
    from registry.watching import logs

    try:
        loaded = _load(options)
    except Refusal as exc:
        raise Refusal(str(exc), status) from exc
    logs.configure(loaded.config.log)
    try:
        yield loaded
    except Refusal:
        raise
    except Exception as exc:
        refusal = explained(exc, loaded)
        if refusal is None:
            raise
        raise Refusal(str(refusal), status) from exc


def _load(options: Namespace) -> "Loaded":
    from registry.config import ConfigError, load

    try:
        loaded = load(options.config, os.environ)
    except ConfigError as exc:
        raise Refusal(str(exc)) from exc
    if options.settle:
        options.settle(loaded)
    return loaded


RUN: Mapping[str, Callable[[Namespace], int]] = {
    "serve": serve,
    "garbage-collect": garbage_collect,
    "doctor": doctor,
    "upstreams": upstreams,
    "prefetch": prefetch,
    "healthcheck": healthcheck,
    "check-config": check_config,
}
