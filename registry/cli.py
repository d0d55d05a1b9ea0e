"""The command line. Each command is one function; it imports what it needs, so that `registry --version` is quick.

What a user can put right is one line on stderr that says how, and exit code 1; only a bug shows a traceback.
"""

import argparse
import difflib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.commands.refusal import Refusal

if TYPE_CHECKING:
    from registry.config import Config, ConfigError, Loaded

DESCRIPTION = "A container registry: a drop-in for registry:2 and registry:3."
EXAMPLES = """\
examples:
  registry serve                                    on port 5000, data in /var/lib/registry
  registry serve config.yml                         with settings from a file
  registry config.yml                               the same, as registry:2 is called
  REGISTRY_HTTP_ADDR=:5001 registry serve           any setting can be a variable
  REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=./data registry serve
  registry serve --workers auto config.yml          one process for each core, on one port
  registry garbage-collect config.yml               free the space of what was deleted
  registry doctor config.yml                        look for damage in the store
  registry upstreams config.yml                     whether a cache can reach its upstreams
  registry prefetch config.yml alpine:3             fetch images into a cache beforehand
  registry check-config config.yml                  what holds, and where it came from
"""
CONFIG_HELP = "a config.yml as distribution has it; default: REGISTRY_CONFIGURATION_PATH, else built-in settings"

MOST_WORKERS = 256
"""A typing mistake shall not fill the machine."""

MOST_PARALLEL = 64
"""More help no upstream, and many would count them as an attack."""


def main(argv: Sequence[str] | None = None, *, settle: "Callable[[Loaded], None] | None" = None) -> int:
    """settle: called with the settings before anything that they name is opened; may raise Refusal."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    arguments = _without_values(arguments)
    if not arguments:
        parser.print_help()
        return 0
    options = parser.parse_args(_with_command(arguments, parser))
    options.settle = settle
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except Refusal as exc:
        print(f"registry: {_one_line(str(exc))}", file=sys.stderr)
        return exc.status
    except KeyboardInterrupt:
        return 128 + 2  # as shells report SIGINT


def check_config(options: argparse.Namespace) -> int:
    from registry.config import show

    loaded = _load(options)
    print(f"# {loaded.source}, and the variables REGISTRY_*")
    print("\n".join(show.lines(loaded)))
    for warning in loaded.warnings:
        print(f"registry: warning: {_one_line(warning)}", file=sys.stderr)
    _check_files(loaded)
    return 0


def serve(options: argparse.Namespace) -> int:
    import logging

    from registry import logs
    from registry.banner import banner

    loaded = _load(options)
    logs.configure(loaded.config.log)
    log = logging.getLogger(__name__)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    _check_files(loaded)
    _check_workers(options.workers, loaded.config)
    up = False

    def started(addresses: list[str]) -> None:
        nonlocal up
        up = True
        facts = banner(loaded, addresses)
        if options.workers > 1:
            facts = {"listening": facts["listening"], "workers": f"{options.workers} processes", **facts}
        if loaded.config.log.formatter == "text":
            print(f"Moorage {version()}", *(f"  {name:<10}{_one_line(fact)}" for name, fact in facts.items()), sep="\n")
            sys.stdout.flush()
        else:  # whoever reads JSON reads every line as JSON
            log.info("started", extra=facts)

    try:
        return _run(loaded, options, started)
    except OSError as exc:
        if up:
            raise
        raise Refusal(_cannot_listen(loaded.config, exc)) from exc
    except Exception as exc:
        refusal = _explained(exc, loaded)
        if refusal is None:
            raise
        raise refusal from exc


def garbage_collect(options: argparse.Namespace) -> int:
    from registry.commands import garbage_collect as command

    with _working(options, 1) as loaded:
        return command.run(loaded.config, options)


def doctor(options: argparse.Namespace) -> int:
    """0: all is well. 1: something is left to be done. 2: could not look."""
    from registry.commands import doctor as command

    with _working(options, command.COULD_NOT_LOOK) as loaded:
        return command.run(loaded.config, options)


def upstreams(options: argparse.Namespace) -> int:
    """0: all can be used. 1: one cannot. 2: could not ask."""
    return _on_upstreams(options, "upstreams")


def prefetch(options: argparse.Namespace) -> int:
    """0: all is cached. 1: an image is not. 2: could not begin."""
    return _on_upstreams(options, "prefetch")


def _on_upstreams(options: argparse.Namespace, name: str) -> int:
    from importlib import import_module

    with _working(options, 2) as loaded:
        try:
            command = import_module(f"registry.commands.{name}")
        except ModuleNotFoundError as exc:
            how = f"needs packages that are missing: pip install 'moorage[proxy]' ({exc})"
            raise Refusal(f"{name}: {how}", 2) from exc
        status: int = command.run(loaded.config, options)
        return status


def healthcheck(options: argparse.Namespace) -> int:
    from registry.commands import healthcheck as command

    options.config = options.config or command.serving_config()
    return command.run(_load(options).config, options)


@contextmanager
def _working(options: argparse.Namespace, status: int) -> Iterator["Loaded"]:
    """For a command that works on the store and then ends. status: where it could not begin, or had to stop."""
    from registry import logs

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
        refusal = _explained(exc, loaded)
        if refusal is None:
            raise
        raise Refusal(str(refusal), status) from exc


def _run(loaded: "Loaded", options: argparse.Namespace, started: Callable[[list[str]], None]) -> int:
    from registry.app import create_app
    from registry.config import load
    from registry.reload import Reloader

    reload, workers = Reloader(loaded, lambda: load(options.config, os.environ)), options.workers
    if workers > 1:
        from registry.metrics.numbers import Numbers
        from registry.workers import run as run_workers

        create = functools.partial(create_app, numbers=Numbers(workers))
        return run_workers(
            create, loaded.config, workers, started=started, failed=lambda exc: _say_why(exc, loaded), reload=reload
        )

    from registry.server import run

    app = create_app(loaded.config)
    run(app, loaded.config, started=started, debug=app.debug, health=app.health, reload=reload)
    return 0


def _explained(exc: Exception, loaded: "Loaded") -> Refusal | None:
    """What the user can do about it; None: a bug."""
    from registry.config import ConfigError
    from storage.errors import StorageError

    if isinstance(exc, ConfigError):
        return _refusal(exc, loaded)
    if isinstance(exc, StorageError):
        return Refusal(f"the {loaded.config.storage.driver} storage cannot be used: {exc}")
    workers = sys.modules.get("registry.workers")  # nobody else raises it
    return Refusal(str(exc)) if workers and isinstance(exc, workers.WorkersFailed) else None


def _say_why(exc: Exception, loaded: "Loaded") -> None:
    """In a worker, which ends with it."""
    refusal = _explained(exc, loaded)
    if refusal is None:
        sys.excepthook(type(exc), exc, exc.__traceback__)
    else:
        print(f"registry: {_one_line(str(refusal))}", file=sys.stderr)


def _check_workers(count: int, config: "Config") -> None:
    if count > 1 and config.storage.driver == "inmemory":
        raise Refusal(
            f"--workers {count}: the inmemory storage lives inside one process, each worker would have content of its"
            " own; use another storage, or one worker"
        )


def _load(options: argparse.Namespace) -> "Loaded":
    from registry.config import ConfigError, load

    try:
        loaded = load(options.config, os.environ)
    except ConfigError as exc:
        raise Refusal(str(exc)) from exc
    if options.settle:
        options.settle(loaded)
    return loaded


def _check_files(loaded: "Loaded") -> None:
    from registry.config import ConfigError, files
    from registry.tls import server_context

    try:
        files.check_files(loaded)
        server_context(loaded.config.http.tls)
    except ConfigError as exc:
        raise _refusal(exc, loaded) from exc


def _refusal(exc: "ConfigError", loaded: "Loaded") -> Refusal:
    """The parts that take a Config do not know where it came from."""
    origin = "" if exc.origin else loaded.origin(exc.path)
    return Refusal(f"{exc} ({origin})" if origin else str(exc))


def _cannot_listen(config: "Config", exc: OSError) -> str:
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


def _elsewhere(config: "Config") -> str:
    if config.http.net == "unix":
        return "/run/registry/other.sock"
    port = config.http.addr.rpartition(":")[2]
    return f":{int(port) + 1}" if port.isdigit() and 1023 < int(port) < 65535 else ":5001"


def version() -> str:
    from importlib import metadata

    return metadata.version("moorage")


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " if char.isspace() else ascii(char)[1:-1] for char in text)


class Command(NamedTuple):
    """arguments: adds them to the command's parser."""

    name: str
    run: Callable[[argparse.Namespace], int]
    purpose: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help=CONFIG_HELP)


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="processes that share the address, or `auto`: one for each core; default: 1."
        " limits.maxconnections is per process",
    )


def _garbage_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("-d", "--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    parser.add_argument(
        "-m",
        "--delete-untagged",
        action="store_true",
        help="also manifests that no tag reaches; images of an index and referrers live with what they belong to",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument(
        "--grace",
        type=_duration,
        metavar="TIME",
        help="keep what was pushed or asked for that lately: 24h, 90m; default: garbage.grace, or 0s where the"
        " configuration is read-only. 0s is for a registry that nobody pushes to",
    )


def _healthcheck_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--ready", action="store_true", help="ask whether clients should be sent here, and say why not")


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--fix", action="store_true", help="repair what can be repaired without losing what lives")
    parser.add_argument("--deep", action="store_true", help="read every blob and compare it with its digest")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--explain", metavar="DIGEST", help="only say who needs this blob or manifest")


def _upstreams_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _prefetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the config.yml of the registry")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="as clients write it: alpine, ghcr.io/team/app:v1")
    parser.add_argument(
        "--platform",
        action="append",
        type=_platform,
        metavar="OS/ARCH",
        help="of an index only the images for this one; may be repeated; default: the upstream's platforms, else all",
    )
    parser.add_argument("--file", metavar="LIST", help="a file with the name of an image in each line; - is stdin")
    parser.add_argument(
        "--parallel", type=_parallel, default=4, metavar="N", help="blobs that are fetched side by side; default: 4"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def _platform(text: str) -> str:
    from registry.config.upstreams import PLATFORM

    if PLATFORM.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"expected a platform such as linux/amd64, found {text!r}")


def _parallel(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MOST_PARALLEL:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 1 to {MOST_PARALLEL}, found {text!r}")


def _duration(text: str) -> float:
    from registry.config.tree import STR, Scalar
    from registry.config.values import Wrong, duration

    try:
        if text.isdecimal():
            raise Wrong("a unit")  # a file means nanoseconds by a bare number, a person never does
        return duration(Scalar(text, STR, "--grace", text))
    except Wrong as exc:
        raise argparse.ArgumentTypeError(f'expected a duration such as "90m", "24h" or "0s", found {text!r}') from exc


def _workers(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0))  # the cores that this process may run on
    if text.isdecimal() and 1 <= int(text) <= MOST_WORKERS:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 1 to {MOST_WORKERS}, or auto, found {text!r}")


COMMANDS = (
    Command(
        "serve",
        serve,
        "run the registry until SIGTERM or Ctrl-C",
        (
            "registry serve",
            "registry serve config.yml",
            "registry serve --workers auto config.yml",
            "REGISTRY_HTTP_ADDR=:5001 registry serve",
        ),
        _serve_arguments,
    ),
    Command(
        "garbage-collect",
        garbage_collect,
        "remove the blobs that no manifest names, also while the registry runs",
        (
            "registry garbage-collect config.yml",
            "registry garbage-collect --dry-run config.yml",
            "registry garbage-collect --delete-untagged --quiet config.yml",
            "registry garbage-collect --grace 0s config.yml",
        ),
        _garbage_arguments,
    ),
    Command(
        "doctor",
        doctor,
        "look for damage in the store: exit code 0 none, 1 some is left, 2 could not look",
        (
            "registry doctor config.yml",
            "registry doctor --deep --json config.yml",
            "registry doctor --fix config.yml",
            f"registry doctor --explain sha256:{'0' * 64} config.yml",
        ),
        _doctor_arguments,
    ),
    Command(
        "upstreams",
        upstreams,
        "ask the upstreams of a cache: reachable, logged in as whom, pulls left; exit code 1 where one cannot be used",
        ("registry upstreams config.yml", "registry upstreams --json config.yml"),
        _upstreams_arguments,
    ),
    Command(
        "prefetch",
        prefetch,
        "fetch images into the cache: exit code 0 all are there, 1 one is not, 2 could not begin",
        (
            "registry prefetch config.yml alpine:3 ghcr.io/team/app:v1",
            "registry prefetch --platform linux/amd64 --platform linux/arm64 config.yml postgres:17",
            "registry prefetch --file images.txt config.yml",
            "kubectl get pods -A -o jsonpath='{..image}' | tr ' ' '\\n' | registry prefetch --file - config.yml",
        ),
        _prefetch_arguments,
    ),
    Command(
        "healthcheck",
        healthcheck,
        "ask whether the registry on this machine, or in this container, answers",
        ("registry healthcheck", "registry healthcheck config.yml", "registry healthcheck --ready config.yml"),
        _healthcheck_arguments,
    ),
    Command(
        "check-config",
        check_config,
        "show the settings that hold and their origins, and check the files they name",
        ("registry check-config config.yml", "REGISTRY_STORAGE_DELETE_ENABLED=true registry check-config"),
        _config_argument,
    ),
)


def make_parser() -> argparse.ArgumentParser:
    layout: Any = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)
    parser = argparse.ArgumentParser("registry", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=layout)
    parser.add_argument("-v", "--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for each in COMMANDS:
        text = "\n  ".join(["examples:", *each.examples])
        command = commands.add_parser(
            each.name, help=each.purpose, description=each.purpose, epilog=text, formatter_class=layout
        )
        each.arguments(command)
        command.set_defaults(run=each.run)
    return parser


def _without_values(arguments: list[str]) -> list[str]:
    """Go lets a switch have a value, and scripts for distribution say `--delete-untagged=true`."""
    switches = ("--dry-run", "--delete-untagged", "--quiet", "-d", "-m", "-q")
    off = {f"{switch}=false" for switch in switches}
    on = {f"{switch}=true": switch for switch in switches}
    return [on.get(argument, argument) for argument in arguments if argument not in off]


class _Version(argparse.Action):
    """argparse's own wants the text at once; ours is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"moorage {version()}")
        parser.exit()


def _with_command(arguments: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """A configuration as the only argument means serve."""
    names = [each.name for each in COMMANDS]
    if len(arguments) > 1 or arguments[0].startswith("-") or arguments[0] in names:
        return arguments
    if not Path(arguments[0]).exists() and (close := difflib.get_close_matches(arguments[0], names, n=1)):
        parser.error(f"{arguments[0]} is neither a command nor a file; did you mean {close[0]}?")
    return ["serve", *arguments]
