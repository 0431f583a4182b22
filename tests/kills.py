"""Kills at chosen calls of this process, for tests of what survives them."""

from contextlib import contextmanager

import pytest


class Killed(BaseException):
    """Ends a call as a kill would: no handler of errors catches it."""


class Kill:
    """What became of a block that `killed_at` ends."""

    came = False


@contextmanager
def killed_at(call: int, *functions: tuple[object, str]):
    """Ends the block before call number `call`, from 0, of the functions together; all later calls
    fail too, as they would not be made.

    - `functions`: what owns each function, and its name.
    """
    left, kill = call, Kill()

    def until(function):
        def counted(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **options)

        return counted

    with pytest.MonkeyPatch.context() as patched:
        for owner, name in functions:
            patched.setattr(owner, name, until(getattr(owner, name)))
        try:
            yield kill
        except Killed:
            kill.came = True
