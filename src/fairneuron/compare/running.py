"""Running jobs here, in several processes at once, or on Ray."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from fairneuron.compare.actors import run_jobs_on_ray
from fairneuron.compare.messages import Done, Listener, messages
from fairneuron.compare.protocol import Job
from fairneuron.errors import OutputError, require_range, require_whole, warn
from fairneuron.forward import one_thread
from fairneuron.search.cluster import check_place


def require_workers(workers: int | None, on: str) -> None:
    """Raises an ``OptionError`` unless jobs can be run there, so many at once."""
    if workers is not None:
        require_whole("workers", workers)
        require_range("workers", workers, 1, 1024)
    check_place(on)


def run_jobs(
    jobs: Sequence[Job], done: Done, workers: int | None = None, on: str = "process"
) -> None:
    """Runs all jobs and reports each record as it comes.

    Args:
        jobs: One per seed.
        done: Told of each record, in this process.
        workers: Processes at once; 1, or None, runs them here. What cannot be sent to other
            processes, such as a lambda, is run here too, with a warning. On Ray: jobs at once; as
            many as there is room for if None.
        on: "process", "ray" or "ray://HOST:PORT".

    Raises:
        FairNeuronError: What a job raised, that a process was killed, or what is wrong with Ray.
            What was reported before stays.
    """
    if not jobs:
        return
    if on != "process":
        run_jobs_on_ray(jobs, done, on, workers)
        return
    workers = min(workers or 1, len(jobs))
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
        self.waiting, self.workers = deque(jobs), workers
        self.listener = Listener(done)
        self.context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.running: dict[Connection, BaseProcess] = {}

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
        if self.listener.hear(message):
            self.running.pop(connection).join()


def _work(job: Job, connection: Connection) -> None:
    """The process: sends what there is to say through the pipe."""
    # of an interrupt, and of a pipe without another end, that end tells people
    with suppress(KeyboardInterrupt, BrokenPipeError):
        for message in messages(job):
            connection.send(message)
