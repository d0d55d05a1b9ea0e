import io
import json
import logging
from collections.abc import Iterator, Mapping

import pytest

from registry.config import LogConfig
from registry.config.model import AccessLogConfig
from registry.watching import logs

NASTY = 'a"b\\c\r\nlevel=error\x1b[31m\x00\x7f\x85\u2028\u202e\udcff'


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger(logs.ACCESS)
    before = (root.handlers[:], root.level, access.disabled)
    yield
    root.handlers[:], access.disabled = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def configure(
    stream: io.StringIO, formatter: str = "text", fields: Mapping[str, object] | None = None
) -> logging.Logger:
    logs.configure(LogConfig(formatter=formatter, fields=fields or {}), stream)
    return logging.getLogger("registry.test")


def test_text_is_one_line_of_key_and_value(stream: io.StringIO) -> None:
    log = configure(stream, fields={"service": "registry", "a b": 1})
    log.info("pushed %s", "a/b:v1", extra={"size": 3, "digest": "sha256:ab", "ok": True, "tags": ["a", "b"]})
    line = stream.getvalue()
    assert line.startswith('time="20')
    assert line.partition('Z" ')[2] == (
        'level=info msg="pushed a/b:v1" a_b=1 digest="sha256:ab" ok=true service=registry size=3 '
        'tags="[\\"a\\", \\"b\\"]"\n'
    )


@pytest.mark.parametrize("formatter", ["json", "logstash"])
def test_json_is_one_object_a_line(stream: io.StringIO, formatter: str) -> None:
    log = configure(stream, formatter, fields={"service": "registry", "msg": "mine"})
    log.warning("low on %s", "space", extra={"free": 3, "nested": {"a": [1]}, "other": object})
    found = json.loads(stream.getvalue())
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "msg": "low on space",
        "fields.msg": "mine",
        "free": 3,
        "nested": {"a": [1]},
        "other": "<class 'object'>",
        "service": "registry",
    }


@pytest.mark.parametrize("formatter", ["text", "json"])
def test_nothing_that_is_logged_can_forge_a_line_or_move_the_cursor(stream: io.StringIO, formatter: str) -> None:
    log = configure(stream, formatter, fields={NASTY: NASTY})
    log.error("GET /%s", NASTY, extra={"agent": NASTY, "deep": {"x": [NASTY]}})
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert line.count("\n") == 1


def test_json_gives_back_what_was_logged(stream: io.StringIO) -> None:
    configure(stream, "json").error("%s", NASTY)
    assert json.loads(stream.getvalue())["msg"] == NASTY


@pytest.mark.parametrize("formatter", ["text", "json"])
def test_an_exception_stays_on_its_line(stream: io.StringIO, formatter: str) -> None:
    log = configure(stream, formatter)
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        log.exception("failed")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "bad\\nvalue" in line
    assert "Traceback (most recent call last):\\n" in line


@pytest.mark.parametrize("formatter", ["text", "json"])
def test_a_stack_is_a_field(stream: io.StringIO, formatter: str) -> None:
    configure(stream, formatter).info("here", stack_info=True)
    assert stream.getvalue().count("\n") == 1
    assert "Stack (most recent call last):\\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error", "fatal"]),
        ("info", ["info", "warning", "error", "fatal"]),
        ("warn", ["warning", "error", "fatal"]),
        ("error", ["error", "fatal"]),
    ],
)
def test_levels_have_distributions_names(stream: io.StringIO, level: str, expected: list[str]) -> None:
    logs.configure(LogConfig(level=level, formatter="json"), stream)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("registry.test").log(number, "x")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == expected


@pytest.mark.parametrize("disabled", [True, False])
def test_the_access_log_can_be_switched_off(stream: io.StringIO, disabled: bool) -> None:
    logs.configure(LogConfig(accesslog=AccessLogConfig(disabled=disabled)), stream)
    logging.getLogger(logs.ACCESS).info("GET /v2/")
    logging.getLogger("registry").info("other")
    assert ("GET" not in stream.getvalue()) is disabled
    assert "other" in stream.getvalue()


def test_configuring_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(first)
    configure(second).info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_uvicorns_coloured_copy_of_a_message_is_left_out(stream: io.StringIO) -> None:
    configure(stream)
    logging.getLogger("uvicorn.error").info("started", extra={"color_message": "\x1b[31mstarted"})
    assert "color" not in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sha256", "sha256"),
        ("a/b@c+d-e.f^g_h", "a/b@c+d-e.f^g_h"),
        ("", '""'),
        ("a b", '"a b"'),
        ("größe", '"größe"'),
        ("a=b", '"a=b"'),
        (3, "3"),
        (1.5, "1.5"),
        (None, "None"),
        (False, "false"),
        ({"a": 1}, '"{\\"a\\": 1}"'),
    ],
)
def test_quotes_only_where_they_are_needed(value: object, expected: str) -> None:
    assert logs.quote(value) == expected
