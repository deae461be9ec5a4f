"""States handed from one session to another: one learns, the other predicts with what it has learnt."""

from allweather.session.session import Session
from allweather.session.snapshot import Snapshot


def state_of(session: Session) -> Snapshot:
    """All that moves in the session's network, as it is now; it stays as it is while the session goes on."""
    with session._alone():
        return session._adapted.snapshot()


def serve(session: Session, state: Snapshot) -> None:
    """Makes the session predict with a state of another session of the same network and method.

    Guard and random numbers stay the session's own. A state without an optimizer's part leaves the optimizer too.
    """
    with session._alone():
        session._adapted.restore(state)
