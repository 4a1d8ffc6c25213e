"""The tables that come with the package: Census, COMPAS, German Credit; data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from fairneuron.data.imagesets import IMAGE_SETS, load_images
from fairneuron.errors import OptionError, require_known

if TYPE_CHECKING:
    import pandas as pd

    from fairneuron.data.dataset import Dataset


@dataclass(frozen=True)
class Stated:
    """A sensitive column: where its groups stand, and the input that states them to a network."""

    groups: str
    stated_by: str


@dataclass(frozen=True)
class Source:
    """A table that we ship: where it is from, and which of its columns mean what.

    Attributes:
        title: One line about it.
        positive_means: What ``y = 1`` means, in words.
        outcome: What ``y = 1`` is to a person, "favourable" or "harmful".
        licence: Under which terms it is shared.
        citation: Whom to cite.
        read: Reads the table.
        target: Its label column.
        positive: The label of ``y = 1``.
        sensitive: Sensitive columns, the default first.
        drop: Columns that are inputs only where ``include_sensitive`` adds them.
        hidden: The layer widths that the paper uses for it.
    """

    title: str
    positive_means: str
    outcome: str
    licence: str
    citation: str
    read: Callable[[], pd.DataFrame]
    target: str
    positive: str
    sensitive: dict[str, Stated]
    drop: tuple[str, ...] = ()
    hidden: tuple[int, ...] = field(default=(32, 32, 32))


_ADULT = (
    "age,workclass,fnlwgt,education,education-num,marital-status,occupation,relationship,race,sex,"
    "capital-gain,capital-loss,hours-per-week,native-country,income"
).split(",")

_GERMAN = (
    "status,duration,credit_history,purpose,amount,savings,employment,installment_rate,"
    "personal_status,other_debtors,residence_since,property,age,other_installment_plans,housing,"
    "existing_credits,job,people_liable,telephone,foreign_worker,risk"
).split(",")

_COMPAS_INPUTS = (
    "sex,race,age_cat,c_charge_degree,juv_fel_count,juv_misd_count,juv_other_count,priors_count,"
    "days_b_screening_arrest,jail_days"
).split(",")


def _read_csv(
    file: str, *, names: list[str] | None = None, sep: str = ",", skiprows: int = 0
) -> pd.DataFrame:
    import pandas as pd

    with resources.as_file(resources.files("fairneuron.data") / "files" / file) as path:
        return pd.read_csv(
            path,
            names=names,
            sep=sep,
            skiprows=skiprows,
            skipinitialspace=True,
            keep_default_na=False,
            na_values=[""],
        )


def _census() -> pd.DataFrame:
    return _read_csv("adult.data.gz", names=_ADULT)


def _census_full() -> pd.DataFrame:
    import pandas as pd

    test = _read_csv("adult.test.gz", names=_ADULT, skiprows=1)
    test["income"] = test["income"].str.rstrip(".")
    return pd.concat([_census(), test], ignore_index=True)


def compas_table() -> pd.DataFrame:
    """All columns of COMPAS after ProPublica's filter, of the two groups that it compares."""
    table = _read_csv("compas.csv.gz")
    kept = table[
        (table["days_b_screening_arrest"].abs() <= 30)
        & (table["is_recid"] != -1)
        & (table["c_charge_degree"] != "O")
        & table["score_text"].notna()
        & table["race"].isin(["African-American", "Caucasian"])
    ]
    return kept.reset_index(drop=True)


def _compas() -> pd.DataFrame:
    return compas_table()[[*_COMPAS_INPUTS, "two_year_recid"]]


def _credit() -> pd.DataFrame:
    table = _read_csv("german.data.gz", names=_GERMAN, sep=" ")
    table["sex"] = (
        table["personal_status"].isin(["A92", "A95"]).map({True: "female", False: "male"})
    )
    table["age_group"] = (table["age"] > 25).map({True: "over 25", False: "25 or under"})
    table["risk"] = table["risk"].map({1: "good", 2: "bad"})
    return table


_ADULT_CITATION = (
    "Becker, Kohavi: Adult (1996), UCI Machine Learning Repository, doi 10.24432/C5XW20"
)

_CENSUS = Source(
    title="Census Income (Adult): does a person earn more than 50,000 dollars a year",
    positive_means="earns more than 50K (the favourable outcome)",
    outcome="favourable",
    licence="CC BY 4.0",
    citation=_ADULT_CITATION,
    read=_census,
    target="income",
    positive=">50K",
    sensitive={"sex": Stated("sex", "sex"), "race": Stated("race", "race")},
    drop=("fnlwgt",),
    hidden=(128, 128, 128),
)

SOURCES: dict[str, Source] = {
    "census": _CENSUS,
    "census-full": Source(
        **{**vars(_CENSUS), "title": f"{_CENSUS.title}; both parts", "read": _census_full}
    ),
    "compas": Source(
        title="COMPAS (Broward County): is a defendant charged again within two years",
        positive_means="reoffended within two years (the harmful outcome)",
        outcome="harmful",
        licence="none stated; public records",
        citation="Angwin, Larson, Mattu, Kirchner: Machine Bias, ProPublica (2016)",
        read=_compas,
        target="two_year_recid",
        positive="1",
        sensitive={"race": Stated("race", "race"), "sex": Stated("sex", "sex")},
    ),
    "credit": Source(
        title="Statlog German Credit: is an applicant a good risk",
        positive_means="good credit risk (the favourable outcome)",
        outcome="favourable",
        licence="CC BY 4.0",
        citation="Hofmann: Statlog (German Credit Data) (1994), UCI, doi 10.24432/C5NC77",
        read=_credit,
        target="risk",
        positive="good",
        sensitive={"sex": Stated("sex", "sex"), "age": Stated("age_group", "age")},
        drop=("personal_status", "sex", "age_group"),
    ),
}


KNOWN = (*SOURCES, *IMAGE_SETS)
"""The names of all data sets."""


def load_dataset(
    name: str,
    *,
    sensitive: str | Sequence[str] | None = None,
    include_sensitive: bool = False,
    path: str | Path | None = None,
) -> Dataset:
    """Loads a table that comes with the package, or images that are on this machine.

    Nothing is downloaded: for images see ``fairneuron data get``.

    Args:
        name: "census" (32,561 rows), "census-full" (48,842), "compas" (5,278) or "credit" (1,000);
            of images "mnist" (70,000) or "cifar10" (60,000), whose split is in ``part``.
        sensitive: One or several of the data's sensitive columns, whose intersections are the
            groups: census "sex", "race"; compas "race", "sex"; credit "sex", "age". The first one
            unless given.
        include_sensitive: Whether these columns are inputs of the network too.
        path: Of images: their file or folder. Unless given, they are looked for in the folder that
            FAIRNEURON_DATA_FOLDER names, in the cache, and in the package of ``[images]``.

    Returns:
        The encoded, unscaled data; see ``Dataset.split``.

    Raises:
        OptionError: For an unknown name or sensitive column.
        DataError: For images that are not here, or are others.
    """
    from fairneuron.data.schema import Schema

    require_known("option-data", "data set", name, KNOWN)
    images = name in IMAGE_SETS
    if (images and (sensitive or include_sensitive)) or (not images and path is not None):
        raise OptionError(
            "option-data",
            "Images have a path and no sensitive columns, tables have them and no path",
            got=f"{name}, {'sensitive columns' if images else path}",
            cure="Leave it out; see fairneuron.coloured for images with groups.",
        )
    if images:
        return load_images(name, path)
    source = SOURCES[name]
    if sensitive is None:
        sensitive = next(iter(source.sensitive))
    names = [sensitive] if isinstance(sensitive, str) else list(sensitive)
    for column in names:
        require_known("option-sensitive", f"sensitive column of {name}", column, source.sensitive)
    chosen = [source.sensitive[column] for column in names]
    stated = [column.stated_by for column in chosen]
    frame = source.read()
    inputs = [c for c in frame.columns if c not in (source.target, *source.drop, *stated)]
    schema = Schema.fit(
        frame,
        target=source.target,
        positive=source.positive,
        sensitive=[column.groups for column in chosen],
        inputs=[*inputs, *(stated if include_sensitive else ())],
    )
    return replace(schema.encode(frame, name=name), sensitive_names=tuple(names))
