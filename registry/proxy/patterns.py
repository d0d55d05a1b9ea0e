"""Patterns of repository names, as `allow` and `deny` have them. Pure.

`*` stands for anything within a component, `**` for any number of components: `library/*`, `team/**`, `**/base`.
"""

import re
from collections.abc import Iterable

_PATTERN = re.compile(r"[a-z0-9._/*-]+")


def parse_patterns(texts: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """Raises ValueError, with a sentence for the operator."""
    return tuple(_parse(text) for text in texts)


def _parse(text: str) -> re.Pattern[str]:
    components = text.split("/")
    if not _PATTERN.fullmatch(text) or "" in components or any("**" in c and c != "**" for c in components):
        raise ValueError(f"{text!r} is not a pattern of repository names, such as library/* or team/**")
    found = ""
    for index, component in enumerate(components):
        last = index == len(components) - 1
        if component == "**":
            found += ".+" if last and not found else "(?:/[^/]+)*" if last else "(?:[^/]+/)*"
        else:
            found += re.escape(component).replace(r"\*", "[^/]*")
            found += "" if last or (components[-1] == "**" and index == len(components) - 2) else "/"
    return re.compile(found)


def matches(patterns: Iterable[re.Pattern[str]], name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)


def permits(allow: tuple[re.Pattern[str], ...], deny: tuple[re.Pattern[str], ...], name: str) -> bool:
    """May this repository be fetched? With an `allow`, only what it matches; never what `deny` matches."""
    return (not allow or matches(allow, name)) and not matches(deny, name)
