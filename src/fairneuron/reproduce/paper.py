"""The paper's experiments and figures, as data. Free of torch.

Gao et al., *FairNeuron* (ICSE 2022, arXiv 2204.02567). A figure that is not in here is not known
here, and shown as such; none is guessed. Each names its source: "paper" is the published text,
"release" the authors' repository (github.com/Antimony5292/FairNeuron) with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

TITLES: dict[str, str] = {
    "table1": "Data sets and networks",
    "table2": "Slicing and clustering: who has a rare path",
    "table3": "Ablations of selective training",
    "table4": "FairNeuron beside other methods",
    "table5": "Cost, as a ratio to ordinary training",
    "table6": "Cost per step, as a ratio to ordinary training",
    "table7": "Gaps between the classes of images",
    "figure4": "Samples per activation path",
    "figure5": "Effect of θ and γ",
}
"""What is computed under each name."""
ASSIGNED = ("table1", "table2", "table3")
"""What the paper shows under these numbers is not known here; the numbering is ours."""

OURS = "fairneuron-paper"
"""Name of the paper's method in records and tables: recipe "paper"."""
EA = "ethical-adversaries"


@dataclass(frozen=True)
class Figure:
    """A figure of the paper.

    Attributes:
        where: Table or figure, such as "table4".
        data: Data set.
        method: As in our records.
        metric: Short name; "dpr_directed" is the paper's DPR, unfolded.
        value: The figure.
        source: Where it is from.
    """

    where: str
    data: str
    method: str
    metric: str
    value: float
    source: str


_PLOTS = "release: FN/plot_figures.py"
_README = "release: README.md"
_DATA = {"census": (74.68, 69.69, 198.47), "credit": (2.08, 21.12, 257.23)}
_DATA["compas"] = (96.19, 38.95, 3995.23)
_TABLE7 = {
    "mnist": ((0.957, 0.057), (0.949, 0.052), (0.961, 0.046)),
    "cifar10": ((0.814, 0.236), (0.798, 0.464), (0.808, 0.187)),
}


def _figures() -> Iterator[Figure]:
    yield Figure("table4", "census", OURS, "accuracy", 0.832, "paper: Table 4")
    yield Figure("table4", "census", OURS, "dp", 0.020, "paper: Table 4")
    for data, values in _DATA.items():  # how the release computes its DPR "improvement" is not said
        for metric, value in zip(("dp", "eo", "dpr_directed"), values, strict=True):
            yield Figure("improvement", data, OURS, metric, value, _README)
    for metric, value in (("accuracy", 0.759), ("dp", 0.095), ("eo", 0.095)):
        yield Figure("figure5", "compas", EA, metric, value, _PLOTS)
    yield Figure("figure5", "compas", EA, "dpr_directed", 1.203, _PLOTS)
    yield Figure("figure4", "compas", OURS, "largest", 47, f"{_PLOTS}, a comment in it")
    for data, rows in _TABLE7.items():
        for method, (accuracy, mcd) in zip(("naive", "random-dropout", OURS), rows, strict=True):
            yield Figure("table7", data, method, "accuracy", accuracy, "paper: Table 7")
            yield Figure("table7", data, method, "mcd", mcd, "paper: Table 7")


FIGURES: tuple[Figure, ...] = tuple(_figures())

RANGES: dict[tuple[str, str], tuple[float, float]] = {
    ("gamma", "accuracy"): (0.762, 0.784),
    ("gamma", "dp"): (0.017, 0.052),
    ("gamma", "eo"): (0.058, 0.137),
    ("gamma", "dpr_directed"): (1.047, 1.088),
    ("theta", "accuracy"): (0.767, 0.786),
    ("theta", "dp"): (0.026, 0.051),
    ("theta", "eo"): (0.070, 0.134),
    ("theta", "dpr_directed"): (1.046, 1.074),
}
"""Figure 5: smallest and largest plotted value of FairNeuron over γ or θ.

release: data/results/ablation_df_gamma and ablation_df_theta. FN/plot_figures.py adds +.06
(accuracy), −.28 (DP), −.1 (EO) and +.5 (DPR) to the means over θ before it writes and plots them.
So seem those over γ: each is the mean of three runs, and the 50 accuracies in that file are whole
multiples of 1/3186 (three times 1,062 people) once .06 is taken off, and none is before.
"""

_SECOND_HAND = "quoted second-hand; the wording is not known here"
CLAIMS: tuple[tuple[str, str, str, str], ...] = (
    ("table4", "fairness improved on average", "57.65 %", _SECOND_HAND),
    ("table5", "time, in ordinary trainings", "5.39", _SECOND_HAND),
    ("table5", "time, beside Ethical Adversaries", "55.49 %", _SECOND_HAND),
    ("table5", "speedup over Ethical Adversaries", "180 %", _README),
    ("table5", "time on Census, in ordinary trainings", "less than 2", _README),
)
"""Where it belongs, claim, figure, source; the abstract of arXiv 2204.02567v2 has none of them."""


def known(where: str, data: str, method: str, metric: str) -> float | None:
    """The paper's figure; None if it is not known here."""
    for figure in FIGURES:
        if (figure.where, figure.data, figure.method, figure.metric) == (
            where,
            data,
            method,
            metric,
        ):
            return figure.value
    return None


def claims(where: str) -> list[str]:
    """The claims that belong to a table, as sentences."""
    return [
        f"Claimed: {text}: {value} ({source})." for at, text, value, source in CLAIMS if at == where
    ]


def sources(where: str) -> list[str]:
    """Where the known figures of a table or figure are from, each once."""
    return list(dict.fromkeys(f.source for f in FIGURES if f.where == where))
