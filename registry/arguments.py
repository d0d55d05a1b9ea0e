"""The words of the command line: commands, their arguments and what may stand there, and the help of all.

What a command does is elsewhere (registry/cli.py, registry/commands/). Nothing here imports more than argparse before a
value asks for it, so that `registry --version` is quick.
"""

import argparse
import difflib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from registry.version import version

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


class Command(NamedTuple):
    """arguments: adds them to the command's parser."""

    name: str
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
        "ask the upstreams of a cache: reachable, logged in as whom, pulls left; exit code 1 where one cannot be used",
        ("registry upstreams config.yml", "registry upstreams --json config.yml"),
        _upstreams_arguments,
    ),
    Command(
        "prefetch",
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
        "ask whether the registry on this machine, or in this container, answers",
        ("registry healthcheck", "registry healthcheck config.yml", "registry healthcheck --ready config.yml"),
        _healthcheck_arguments,
    ),
    Command(
        "check-config",
        "show the settings that hold and their origins, and check the files they name",
        ("registry check-config config.yml", "REGISTRY_STORAGE_DELETE_ENABLED=true registry check-config"),
        _config_argument,
    ),
)


def parse(arguments: list[str]) -> argparse.Namespace | None:
    """What was asked for, with the name of the `command`; None: nothing, and the help is printed.

    Exits as argparse does, where the words are wrong or ask for help.
    """
    parser = _parser()
    arguments = _without_values(arguments)
    if not arguments:
        parser.print_help()
        return None
    return parser.parse_args(_with_command(arguments, parser))


def _parser() -> argparse.ArgumentParser:
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
        command.set_defaults(command=each.name)
    return parser


def _without_values(arguments: list[str]) -> list[str]:
    """Go lets a switch have a value, and scripts for distribution say `--delete-untagged=true`."""
    switches = ("--dry-run", "--delete-untagged", "--quiet", "-d", "-m", "-q")
    off = {f"{switch}=false" for switch in switches}
    on = {f"{switch}=true": switch for switch in switches}
    return [on.get(argument, argument) for argument in arguments if argument not in off]


def _with_command(arguments: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """A configuration as the only argument means serve."""
    names = [each.name for each in COMMANDS]
    if len(arguments) > 1 or arguments[0].startswith("-") or arguments[0] in names:
        return arguments
    if not Path(arguments[0]).exists() and (close := difflib.get_close_matches(arguments[0], names, n=1)):
        parser.error(f"{arguments[0]} is neither a command nor a file; did you mean {close[0]}?")
    return ["serve", *arguments]


class _Version(argparse.Action):
    """argparse's own wants the text at once; ours is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(f"moorage {version()}\n")
        parser.exit()
