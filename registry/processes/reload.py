"""SIGHUP: the configuration is read again, what can change in a running registry changes, and the log names the rest.

- Changed at once: `log.*`, and certificate, key and CAs of `http.tls`, for new connections. They are taken together or
  not at all, and from the files as they are now, whether their paths have changed or not. To begin or to cease to ask
  clients for certificates needs a restart.
- By themselves, without a signal: the htpasswd file, and the passwords of upstreams that stand in files.
- All else needs a restart.
- A configuration, or a certificate, that cannot be used changes nothing, and the log says why.

The parent of several workers does it first, for those that it will fork, and passes the signal on where it went well.
A registry whose terminal goes away gets the same signal, and stops as it always did.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace

from registry.config import Config, ConfigError, Loaded, files, show
from registry.serving.tls import ServerContext, replace_files
from registry.watching import logs

log = logging.getLogger(__name__)

Reload = Callable[[ServerContext | None], bool]
"""(the context of the listeners) -> did it go well?"""


class Reloader:
    """A Reload. again: reads the configuration; raises ConfigError.   quiet: another process says the same."""

    def __init__(self, loaded: Loaded, again: Callable[[], Loaded]) -> None:
        self._running, self._again = loaded.config, again
        self.quiet = False

    def __call__(self, context: ServerContext | None) -> bool:
        try:
            loaded = self._again()
            files.check_files(loaded)
            secured = context is not None and bool(loaded.config.http.tls.certificate)
            wanted = self._taken_over(loaded.config, tls=secured)
            if context is not None and secured:
                replace_files(context, wanted.http.tls)
        except (ConfigError, OSError) as exc:
            log.error("nothing was reloaded, as the configuration cannot be used: %s", exc)
            return False
        reloaded = changes(self._running, wanted)
        if secured:
            reloaded |= {"http.tls.certificate"} | ({"http.tls.clientcas"} if wanted.http.tls.clientcas else set())
        waiting = changes(wanted, loaded.config)
        self._running = wanted
        turned_down = logs.LEVELS[wanted.log.level] > logging.INFO
        if turned_down:
            self._say(reloaded, waiting, loaded)  # behind it nobody would hear
        logs.configure(wanted.log)
        if not turned_down:
            self._say(reloaded, waiting, loaded)
        return True

    def _say(self, reloaded: set[str], waiting: set[str], loaded: Loaded) -> None:
        if self.quiet:
            return
        for warning in loaded.warnings:
            log.warning("%s", warning)
        names = ", ".join(sorted(reloaded)) or "nothing"
        log.info("the configuration was read again", extra={"reloaded": names, "source": loaded.source})
        if waiting:
            log.warning("these settings have changed, too, and need a restart: %s", ", ".join(sorted(waiting)))

    def _taken_over(self, fresh: Config, *, tls: bool) -> Config:
        """The configuration that runs, with what can be changed in it."""
        http = self._running.http
        if tls:
            new = fresh.http.tls
            authorities = new.clientcas if http.tls.clientcas and new.clientcas else http.tls.clientcas
            files = replace(http.tls, certificate=new.certificate, key=new.key, clientcas=authorities)
            http = replace(http, tls=files)
        return replace(self._running, log=fresh.log, http=http)


def changes(before: Config, after: Config) -> set[str]:
    """Paths of the settings in which they differ."""
    old, new = dict(show.settings(before)), dict(show.settings(after))
    return {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}


class Terminal:
    """Of a registry that a person has started by hand."""

    def __init__(self) -> None:
        self._had_one = os.isatty(0)

    def is_gone(self) -> bool:
        return self._had_one and not os.isatty(0)
