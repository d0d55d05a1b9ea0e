"""Refusal: what stops a command."""


class Refusal(Exception):
    """The text tells the user, in one line, what to do. status: with which the process ends."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status
