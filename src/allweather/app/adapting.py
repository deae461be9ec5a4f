"""A session along a stream, end to end: frames are read ahead and results written while the network works."""

from functools import partial

from torch import Tensor

from allweather.app.console import progress, rate
from allweather.app.output import Output
from allweather.app.pictures import Seen, Written
from allweather.data import Stream
from allweather.runs.evaluate import Outcome, Protocol, run
from allweather.runs.overlap import Ahead, Behind, workers
from allweather.session import Session


def adapt_along(
    session: Session,
    stream: Stream,
    protocol: Protocol,
    batch: int,
    skip: frozenset[str],
    folder: Output,
    source: Session | None = None,
) -> None:
    """Adapts along the stream and writes every frame's outcome into the folder, in order, with a progress bar.

    Whatever ends it, frames that were predicted are written and recorded first.

    Args:
        skip: names of frames that are done.
        source: a session of the source method on the same network, where the film shows its predictions.

    Raises:
        AllWeatherError: where an output cannot be written, or the method cannot work.
    """
    readers = 1 if stream.video else workers()
    with progress() as bar, Ahead(stream, readers) as ahead:
        task = bar.add_task(session.method.name, total=len(stream) - len(skip), rate="")

        def keep(written: Written) -> None:
            folder.keep(written)
            bar.advance(task)
            bar.update(task, rate=rate(bar.tasks[0].speed))

        with Behind(partial(folder.write, classes=session.model.classes), keep, workers()) as behind:
            for outcome in run(session, ahead, protocol, batch, skip):
                seen = Seen(outcome, _source_logits(source, session, outcome))
                behind.put(seen, seen.nbytes)


def _source_logits(source: Session | None, session: Session, outcome: Outcome) -> Tensor | None:
    """The source network's logits, C×h×w, where they are wanted."""
    if source is None or outcome.frame is None:
        return None
    return outcome.logits if session.method.name == source.method.name else source(outcome.frame.image).logits
