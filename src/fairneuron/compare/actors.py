"""Running jobs on Ray: each in an actor, which hands out one record at a time.

What an actor that is lost handed out before is kept: another one computes what is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fairneuron.checks import copied
from fairneuron.compare.messages import Done, Listener, messages
from fairneuron.compare.protocol import Job
from fairneuron.compare.setting import OneSplit
from fairneuron.errors import OptionError
from fairneuron.search.cluster import RETRIES, Parcel, last_line, parcel, ray_at, room

_TAKES = {"CPU": 1.0}  # a job: it runs on one thread


def run_jobs_on_ray(
    jobs: Sequence[Job], done: Done, address: str, workers: int | None = None
) -> None:
    """Runs all jobs on Ray and reports each record as it comes.

    The data are read and split here: workers read no files.

    Args:
        jobs: One per seed.
        done: Told of each record, in this process.
        address: As for ``ray_at``.
        workers: Jobs at once; as many as there is room for if None.

    Raises:
        OptionError: If Ray is missing or does not answer, no machine of it has a CPU (before
            anything is submitted), a job cannot be sent or was lost three times without a record.
        FairNeuronError: What a job raised.
    """
    with ray_at(address) as ray:
        actors = _Actors(ray, jobs, done, workers)
        try:
            actors.run()
        finally:
            actors.stop()


@dataclass
class _Task:
    """A job on its way.

    Attributes:
        job: What is missing of it.
        lost: How many actors it lost since its last record.
    """

    job: Job
    lost: int = 0

    def keep(self, record: dict[str, Any]) -> None:
        """A record came: it is not missing any more, and its base model is the one to expect."""
        pair = record["method"], record["criterion"]
        wanted = tuple(each for each in self.job.wanted if each != pair)
        self.job, self.lost = replace(self.job, wanted=wanted, base=record["base"]), 0

    def parcel(self) -> Parcel:
        """What is missing, with its data; a trained network leaves its GPU."""
        setting, model = self.job.setting, self.job.setting.model
        sent = replace(
            setting,
            splits=OneSplit(setting.splits(self.job.seed)),
            model=copied(model).cpu() if isinstance(model, nn.Module) else model,
        )
        return parcel(replace(self.job, setting=sent))


class _Actors:
    """As many actors at once as there is room for; each runs one job after the other."""

    def __init__(self, ray: Any, jobs: Sequence[Job], done: Done, workers: int | None) -> None:
        self.ray, self.most = ray, workers
        self.waiting = deque(_Task(job) for job in jobs)
        self.listener = Listener(done)
        self.actor = ray.remote(_Worker).options(num_cpus=_TAKES["CPU"], max_restarts=0)
        self.made: list[Any] = []
        self.idle: list[Any] = []
        self.running: dict[Any, tuple[Any, _Task]] = {}  # by what comes next

    def run(self) -> None:
        """Until all are done."""
        while self.waiting or self.running:
            self._start()
            (reference,), _ = self.ray.wait(list(self.running), num_returns=1)
            self._take(reference)

    def stop(self) -> None:
        """No actor is left."""
        for actor in self.made:
            self._end(actor)

    def _start(self) -> None:
        """Gives jobs to actors, as long as there are both, and ends actors that have none."""
        while self.waiting and len(self.running) < self._room():
            task = self.waiting.popleft()
            sent = task.parcel()
            actor = self.idle.pop() if self.idle else self._made()
            self.running[actor.next.remote(sent)] = actor, task
        while self.idle and not self.waiting:
            self._end(self.idle.pop())

    def _made(self) -> Any:
        self.made.append(self.actor.remote())
        return self.made[-1]

    def _end(self, actor: Any) -> None:
        with suppress(Exception):  # it is gone, or Ray is
            self.ray.kill(actor)

    def _room(self) -> int:
        """How many jobs run at once, on the machines that there are by now."""
        there = room(self.ray, _TAKES)
        return there if self.most is None else min(there, self.most)

    def _take(self, reference: Any) -> None:
        """What an actor says, or that it was lost."""
        actor, task = self.running.pop(reference)
        raised = self.ray.exceptions
        try:
            message = self.ray.get(reference)
        except raised.RayTaskError as error:
            raise _broken(error) from error
        except raised.RayError as error:
            self._end(actor)  # it may be out of reach alone
            self._lost(task, error)
        else:
            self._received(actor, task, message)

    def _received(self, actor: Any, task: _Task, message: Any) -> None:
        if isinstance(message, dict):
            task.keep(message)
        if self.listener.hear(message):
            self.idle.append(actor)
        else:
            self.running[actor.next.remote(None)] = actor, task

    def _lost(self, task: _Task, error: BaseException) -> None:
        task.lost += 1
        if task.lost > RETRIES:
            raise _broken(error) from error
        if task.job.wanted:
            self.waiting.appendleft(task)


class _Worker:
    """The actor."""

    _messages: Iterator[Any] = iter(())

    def next(self, sent: Parcel | None) -> Any:
        """The next message of the job that is sent, or of the one before."""
        if sent is not None:
            self._messages = messages(sent.open())
        return next(self._messages)


def _broken(error: BaseException) -> OptionError:
    return OptionError(
        "option-ray",
        "Every job on Ray must come to its end",
        got=last_line(error),
        cure="Check that its workers have fairneuron, your code, and enough memory; records that "
        "came are kept, and the same command goes on.",
    )
