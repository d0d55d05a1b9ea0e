"""What a request was answered with: counted once, for all who tell of it (access log, metrics, traces)."""

from starlette.types import Message, Scope, Send

_KEY = "registry.watching.answered"


class Answered:
    """status: 0 as long as there is none.   size: bytes of the body so far, those sent past the event loop as well."""

    __slots__ = ("_send", "size", "status")

    def __init__(self, send: Send) -> None:
        self.status = self.size = 0
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.size += len(message.get("body", b"")) + message.get("count", 0)
        await self._send(message)


def counted(scope: Scope, send: Send) -> tuple[Answered, Send]:
    """The count, and what the application is to send through. Who asks first counts for those further in."""
    found: Answered | None = scope.get(_KEY)
    if found is not None:
        return found, send
    answered = scope[_KEY] = Answered(send)
    return answered, answered.send
