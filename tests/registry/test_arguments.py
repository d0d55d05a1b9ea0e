"""What can be typed, what is said of it, and what is refused."""

import os
from pathlib import Path

import pytest

from registry.arguments import COMMANDS, EXAMPLES, parse


def test_the_examples_in_the_help_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything from `registry` on is a command line that the parser takes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yml").write_text("")
    lines = [*EXAMPLES.splitlines()[1:], *(line for command in COMMANDS for line in command.examples)]
    for line in lines:
        words = line.split("   ")[0].split() if line.startswith(" ") else line.split()
        options = parse(words[words.index("registry") + 1 :])
        assert options is not None
        assert options.command in (command.name for command in COMMANDS)
    assert len(lines) >= 8


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_each_command_has_help_with_examples(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([name, "--help"])
    assert caught.value.code == 0
    assert f"examples:\n  registry {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sreve"], "sreve is neither a command nor a file; did you mean serve?"),
        (["check-confg"], "did you mean check-config?"),
        (["garbage-colect", "config.yml"], "invalid choice: 'garbage-colect'"),
        (["serve", "a", "b"], "unrecognized arguments: b"),
        (["--loud"], "the following arguments are required: COMMAND"),
    ],
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["0"], ["-1"], ["two"], ["257"], ["1.5"], [""], ["²"]])
def test_numbers_that_cannot_be(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["serve", f"--workers={words[0]}"])
    assert caught.value.code == 2
    assert "expected a number from 1 to 256, or auto" in capsys.readouterr().err


def test_auto_is_one_for_each_core() -> None:
    alone, many = parse(["serve", "config.yml"]), parse(["serve", "--workers", "auto"])
    assert alone
    assert many
    assert (alone.workers, many.workers) == (1, len(os.sched_getaffinity(0)))
