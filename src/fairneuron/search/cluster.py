"""Ray: found or started, its room checked, what is sent packed; and a search as trials of Tune.

Ray is started for this machine alone, without dashboard and usage statistics, unless it runs
already or an address is given. Free of torch and Ray until trials run, so that a bad option is
refused at once.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fairneuron.errors import FairNeuronError, OptionError, require_range

if TYPE_CHECKING:
    from fairneuron.progress import Progress

PLACES = ("process", "ray", "ray://HOST:PORT")
_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # if 0, Ray is at 127.0.0.1, as on these systems
_QUIET = {
    _ALONE: "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0: nothing is printed
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
_SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
RETRIES = 2  # of what a worker that was lost had at work
_UNITS = 10_000  # of a resource: Ray counts in these

Trial = Callable[[Sequence[int]], list[Any]]
"""What comes of each of some candidates, by their numbers."""


def check_place(on: str) -> None:
    """Raises an ``OptionError`` unless work can be done there, and Ray is installed if it must."""
    remote = isinstance(on, str) and on.startswith("ray://") and len(on) > len("ray://")
    if on not in ("process", "ray") and not remote:
        raise OptionError(
            "option-on",
            "Work is done in processes of this machine or on Ray",
            got=repr(on),
            cure=f"Known: {', '.join(PLACES)}.",
        )
    if on != "process" and not _installed():
        raise _missing()


def _installed() -> bool:
    try:
        return find_spec("ray") is not None
    except ValueError:  # what stands in its place is no module
        return False


def _missing(what: str = "it") -> OptionError:
    return OptionError(
        "option-ray",
        "Work on Ray needs Ray",
        got=f"an environment without {what}",
        cure="pip install 'fairneuron[ray]'",
    )


def check_resources(resources: Mapping[str, float] | None) -> dict[str, float]:
    """What a trial takes; one CPU unless given.

    Raises:
        OptionError: For what is no mapping of names to numbers of at least 0.
    """
    if resources is not None and (not isinstance(resources, Mapping) or not resources):
        raise OptionError(
            "option-resources",
            "Resources must map names to numbers",
            got=repr(resources),
            cure='For example {"CPU": 1}.',
        )
    own = {"CPU": 1.0} | dict(resources or {})
    for name, amount in own.items():
        require_range(f"resource {name}", amount, 0, math.inf, open_high=True)
    counted = {name: _units(amount) for name, amount in own.items()}
    if not any(counted.values()) or any(own[name] and not counted[name] for name in own):
        raise OptionError(
            "option-resources",
            f"A trial must take something, and of what it takes {1 / _UNITS:f} or more",
            got=_listed(own),
            cure="For example CPU 0.1.",
        )
    return own


@contextmanager
def ray_at(address: str) -> Iterator[Any]:
    """The ray module, while Ray runs.

    Args:
        address: "ray" for the Ray that this process runs or is connected to, or else a new one on
            this machine alone, which ends here; "ray://HOST:PORT" for a cluster.

    Raises:
        OptionError: If Ray is not installed, cannot be reached any more, or would listen to other
            machines.
    """
    with ExitStack() as stack:
        stack.enter_context(_environment(_QUIET))
        try:
            import ray
            import ray.tune
        except ImportError as error:
            raise _missing() from error
        if address != "ray":
            try:
                stack.enter_context(_connected(ray, address))
            except ImportError as error:
                raise _missing("its client") from error
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise OptionError(
                    "option-ray",
                    "There must be a Ray that answers at the address",
                    got=f"{address}: {last_line(error)}",
                    cure="Check it, and RAY_AUTH_MODE if it wants a token.",
                ) from error
        elif not ray.is_initialized():
            _require_alone(ray)
            stack.callback(ray.shutdown)
            ray.init("local", include_dashboard=False, runtime_env=_interpreter(), **_SILENT)
        with nullcontext() if address == "ray" else _answering(address):
            yield ray


def _connected(ray: Any, address: str) -> Any:
    """The connection to a cluster; asks twice, as its server now and then fails to start a part."""
    try:
        return ray.init(address, **_SILENT)
    except ConnectionAbortedError:
        return ray.init(address, **_SILENT)


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """While a cluster is used, its server of Ray's client must answer."""
    import grpc

    try:
        yield
    except BrokenPipeError:  # of whoever reads what we print
        raise
    except (ConnectionError, grpc.RpcError) as error:
        details = getattr(error, "details", None)
        raise OptionError(
            "option-ray",
            "A cluster must answer until all is done",
            got=f"{address}: {details() if callable(details) else last_line(error)}",
            cure="Run it again when it does; records of a comparison are kept.",
        ) from error


def _interpreter() -> dict[str, str] | None:
    """Says which interpreter workers run in, where its path means something else to a shell.

    Ray starts them by a line of shell that does not quote it: where it holds a space none starts,
    and whoever asked waits for ever.
    """
    quoted = shlex.quote(sys.executable)
    return None if quoted == sys.executable else {"py_executable": quoted}


def _require_workers(ray: Any) -> None:
    """Refuses a Ray of the caller's whose workers for Tune would never start."""
    quoted = _interpreter()
    if quoted and "py_executable" not in ray.get_runtime_context().runtime_env:
        raise OptionError(
            "option-ray",
            "Ray starts workers by a line of shell without quotes, so the path of its Python must "
            "be plain",
            got=sys.executable,
            cure=f"Call ray.init(runtime_env={quoted!r}), or leave starting Ray to fairneuron.",
        )


def _require_alone(ray: Any) -> None:
    """Refuses a Ray that was imported in another environment: it would listen to everybody."""
    where = ray.util.get_node_ip_address()
    if not where.startswith("127."):
        raise OptionError(
            "option-ray",
            "A Ray that is started here is for this machine alone",
            got=f"one that was imported before, at {where}",
            cure=f"Set {_ALONE}=0 before ray is imported, or call ray.init yourself.",
        )


def run_on_ray(
    trial: Trial,
    groups: Sequence[Sequence[int]],
    address: str,
    resources: Mapping[str, float],
    progress: Progress,
) -> dict[int, Any]:
    """Runs candidates as trials of Ray Tune, as many trials as there is room for at once.

    Args:
        trial: What a trial does with its candidates; sent to the workers.
        groups: Numbers of candidates that stay together.
        address: As for ``ray_at``.
        resources: What a trial takes.
        progress: Told of each trial, where this process runs Tune itself.

    Returns:
        What came of each candidate, by number.

    Raises:
        OptionError: If no machine of the cluster has these resources or its workers could not be
            started (before anything is submitted), or a trial was lost three times.
        FairNeuronError: What a trial raised.
    """
    with ray_at(address) as ray, _in_memory() as storage:
        if address == "ray":
            _require_workers(ray)
        tune = ray.tune
        count = min(len(groups), room(ray, resources))
        batches = [[n for group in groups[i::count] for n in group] for i in range(count)]
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_run, sent=parcel(trial)), dict(resources)),
            param_space={"candidates": tune.grid_search(batches)},
            run_config=tune.RunConfig(
                **storage,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_told(tune, progress, count)] if address == "ray" else [],
            ),
        )
        results = [_found(result) for result in tuner.fit()]
    return {number: one for found in results for number, one in found.items()}


@dataclass(frozen=True)
class Parcel:
    """What is sent to a worker, packed, with where this process finds its modules.

    Attributes:
        content: What is sent.
        path: Folders of modules.
    """

    content: bytes
    path: tuple[str, ...]

    def open(self) -> Any:
        """What was sent. Modules of the sender are found where the worker has the same folders."""
        from ray import cloudpickle

        sys.path += [folder for folder in self.path if folder not in sys.path]
        return cloudpickle.loads(self.content)


def parcel(value: object) -> Parcel:
    """Packs a value for a worker; functions of a script, and lambdas, too.

    Raises:
        OptionError: For what cannot be sent.
    """
    from ray import cloudpickle

    try:
        content: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever it is that cannot be sent raises
        raise OptionError(
            "option-on",
            "What is done on Ray must be something that can be sent to other processes",
            got=last_line(error),
            cure="Leave out what holds locks, files or connections, or do it in this process.",
        ) from error
    return Parcel(content, tuple(os.path.abspath(folder) for folder in sys.path))  # noqa: PTH100


@contextmanager
def _in_memory() -> Iterator[dict[str, Any]]:
    """Where Tune keeps its state: in the memory of the process that runs it.

    Nothing is read from it again, and no folder has to be one that all machines can reach.
    """
    import fsspec
    import pyarrow.fs

    files, path = fsspec.filesystem("memory"), f"/fairneuron-{uuid4().hex}"
    handler = pyarrow.fs.FSSpecHandler(files)
    try:
        yield {"storage_path": path, "storage_filesystem": pyarrow.fs.PyFileSystem(handler)}
    finally:
        with suppress(FileNotFoundError):  # elsewhere, with a cluster of others
            files.rm(path, recursive=True)


def room(ray: Any, resources: Mapping[str, float]) -> int:
    """How many trials or jobs run at once.

    Args:
        ray: The module, connected.
        resources: What each of them takes.

    Raises:
        OptionError: If no machine of the cluster has these resources.
    """
    wanted = {name: amount for name, amount in resources.items() if amount}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    found = sum(
        min((_units(own.get(n, 0)) // _units(amount) for n, amount in wanted.items()), default=1)
        for own in machines
    )
    if not found:
        most = {name: max((own.get(name, 0) for own in machines), default=0) for name in wanted}
        raise OptionError(
            "option-resources",
            "A machine of the cluster must have what is taken",
            got=_listed(wanted),
            cure=f"The most that one has: {_listed(most)}.",
        )
    return found


def _units(amount: float) -> int:
    return round(amount * _UNITS)


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


def _run(config: dict[str, Any], sent: Parcel) -> dict[str, Any]:
    """A trial, in its worker. An error of ours is a result too: Ray hands on but its text."""
    from fairneuron.forward import one_thread

    numbers = config["candidates"]
    with one_thread():
        try:
            trial: Trial = sent.open()
            return {"found": dict(zip(numbers, trial(numbers), strict=True))}
        except FairNeuronError as error:
            return {"error": error}


def _found(result: Any) -> dict[int, Any]:
    """What came of the candidates of a trial."""
    metrics = result.metrics or {}
    if "error" in metrics:
        raise metrics["error"]
    if result.error is not None or "found" not in metrics:
        raise OptionError(
            "option-ray",
            "Every trial must come to its end",
            got=last_line(result.error) if result.error else "one that did not",
            cure="Check that its workers have fairneuron, your code, and enough memory.",
        ) from result.error
    found: dict[int, Any] = metrics["found"]
    return found


def last_line(error: BaseException) -> str:
    """What an error of Ray's says, without the lines of its traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].rstrip(".")


def _told(tune: Any, progress: Progress, of: int) -> Any:
    """A callback of Tune that tells of each trial."""

    class Told(tune.Callback):  # type: ignore[misc]
        done = 0

        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            self.done += 1
            progress("trials on Ray", self.done, of)

    return Told()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that are set in here."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
