"""An application's lifespan, driven from outside."""

import pytest
from starlette.types import Receive, Scope, Send

from registry.serving.lifespan import LifespanFailed, lifespan


class App:
    """Says what it is told to, at each of the two events; an exception is raised instead."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = answers
        self.heard: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["key"] = "value"
        for answer in self.answers:
            self.heard.append((await receive())["type"])
            if isinstance(answer, Exception):
                raise answer
            await send({"type": answer})


UP, DOWN = "lifespan.startup.complete", "lifespan.shutdown.complete"


async def test_up_and_down() -> None:
    app = App(UP, DOWN)
    async with lifespan(app) as state:
        assert state == {"key": "value"}
        assert app.heard == ["lifespan.startup"]
    assert app.heard == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("answers", [(LookupError("why"),), ("lifespan.startup.failed", LookupError("why"))])
async def test_what_the_application_raises_at_its_start(answers: tuple[str | Exception, ...]) -> None:
    """Starlette says "failed" before it raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            await send({"type": answer})

    with pytest.raises(LookupError, match="why"):
        async with lifespan(app):
            pytest.fail("it did not start")


@pytest.mark.parametrize("answers", [(), ("lifespan.startup.failed",)], ids=["nothing", "failed"])
async def test_application_that_does_not_start(answers: tuple[str, ...]) -> None:
    with pytest.raises(LifespanFailed, match="startup"):
        async with lifespan(App(*answers)):
            pytest.fail("it did not start")


async def test_what_the_application_raises_at_its_end() -> None:
    with pytest.raises(LookupError, match="why"):
        async with lifespan(App(UP, LookupError("why"))):
            pass


async def test_error_of_the_server_ends_the_application() -> None:
    app = App(UP, DOWN)
    with pytest.raises(LookupError, match="why"):
        async with lifespan(app):
            raise LookupError("why")
    assert app.heard == ["lifespan.startup"]
