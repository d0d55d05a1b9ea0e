"""Logging, as `log.*` says: one line per record on stderr, as text or JSON.

Text is what distribution prints (`time="..." level=info msg="..." key=value`), JSON one object a line. Whatever is
passed as `extra={...}` becomes fields of the record; `log.fields` are added to each, and the id of the request that it
was written for (`http.request.id`, as distribution calls it). A path or header that a client sent may be in any of it,
so control characters are escaped everywhere: a client can neither forge a line nor move the reader's cursor
(CVE-2020-7694 was this in uvicorn).
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from registry.config import LogConfig
from registry.watching.request_ids import request_id

ACCESS = "registry.access"
"""The logger of the access log; silent under log.accesslog.disabled."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = ((logging.CRITICAL, "fatal"), (logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))

# What every record has. "color_message" is uvicorn's second copy of its message, with escape sequences.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_BARE = re.compile(r"[A-Za-z0-9\-._/@^+]+")  # logrus leaves exactly these without quotes
_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9\-._/@]+")


def configure(config: LogConfig, stream: TextIO | None = None) -> None:
    """Set up the root logger; what was set up before is replaced. stream: stderr when None."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(TextFormatter(config.fields) if config.formatter == "text" else JSONFormatter(config.fields))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS[config.level])
    logging.getLogger(ACCESS).disabled = config.accesslog.disabled


class FieldsFormatter(logging.Formatter):
    """Collects what a record says; how it is written is the subclasses' part."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__()
        self.fields = dict(fields)

    def collect(self, record: logging.LogRecord) -> dict[str, object]:
        """time, level and msg first, then the fields by name; a field of such a name gets a prefix, as with logrus."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        found: dict[str, object] = {"time": time, "level": level_name(record.levelno), "msg": record.getMessage()}
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            extra |= {"error": str(record.exc_info[1]), "traceback": self.formatException(record.exc_info)}
        if record.stack_info:
            extra["stack"] = record.stack_info
        if id := request_id():
            extra["http.request.id"] = id
        for key, value in sorted((self.fields | extra).items()):
            found[f"fields.{key}" if key in found else key] = value
        return found


class TextFormatter(FieldsFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{_NOT_IN_KEY.sub('_', key)}={quote(value)}" for key, value in self.collect(record).items())


class JSONFormatter(FieldsFormatter):
    """ASCII only, so that no control character of any kind is left as it is."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.collect(record), default=str).replace("\x7f", "\\u007f")


def level_name(level: int) -> str:
    return next((name for least, name in _NAMES if level >= least), "debug")


def quote(value: object) -> str:
    """As it is where that is one plain word, else in quotes with everything escaped that is not printable."""
    text = json.dumps(value, default=str) if isinstance(value, (bool, dict, list, tuple)) else str(value)
    if _BARE.fullmatch(text):
        return text
    return '"' + "".join(_escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
