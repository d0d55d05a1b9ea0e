"""Who may do what: (actor, action, repository) to a decision. Pure; rules per repository come here."""

from typing import Literal, NamedTuple

Access = Literal["base", "catalog", "pull", "push", "delete"]
"""What an endpoint asks for: an action on a repository, or the catalog, or the version check."""

Decision = Literal["allow", "deny", "unauthorized"]


class Actor(NamedTuple):
    """name: None for somebody who has not said who he is."""

    name: str | None = None


ANONYMOUS = Actor()


def decide(actor: Actor, access: Access, repository: str, *, authentication: bool) -> Decision:
    """authentication: is any configured? Then whoever has logged in may do everything, and nobody else anything."""
    if not authentication or actor.name is not None:
        return "allow"
    return "unauthorized"
