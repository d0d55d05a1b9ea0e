"""Who may do what, as one table: without authentication everybody, with it whoever has logged in."""

from typing import get_args

import pytest

from registry.policy import ANONYMOUS, Access, Actor, decide

ACCESSES: tuple[Access, ...] = get_args(Access)


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize(
    ("actor", "authentication", "decision"),
    [
        (ANONYMOUS, False, "allow"),
        (Actor("alice"), False, "allow"),
        (ANONYMOUS, True, "unauthorized"),
        (Actor(None), True, "unauthorized"),
        (Actor("alice"), True, "allow"),
        (Actor(""), True, "allow"),  # a name that is empty is a name: an htpasswd file cannot hold it
    ],
)
def test_decisions(access: Access, actor: Actor, authentication: bool, decision: str) -> None:
    repository = "" if access in ("base", "catalog") else "a/b"
    assert decide(actor, access, repository, authentication=authentication) == decision
