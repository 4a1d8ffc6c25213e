"""What carries the gap: neurons, or paths and the samples that take them."""

from __future__ import annotations

from collections.abc import Iterator

from fairneuron.markup import Html, el, signed, table
from fairneuron.report import figures
from fairneuron.report.page import figure, note, paragraph
from fairneuron.report.parts import Values, alone_text, neuron_of

LOPSIDED = 0.9  # share of the samples in one cluster from which the two mean little


def carriers(found: Values, paths: Values | None) -> Iterator[Html]:
    """What was found, by the recipe and on the paths of the original.

    Args:
        found: The recipe's explanation.
        paths: What ``pathways`` gives; None in older results, and where there are none.
    """
    yield paragraph(found["sentence"])
    yield from _network(found, paths)
    if "neurons" in found:
        yield from _neurons(found)
    if "makeup" not in found and paths is None:
        return
    yield el("h3", "Activation paths")
    if paths is not None and paths["samples"] < paths["drawn_from"]:
        yield paragraph(
            f"Of {paths['samples']:,} of the {paths['drawn_from']:,} training samples, drawn at "
            "random:"
        )
    counted = found if paths is None else paths
    if alone_text(counted):
        yield paragraph(alone_text(counted))
        return
    if "makeup" not in found and paths is not None:
        yield paragraph(paths["sentence"])
    yield from _clusters(counted)
    if paths is not None and _links(paths):
        yield _synapses(paths)
    share = counted["biased_share"]
    if not 1 - LOPSIDED <= share <= LOPSIDED:
        yield note(
            f"{share:.1%} of the samples have a rare path: here γ and θ tell hardly anybody from "
            "the others, and the clusters mean little."
        )
    yield note(
        "An activation path is the set of synapses that make a prediction. Biased is the paper's "
        "word for a sample whose path is rare; it says nothing of the person. The clusters were "
        "made by looking at the paths, so they differ in noise, too."
    )


def _network(found: Values, paths: Values | None) -> Iterator[Html]:
    """The hidden neurons, with what the gap pulls, and synapses in which the clusters differ."""
    layers = found.get("layers") or (paths or {}).get("layers")
    if not layers:
        return
    by_layer: dict[str, list[int]] = {}
    for neuron in found.get("neurons", ()):
        by_layer.setdefault(neuron["layer"], []).append(neuron["unit"])
    heads = {n for n, kind in found.get("kinds", {}).items() if kind == "head"}
    columns = [
        figures.Column(n, size, by_layer.get(n, ()), heads=n in heads) for n, size in layers.items()
    ]
    links = [] if paths is None else _links(paths)
    links = [one for one in links if {one.read[0], one.reads[0]} <= {None, *layers}]
    if not by_layer and not links:
        return
    shows = []
    where = ", ".join(
        f"{len(c.highlighted)} of {c.neurons}{' heads' * c.heads} in layer {c.name}"
        for c in columns
    )
    if by_layer:
        shows.append(
            "Large dots with a name (layer.unit) are those with the most leverage on the gap: "
            f"{where}."
        )
    if links and paths is not None:
        shows.append(
            "Lines are the synapses between these layers in which activation paths differ most: "
            "solid ones are on more of the paths of biased samples "
            f"({paths['looked_at']['biased']:,} looked at), dashed ones on more of those of benign "
            f"samples ({paths['looked_at']['benign']:,}); the thicker, the larger the difference."
        )
    title = (
        "The network, and the neurons that the gap pulls most"
        if by_layer
        else "The network, and where the paths of biased and benign samples differ"
    )
    says = " ".join(shows)
    yield figure(
        figures.network_plot(title, says, columns, links),
        f"The hidden neurons, a dot each, by layer. {says}",
    )


def _links(paths: Values) -> list[figures.Link]:
    return [
        figures.Link(
            (one["from"], one["from_unit"]),
            (one["to"], one["to_unit"]),
            kind,
            abs(one["biased"] - one["benign"]),
        )
        for kind in ("benign", "biased")
        for one in paths[f"more_{kind}"]
    ]


def _synapses(paths: Values) -> Html:
    """The synapses of the drawing, in figures."""
    rows = [
        (
            f"{_end(one['from'], one['from_unit'], one['feature'] or 'input')} → "
            f"{_end(one['to'], one['to_unit'], 'output')}",
            f"{one['biased']:.1%}",
            f"{one['benign']:.1%}",
            f"{one['biased'] - one['benign']:+.1%}",
        )
        for kind in ("biased", "benign")
        for one in paths[f"more_{kind}"]
    ]
    return table(
        "Synapses in which the clusters differ most: share of the paths that have them",
        ("synapse", "of biased samples", "of benign samples", "difference"),
        rows,
    )


def _end(layer: str | None, unit: int, other: str) -> str:
    return other if layer is None else f"{layer}.{unit}"


def _neurons(found: Values) -> Iterator[Html]:
    same = found["retrained"] == len(found["neurons"])
    which = (
        "Only the incoming weights of these neurons are retrained."
        if same
        else f"In what was chosen the incoming weights of {found['retrained']} neurons were "
        "retrained; those shown have the most leverage."
    )
    yield note(
        f"{which} Held at its mean, a neuron says nothing of a person any more. Pull: norm of the "
        "gradient of the gap with respect to the incoming weights. Conflict: above 0, lowering "
        "the gap and lowering the loss pull the neuron in opposite directions. Active: on what "
        "share of the samples it is not 0. The order is that of the leverage: the part of the pull "
        "that leaves the loss as it is, times active."
    )
    rows = [
        (
            _neuron(found, n),
            f"{n['pull']:.4f}",
            signed(n["conflict"], 2),
            f"{n['active']:.0%}",
        )
        for n in found["neurons"][:20]
    ]
    left = len(found["neurons"]) - len(rows)
    yield table(
        "Neurons with the most leverage on the gap", ("neuron", "pull", "conflict", "active"), rows
    )
    if left:
        yield note(f"{left} more stand in result.json.")


def _neuron(found: Values, neuron: Values) -> str:
    layer, unit = neuron_of(found, neuron)
    return f"{unit} of {layer}" if " " in unit else f"{layer}.{unit}"


def _clusters(found: Values) -> Iterator[Html]:
    """How often paths occur, and who is in which cluster."""
    if found.get("frequencies"):
        most = found["frequencies"][0][0]
        title = "How many samples share an activation path"
        says = (
            f"{found['paths']:,} paths of {found['samples']:,} samples; the most frequent one has "
            f"{most:,}; {found['alone']:,} have one sample alone."
        )
        rare = max(found["theta"] * most, 1)
        yield figure(
            figures.frequency_plot(title, says, found["frequencies"], rare),
            f"{title}; both axes are logarithmic. {says}",
        )
    rows = [
        (
            g["group"],
            f"{g['n']:,}",
            f"{g['biased']:,}",
            f"{g['benign']:,}",
            _share(g["biased"], g["n"]),
            _share(g["biased_positive"], g["biased"]),
            _share(g["benign_positive"], g["benign"]),
        )
        for g in found["makeup"]
    ]
    yield table(
        "Make-up of the two clusters, on training data",
        (
            *("group", "n", "biased samples", "benign samples", "share biased"),
            *("y = 1 among biased", "y = 1 among benign"),
        ),
        rows,
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
