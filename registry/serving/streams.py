"""stdin, stdout and stderr as whoever starts us has left them: closed, or leading to nobody.

- Their numbers stay taken. Else the first sockets get them, what is printed goes to a client, and uvloop, which takes
  the end of such a socket for a mistake, aborts the process.
- A server does not end because nobody reads its banner. A command does, and quietly: `registry doctor | head`.
"""

import os
import sys

CLOSED_PIPE = 128 + 13
"""The exit code of a command whose reader has left, as shells report SIGPIPE."""


def occupy() -> None:
    """Opens those that are closed, on /dev/null. To be called before anything else opens a file."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
            setattr(sys, name, open(number, mode))  # noqa: SIM115 - as long as the process


def say(text: str) -> None:
    """On stdout, if anybody reads it, and there is space where it goes."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        discard()


def discard() -> None:
    """What stdout still holds, and all that follows: the interpreter would complain about it at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
