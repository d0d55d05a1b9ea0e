"""Which settings are secrets, and how anything is shown without them: in errors, in check-config, in the banner."""

import re

MASK = "******"
_SECRET = re.compile(
    r"secret|(?<!ht)passw|token|credential|authorization|cookie|connectionstring|key(id)?$", re.IGNORECASE
)
_PATHS_OF_FILES = frozenset({"http.tls.key"})
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def is_secret(path: str) -> bool:
    """By name, so that a third party's driver is covered too. Rather one too many."""
    return path not in _PATHS_OF_FILES and any(_SECRET.search(part) for part in path.split("."))


def show(path: str, value: object) -> str:
    """One line of text for a setting's value."""
    if value in ("", (), None):
        return '""' if value == "" else "[]" if value == () else "none"
    if is_secret(path):
        return MASK
    return _USERINFO.sub(MASK, _text(value))


def _text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{key}: {show(str(key), each)}" for key, each in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_text(each) for each in value) + "]"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value))
