"""What people see of activation paths: over-represented neurons and synapses, by name, as values.

Counts and names alone; no value of a sample.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fairneuron.batches import Batches
from fairneuron.clustering import rare_paths
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError
from fairneuron.graph import Input, Layer
from fairneuron.path_neurons import path_neurons
from fairneuron.paths import Paths
from fairneuron.progress import Progress, quiet
from fairneuron.slicing import Slicer


def summarise_neurons(
    model: nn.Module,
    data: Dataset,
    paths: Paths,
    theta: float,
    *,
    top: int,
    progress: Progress = quiet,
) -> list[dict[str, Any]]:
    """Compares the biased cluster with the benign one, and each group with the others.

    The cluster was chosen by the paths, so it is described without a test. A group that is not
    known is compared with nobody.

    Args:
        model: The network that the paths are of.
        data: The samples that they are of.
        paths: From ``activation_paths``.
        theta: Of the clustering.
        top: Neurons to list of each, at most.
        progress: As for ``activation_paths``.

    Returns:
        A table each, as plain values: what is compared, how many samples are on both sides, and the
        neurons, those of the input with the name of their feature.
    """
    rare = rare_paths(paths, theta)
    groups = range(len(data.group_names))
    names = [f"{name}, {kind}" for name in data.group_names for kind in ("benign", "biased")]
    used = path_neurons(
        model,
        data.x,
        2 * data.group + rare,
        names=names,
        gamma=paths.gamma,
        contribution=paths.contribution,
        layers=paths.layers,
        means=paths.means,
        progress=progress,
    )
    compared = [g for g in groups if data.compared[g]]
    sides = [("cluster", "biased", "benign", [2 * g + 1 for g in groups], [2 * g for g in groups])]
    for g in compared:
        others = [cell for other in compared if other != g for cell in (2 * other, 2 * other + 1)]
        sides.append(("group", data.group_names[g], "others", [2 * g, 2 * g + 1], others))
    return [
        {
            "kind": kind,
            "inside": inside,
            "outside": outside,
            "n": int(used.samples[cells].sum()),
            "others_n": int(used.samples[others].sum()),
            "undefined": used.undefined(cells, against=others),
            "neurons": [
                neuron.to_dict()
                | {"feature": data.feature_names[neuron.unit] if neuron.is_input else None}
                for neuron in used.over_represented(
                    cells, against=others, top=top, tested=kind == "group"
                )
            ],
        }
        for kind, inside, outside, cells, others in sides
    ]


def describe_path(model: nn.Module, data: Dataset, paths: Paths, path: int) -> dict[str, Any]:
    """The synapses of a path neuron by neuron, from the output to the input.

    Args:
        model: The network that the paths are of.
        data: The samples that they are of.
        paths: From ``activation_paths``.
        path: Its id; 0 is the most frequent path.

    Returns:
        As plain values: how many samples share the path, its number of synapses, and for each
        neuron the predecessors that are kept, by layer. Columns of the input have their names too;
        no value of the sample is told.

    Raises:
        OptionError: For an id that no path has.
    """
    if not 0 <= path < len(paths):
        raise OptionError(
            "option-path",
            f"The id of a path must lie in [0, {len(paths) - 1}]",
            got=path,
            cure="0 is the most frequent path.",
        )
    x = data.x[torch.from_numpy(paths.first[[path]])]  # (1, features)
    slicer = Slicer(model, x, paths.gamma, paths.contribution)
    slicer.relative_to(paths.means)
    (values,) = slicer.activations.of(Batches(x, 1))
    neurons: list[dict[str, Any]] = []
    synapses = 0
    for layer, kept in slicer.synapses(values):
        numbers = slicer.units.rules[layer.index].sources(kept.unit, kept.synapse)
        synapses += len(numbers)
        for unit in kept.unit.unique().tolist():  # few: those of one sample
            sources: dict[int, list[int]] = {}
            for number in numbers[kept.unit == unit].tolist():
                owner = slicer.units.layer_of(number)
                sources.setdefault(owner, []).append(number - slicer.units.first[owner])
            named = [_source(slicer.graph.layers[o], units, data) for o, units in sources.items()]
            neurons.append({"layer": layer.name, "unit": unit, "predecessors": named})
    return {
        "id": path,
        "samples": int(paths.counts[path]),
        "synapses": synapses,
        "neurons": neurons,
    }


def _source(layer: Layer, units: list[int], data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"layer": layer.name, "units": units}
    if isinstance(layer, Input) and len(data.feature_names) == data.x.shape[1:].numel():
        found["features"] = [data.feature_names[unit] for unit in units]
    return found
