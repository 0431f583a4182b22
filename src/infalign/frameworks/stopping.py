"""Errors that no framework may swallow."""

from contextlib import contextmanager


class TrainingStopped(BaseException):
    """Ends a training whose rewards cannot be had.

    Not an `Exception`: OpenRLHF notes those of a reward function in its log and goes on without
    the reward, and one of verl's managers gives 0 instead. This one passes them; Ray hands it to
    the trainer, which ends with its message.
    """


@contextmanager
def loudly():
    """Turns every error inside into `TrainingStopped`, with its message."""
    try:
        yield
    except Exception as error:
        raise TrainingStopped(f"{type(error).__name__}: {error}") from error
