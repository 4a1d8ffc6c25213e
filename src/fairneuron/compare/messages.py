"""What a worker, in another process, says of a job; and who listens to it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from fairneuron.compare.protocol import Job
from fairneuron.compare.records import Record
from fairneuron.errors import FairNeuronError, FairNeuronWarning
from fairneuron.forward import one_thread

Done = Callable[[Record], None]


def messages(job: Job) -> Iterator[Any]:
    """Runs a job on one thread: its records, a list of warnings, and None or what was raised."""
    end: FairNeuronError | None = None
    with warnings.catch_warnings(record=True) as caught, one_thread():
        try:
            yield from job.run()
        except FairNeuronError as error:
            end = error
    yield [str(w.message) for w in caught if issubclass(w.category, FairNeuronWarning)]
    yield end


class Listener:
    """Hands on the records of all workers, and their warnings, each once.

    Args:
        done: Told of each record.
    """

    def __init__(self, done: Done) -> None:
        self._done = done
        self._told: set[str] = set()

    def hear(self, message: Any) -> bool:
        """Takes a message; says whether it was the last one of its job.

        Raises:
            FairNeuronError: What the job raised.
        """
        if isinstance(message, dict):
            self._done(message)
            return False
        if isinstance(message, list):
            self._warn(message)
            return False
        if isinstance(message, BaseException):
            raise message
        return True

    def _warn(self, texts: list[str]) -> None:
        for text in texts:
            if text not in self._told:
                self._told.add(text)
                warnings.warn(text, FairNeuronWarning, stacklevel=2)
