"""`registry check-config`: the settings that hold and their origins, and whether the files that they name will do."""

import sys

from registry.commands.refusal import of_setting, one_line
from registry.config import ConfigError, Loaded, files, show
from registry.serving.tls import server_context


def run(loaded: Loaded) -> int:
    """Raises Refusal, when all is shown."""
    lines = [f"# {loaded.source}, and the variables REGISTRY_*", *show.lines(loaded), ""]
    sys.stdout.write("\n".join(lines))
    for warning in loaded.warnings:
        sys.stderr.write(f"registry: warning: {one_line(warning)}\n")
    check_files(loaded)
    return 0


def check_files(loaded: Loaded) -> None:
    """Raises Refusal for the first that will not do."""
    try:
        files.check_files(loaded)
        server_context(loaded.config.http.tls)
    except ConfigError as exc:
        raise of_setting(exc, loaded) from exc
