"""What became of a batch's update, as a value: a kind out of six, and the reason in words."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["accepted", "shrunk", "rolled-back", "reset", "resting", "skipped"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FORMER = {"rolled back": "rolled-back"}  # kinds as records of version 0.1 spell them
_RESTING = "resting after a reset"


@dataclass(frozen=True)
class Decision:
    """What the session decided about one batch.

    Attributes:
        kind: `accepted`, the update stands, if the method made one (`Result.iterations` 0: it found nothing to learn
            from); `shrunk`, the guard took part of it back; `rolled-back`, all of it; `reset`, the source network came
            back; `resting`, predicted without adapting for a while after a reset; `skipped`, the session did not adapt
            to the batch, or a number was not finite.
        reason: why, in words; empty where accepted.
    """

    kind: Kind = "accepted"
    reason: str = ""

    @property
    def refused(self) -> bool:
        """Whether the guard kept the method from doing what it would have done."""
        return self.kind in ("shrunk", "rolled-back", "reset", "resting")

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind

    @classmethod
    def read(cls, text: str) -> "Decision":
        """The decision that `text` spells, as `str` does now or as records of version 0.1 do.

        Raises:
            ValueError: for any other text.
        """
        word, _, reason = text.partition(": ")
        if word == "skipped" and reason == _RESTING:
            return cls("resting", reason)
        word = _FORMER.get(word, word)
        for kind in KINDS:
            if kind == word:
                return cls(kind, reason)
        raise ValueError(f"expected a decision that begins with one of {', '.join(KINDS)}; got '{text}'.")
