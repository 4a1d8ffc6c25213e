"""The command ``fairneuron paths``; free of torch, so that help is instant."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from fairneuron.commands.common import at_work, print_json, table_of
from fairneuron.errors import OptionError, require_range
from fairneuron.options import AsJson, Gamma, Part, Theta, part_of, with_subject
from fairneuron.report.terminal import print_paths
from fairneuron.settings import PathOptions
from fairneuron.subject import Subject


@with_subject
def paths(
    subject: Subject,
    gamma: Gamma = 0.9,
    theta: Theta = 1e-3,
    contribution: Annotated[
        str,
        typer.Option(help="signed, absolute, or gradient (of units, for networks of any layers)."),
    ] = "signed",
    level: Annotated[
        str, typer.Option(help="What a path is a set of: synapses or units.")
    ] = "synapses",
    layers: Annotated[str, typer.Option(help="all, or the last one with weights.")] = "all",
    similarity: Annotated[
        float | None,
        typer.Option(
            help="Count samples on paths of units that have this share in common as well."
        ),
    ] = None,
    part: Part = "train",
    top: Annotated[
        int | None,
        typer.Option(
            help="Over-represented neurons to list of each cluster and group.",
            show_default="5; with --json 20",
        ),
    ] = None,
    show: Annotated[
        int | None,
        typer.Option(help="List the synapses of the path with this id; 0 is the most frequent."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the activation paths of samples; see whose are rare, and which neurons are on them."""
    require_range("gamma", gamma, 0, 1, open_low=True)
    require_range("theta", theta, 0, 1)
    known = PathOptions(contribution, level, layers, similarity)
    if show is not None and contribution == "gradient":
        raise OptionError(
            "option-path",
            "A path has synapses where slicing has exact rules",
            got="--show with --contribution gradient",
            cure="Leave one of them out.",
        )
    top = (20 if as_json else 5) if top is None else top
    require_range("top", top, 1, math.inf, open_high=True)
    require_range("show", show or 0, 0, math.inf, open_high=True)
    index = part_of(part)
    table = table_of(subject)

    from fairneuron.clustering import summarise_paths
    from fairneuron.loading import load_model, load_parts, part_at
    from fairneuron.path_views import describe_path, summarise_neurons
    from fairneuron.slicing import activation_paths

    with at_work() as progress:
        parts = load_parts(subject, table)
        model = load_model(subject, parts, progress)
        data = part_at(parts, index)
        found = activation_paths(
            model, data.x, gamma=gamma, progress=progress, **known.path_options
        )
        shown = {} if show is None else {"path": describe_path(model, data, found, show)}
        used = summarise_neurons(model, data, found, theta, top=top, progress=progress)
    summary = summarise_paths(found, data, theta).to_dict() | {"over_represented": used} | shown
    if as_json:
        name, seed = subject.data.name, subject.seed
        print_json({"data": name, "part": part, "seed": seed, **summary})
        return
    print_paths(summary)
