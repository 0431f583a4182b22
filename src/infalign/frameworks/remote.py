"""Scores from a server that `infalign serve-reward` has started: one reward model for all."""

from collections.abc import Sequence

from infalign.errors import DataError
from infalign.models.reward_server import ServerReward

from .scorer import Asked, Scored


class ServerScorer:
    """As the scorer that the server has. It names prompts, so `resolve` does nothing.

    - `url`: of the server.
    - `options`: as of `ServerReward`: `timeout`, `retries`.

    Raises DataError when the server cannot be reached, refuses a prompt, or is another one.
    """

    def __init__(self, url: str, **options):
        self.url, self._server = url, ServerReward(url, **options)

    def resolve(self, asked: Asked) -> Asked:
        """`asked` itself."""
        return asked

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """As of `Scorer`."""
        body = {"labels": [a.key for a in resolved], "responses": [a.response for a in resolved]}
        answer = self._server.ask(body)
        try:
            logs = answer["extra_logs"]
            columns = {"score": answer["rewards"], **logs}
            return [
                dict(zip(columns, map(float, row), strict=True))
                for row in zip(*columns.values(), strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.url} answered {str(answer)[:120]}, which is not what `infalign "
                "serve-reward RUN` answers. Is this its address, and of the same version?"
            ) from error
