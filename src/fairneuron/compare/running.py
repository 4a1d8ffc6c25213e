"""Running jobs here, or in several processes at once."""

from __future__ import annotations

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from fairneuron.compare.protocol import Job
from fairneuron.compare.records import Record
from fairneuron.errors import FairNeuronError, FairNeuronWarning, OutputError, warn
from fairneuron.forward import one_thread

Done = Callable[[Record], None]


def run_jobs(jobs: Sequence[Job], done: Done, workers: int = 1) -> None:
    """Runs all jobs and reports each record as it comes.

    Args:
        jobs: One per seed.
        done: Told of each record, in this process.
        workers: Processes at once; 1 runs them here. What cannot be sent to other processes, such
            as a lambda, is run here too, with a warning.

    Raises:
        FairNeuronError: What a job raised, or that a process was killed. What was reported before
            stays.
    """
    workers = min(workers, len(jobs))
    if workers > 1:
        processes = _Processes(jobs, done, workers)
        try:
            processes.start()
        except Exception as error:  # whatever it is that cannot be sent raises
            warn("compare-workers", f"Run in one process: {error}")
        else:
            processes.run()
            return
    with one_thread():
        for job in jobs:
            for record in job.run():
                done(record)


class _Processes:
    """At most so many processes at once, one per job; each sends its records through a pipe."""

    def __init__(self, jobs: Sequence[Job], done: Done, workers: int) -> None:
        self.waiting, self.done, self.workers = deque(jobs), done, workers
        self.context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.running: dict[Connection, BaseProcess] = {}
        self.told: set[str] = set()  # warnings

    def run(self) -> None:
        """Until all are done; whatever happens, no process is left."""
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.workers:
                    self.start()
                for connection in wait(list(self.running)):
                    assert isinstance(connection, Connection)  # noqa: S101  # nothing else is in it
                    self._receive(connection)
        finally:
            for process in self.running.values():
                process.terminate()
            for process in self.running.values():
                process.join()

    def start(self) -> None:
        """Starts the process of the next job."""
        here, there = self.context.Pipe(duplex=False)
        job = self.waiting.popleft()
        process = self.context.Process(target=_work, args=(job, there), daemon=True)
        with there:  # closed here, so that the end of the process is the end of the pipe
            process.start()
        self.running[here] = process

    def _receive(self, connection: Connection) -> None:
        try:
            message = connection.recv()
        except EOFError:
            process = self.running.pop(connection)
            process.join()
            raise OutputError(
                "compare-killed",
                "The processes of a comparison must live to its end",
                got=f"one that ended with exit code {process.exitcode}",
                cure="Give it more memory, or fewer workers; the same command goes on.",
            ) from None
        if isinstance(message, dict):
            self.done(message)
            return
        if isinstance(message, list):
            self._warn(message)
            return
        self.running.pop(connection).join()
        if isinstance(message, BaseException):
            raise message

    def _warn(self, texts: Sequence[str]) -> None:
        for text in texts:
            if text not in self.told:
                self.told.add(text)
                warnings.warn(text, FairNeuronWarning, stacklevel=2)


def _work(job: Job, connection: Connection) -> None:
    """The process: one thread; into the pipe go records, warnings, and None or what was raised."""
    # of an interrupt, and of a pipe without another end, that end tells people
    with suppress(KeyboardInterrupt, BrokenPipeError), one_thread():
        end: Any = None
        with warnings.catch_warnings(record=True) as caught:
            try:
                for record in job.run():
                    connection.send(record)
            except FairNeuronError as error:
                end = error
        ours = [w.message for w in caught if issubclass(w.category, FairNeuronWarning)]
        connection.send([str(message) for message in ours])
        connection.send(end)
