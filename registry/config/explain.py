"""What is wrong with a YAML text, in words that say what to write instead, and the place to look at.

PyYAML names the token that it did not expect, which seldom is what the writer did wrong. No text of the file is quoted,
as it may be a secret: at most the one character that began a token.
"""

import re
from dataclasses import dataclass

import yaml


@dataclass(frozen=True, slots=True)
class Rule:
    """pattern: of PyYAML's "context: problem".   at_start: the place is where the broken thing began."""

    pattern: re.Pattern[str]
    text: str
    at_start: bool = False


RULES = (
    Rule(re.compile(r"character '\\t' that cannot start"), "a tab; YAML is indented by spaces alone"),
    Rule(re.compile(r"character '(\S)' that cannot start"), r"a value that begins with \1 needs quotes"),
    Rule(re.compile(r"quoted scalar: found unexpected end"), "a quote that is opened here is never closed", True),
    Rule(re.compile(r"unknown escape"), "in double quotes a backslash needs another one; or use single quotes"),
    Rule(
        re.compile(r"scanning an (alias|anchor)|undefined alias"), "a value that begins with * or & needs quotes", True
    ),
    Rule(
        re.compile(r"expected ',' or"),
        "a comma is missing, a value with brackets in it needs quotes, or a bracket is never closed",
    ),
    Rule(re.compile(r"expected <block end>, but found '<scalar>'"), "text behind a closing quote"),
    Rule(re.compile(r"expected <block end>"), "this line is not indented as those that it belongs to"),
    Rule(
        re.compile(r"mapping values are not allowed"),
        "a colon too many: the line is indented too far, or a value with a colon in it needs quotes",
    ),
    Rule(re.compile(r"expected the node content"), "a value is missing, or one with brackets in it needs quotes"),
    Rule(re.compile(r"could not find expected ':'"), "this line has no colon with a space behind it", True),
)


def explain(exc: yaml.MarkedYAMLError) -> tuple[str, yaml.Mark | None]:
    """(what is wrong, where)"""
    problem = exc.problem or "it cannot be read"
    said = f"{exc.context}: {problem}"
    for rule in RULES:
        if found := rule.pattern.search(said):
            mark = (rule.at_start and exc.context_mark) or exc.problem_mark or exc.context_mark
            return found.expand(rule.text), mark
    return re.sub(r"(anchor|handle) '.*?'", r"\1", problem), exc.problem_mark or exc.context_mark
