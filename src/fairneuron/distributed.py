"""Slicing of a Ray Dataset: where its blocks are, with the counting here.

Gao et al., Algorithm 1, lines 12 to 28, as in ``fairneuron.slicing``. Slicing couples samples twice
only: in the mean activations, which add up over blocks, and in the counts of equal paths, which
need the 128 bits of each signature. So there are two passes of tasks over the blocks, and no row
leaves its worker.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fairneuron.batches import Batches
from fairneuron.checks import copied
from fairneuron.errors import DataError, FairNeuronError, OptionError, require_known
from fairneuron.forward import one_thread
from fairneuron.paths import Means, Paths, count_paths
from fairneuron.progress import quiet
from fairneuron.slicing import Slicer

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.data import Dataset

Block = dict[str, np.ndarray]
"""Column to its values, ``(rows, ...)`` each."""

_FEW = 64  # rows that a network is checked with


class _Slicing(NamedTuple):
    """What is the same in every task of a pass; see ``activation_paths_on_ray``."""

    model: nn.Module
    example: torch.Tensor  # (few, features)
    columns: tuple[str, ...]
    gamma: float
    contribution: str
    batch_size: int | None


_Step = Callable[[Slicer, Batches, Means | None], Block]


def activation_paths_on_ray(
    model: nn.Module,
    dataset: Dataset,
    *,
    columns: str | Sequence[str] | None = None,
    gamma: float = 0.9,
    contribution: str = "signed",
    means: Means | None = None,
    batch_size: int | None = None,
) -> Paths:
    """Finds the activation path of every row of a Ray Dataset.

    The result is that of ``activation_paths`` on the same rows, in the dataset's order. Parts of
    data that were sliced relative to the same ``means`` join with ``Paths.merge``.

    The dataset is executed twice (once if ``means`` are given), and its first rows once more;
    ``dataset.materialize()`` first, if that is slow, or random. A task holds the inputs of one
    block, and runs on one thread. Ray runs the tasks of a lost worker again, as often as it takes.
    To this process come 16 bytes a row, and the mean activations of each block. FairNeuron must be
    installed where the workers are.

    Args:
        model: As for ``activation_paths``; the tasks run a copy on the CPU.
        dataset: Rows of numbers; from a Ray that still runs.
        columns: A column of vectors, or the columns in the order in which the network reads them;
            all of them, in the order of the schema, unless given. They are read as float32.
        gamma: As for ``activation_paths``, like the following ones.
        contribution: "signed" or "absolute".
        means: Mean activations to subtract; those of the dataset unless given.
        batch_size: Samples whose activations a task has in memory at once, at most.

    Returns:
        Path ids and counts.

    Raises:
        OptionError: If Ray is not installed or does not run, for unknown columns, or for gamma
            outside (0, 1].
        DataError: For something else than a Ray Dataset, no rows, other rows in the second pass,
            or columns that hold no numbers.
        ModelError: For a network that cannot be traced, or non-finite activations, naming the
            layer.
    """
    ray = _ray(dataset)
    with _in_order(dataset):
        first = next(_blocks(dataset.limit(_FEW), _FEW), None)
        if first is None:
            raise DataError(
                "data-empty", "Slicing needs samples", got="none", cure="Check the dataset."
            )
        wanted = first if columns is None else columns
        names = tuple([wanted] if isinstance(wanted, str) else wanted)
        if not names:
            raise OptionError(
                "option-columns", "A network reads columns", got="none", cure="Name some."
            )
        example = _inputs(first, names)
        Slicer(model, example, gamma, contribution)  # refused here, rather than in every task
        slicing = _Slicing(copied(model).cpu(), example, names, gamma, contribution, batch_size)
        shared = ray.put(slicing)
        once = means is not None
        if means is None:
            blocks = _results(dataset, _sums, shared, None)
            means = reduce(operator.add, (m for block in blocks for m in _means(block)))
        blocks = _results(dataset, _signatures, shared, means)
        parts = [[block["low"], block["high"]] for block in blocks]
        words = np.concatenate([np.zeros((2, 0), dtype=np.int64), *parts], axis=1)  # (2, rows)
    if not once and words.shape[1] != means.samples:
        raise DataError(
            "data-once",
            "Each pass over the samples must give the same ones",
            got=f"{means.samples} samples, then {words.shape[1]}",
            cure="Call dataset.materialize() first.",
        )
    return count_paths(words.T, means, gamma, contribution)


def _ray(dataset: object) -> Any:
    """The ray module, if there is one, and it runs."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise OptionError(
            "option-ray",
            "Slicing on Ray needs Ray",
            got="an environment without it",
            cure="pip install 'fairneuron[ray]'",
        ) from error
    if not isinstance(dataset, ray.data.Dataset):
        raise DataError(
            "data-type",
            "The data must be a Ray Dataset",
            got=type(dataset).__name__,
            cure="Make one with ray.data.from_numpy or read_parquet, or call activation_paths.",
        )
    if not ray.is_initialized():  # it was when the dataset was made
        raise OptionError(
            "option-ray",
            "The Ray that a dataset is of must still run",
            got="one that was shut down",
            cure="Call ray.init, then make the dataset again.",
        )
    return ray


@contextmanager
def _in_order(dataset: Dataset) -> Iterator[None]:
    """Executes this dataset's blocks in order; all else keeps its setting.

    Otherwise blocks come in the order in which tasks end. Indices in the rows would be no help: a
    task is not told which of the dataset's rows it got.
    """
    options = dataset.context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        yield
    finally:
        options.preserve_order = before


def _blocks(dataset: Dataset, rows: int | None = None) -> Iterator[Block]:
    """The blocks of a dataset, or pieces of so many rows."""
    blocks: Any = dataset.iter_batches(batch_size=rows, batch_format="numpy")
    return iter(blocks)


def _results(
    dataset: Dataset, step: _Step, shared: ObjectRef[_Slicing], means: Means | None
) -> Iterator[Block]:
    """What a step gives for the blocks, in their order; raises an error of ours that it raised."""
    task: Callable[[Any], Any] = partial(_task, step=step, shared=shared, means=means)
    done = dataset.map_batches(task, batch_size=None, batch_format="numpy", zero_copy_batch=True)
    for block in _blocks(done):
        for error in block.get("error", ()):
            if error is not None:
                raise error
        if block:
            yield block


# In the workers


def _task(
    block: Block, step: _Step, shared: ObjectRef[_Slicing], means: Means | None
) -> Iterator[Block]:
    """Takes a step on the rows of a block, unless there are none.

    An error of ours is a result too: Ray would hand on nothing but its text.
    """
    import ray

    if not len(next(iter(block.values()), ())):
        return
    slicing = ray.get(shared)
    with one_thread():
        try:
            x = _inputs(block, slicing.columns)
            slicer = Slicer(slicing.model, slicing.example, slicing.gamma, slicing.contribution)
            yield step(slicer, Batches(x, slicing.batch_size), means)
        except FairNeuronError as error:
            yield {"error": np.array([error], dtype=object)}


def _sums(slicer: Slicer, batches: Batches, _: Means | None) -> Block:
    """A row: the sums of the activations of each layer, ``(1, units)``, and how many samples."""
    means = slicer.activations.means(batches, quiet, remember=False)
    sums = {str(layer): total[None].numpy() for layer, total in means.sums.items()}
    return {"samples": np.array([means.samples]), **sums}


def _means(rows: Block) -> Iterator[Means]:
    """The inverse of ``_sums``, for each row."""
    layers = [name for name in rows if name.isdigit()]
    for row, samples in enumerate(rows["samples"]):
        sums = {int(layer): torch.tensor(rows[layer][row]) for layer in layers}  # (units,) each
        yield Means(sums, int(samples))


def _signatures(slicer: Slicer, batches: Batches, means: Means | None) -> Block:
    """A row for each sample: the two words of its signature."""
    assert means is not None  # noqa: S101  # of the pass before, or given
    slicer.relative_to(means)
    found = [slicer.signatures(values)[0] for values in slicer.activations.of(batches)]
    low, high = torch.cat(found).T.contiguous().numpy()  # (rows,) each
    return {"low": low, "high": high}


def _inputs(block: Block, columns: Sequence[str]) -> torch.Tensor:
    """The rows of a block as the network reads them, ``(rows, features)`` float32."""
    parts = []
    for name in columns:
        require_known("option-columns", "column", name, block)
        parts.append(_numbers(name, block[name]))
    return torch.cat(parts, dim=1)  # (rows, features)


def _numbers(name: str, values: np.ndarray) -> torch.Tensor:
    if values.dtype == object:  # lists, perhaps
        with suppress(ValueError):  # of different lengths
            values = np.array(values.tolist())
    if values.dtype.kind not in "biuf" or values.ndim > 2:
        raise DataError(
            "data-type",
            "Columns must hold numbers, or vectors of one length",
            got=f"column {name!r}, which holds others",
            cure="Encode it with map_batches before, or leave it out with columns=.",
        )
    numbers = torch.tensor(values, dtype=torch.float32)
    return numbers.reshape(len(numbers), -1)  # (rows, 1 or features)
