"""The ids that the messages of one turn have in the transcript, and in streams while they are made."""

from __future__ import annotations

from collections.abc import Callable, Container
from uuid import uuid4

from agentmatrix.chat.claims import Claims

__all__ = ["MessageIds"]


class MessageIds:
    """Gives each message of a turn its id in the transcript: the one that its model gave it, unless another message has
    that.

    Args:
        member: the name of the member.
        known: the ids in the transcript.
        claims: what members who speak at the same time have taken.
    """

    __slots__ = ("_claims", "_given", "_known", "_member")

    def __init__(self, member: str, known: Container[str], claims: Claims) -> None:
        self._member, self._known, self._claims = member, known, claims
        self._given: dict[str, str] = {}

    def given(self, id: str | None) -> str:
        """The id for a message with the id `id`. The same each time: a model streams a message in parts."""
        if id is None:
            return str(uuid4())
        given = self._given.get(id)
        if given is None:
            is_free = id not in self._known and self._claims.owner(id, self._member) == self._member
            given = self._given.setdefault(id, id if is_free else str(uuid4()))
        return given

    def of_one_answer(self) -> Callable[[str | None], str]:
        """Gives ids as `given` does, to the messages of one answer: none twice."""
        taken: set[str] = set()

        def id_for(given: str | None) -> str:
            id = self.given(given)
            if id in taken:
                id = self.given(None)
            taken.add(id)
            return id

        return id_for
