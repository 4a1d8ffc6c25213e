"""Data: the tables of the package row by row, encoding, splitting, and what is refused."""

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.data.schema import Schema
from fairneuron.errors import DataError, FairNeuronWarning, InputError, OptionError

CALM = settings(max_examples=40, deadline=None, derandomize=True)
load = cache(fn.load_dataset)


# The tables of the package


def unpacked(file: str) -> bytes:
    """An embedded file as it was published."""
    packed = resources.files("fairneuron.data") / "files" / f"{file}.gz"
    return gzip.decompress(packed.read_bytes())


def columns_of(data: Dataset) -> set[str]:
    """The columns of the table that became inputs."""
    return {name.partition("=")[0] for name in data.feature_names}


def value_of(data: Dataset, column: str) -> np.ndarray:
    """A column's values per row, read back from its zeros and ones or numbers."""
    if column in data.feature_names:
        return data.x[:, data.feature_names.index(column)].numpy()
    block = [i for i, name in enumerate(data.feature_names) if name.startswith(f"{column}=")]
    names = np.array([data.feature_names[i].partition("=")[2] for i in block])
    return names[data.x[:, block].argmax(1).numpy()]


@pytest.mark.parametrize(
    ("file", "sha256"),
    [
        ("adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
        ("adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
        ("german.data", "b21f3d81db8071257d5ff1deaeba1fd4303b62712e6fcc9715c7a86202cb5871"),
        ("compas.csv", "a5aff2e43b0a9e824f2848b193a394ba56f43da75fc2758175090e6ae3b5f52e"),
    ],
)
def test_embedded_files_are_the_published_ones(file: str, sha256: str) -> None:
    """Byte for byte."""
    assert hashlib.sha256(unpacked(file)).hexdigest() == sha256


@pytest.mark.parametrize(
    ("name", "sensitive", "groups"),
    [
        ("census", None, {"Female": (10771, 1179), "Male": (21790, 6662)}),
        (
            "census",
            "race",
            {
                "Amer-Indian-Eskimo": (311, 36),
                "Asian-Pac-Islander": (1039, 276),
                "Black": (3124, 387),
                "Other": (271, 25),
                "White": (27816, 7117),
            },
        ),
        ("census-full", "sex", {"Female": (16192, 1769), "Male": (32650, 9918)}),
        ("compas", None, {"African-American": (3175, 1661), "Caucasian": (2103, 822)}),
        ("compas", "sex", {"Female": (1031, 373), "Male": (4247, 2110)}),
        ("credit", None, {"female": (310, 201), "male": (690, 499)}),
        ("credit", "age", {"25 or under": (190, 110), "over 25": (810, 590)}),
        (
            "credit",
            ("sex", "age"),
            {
                "female & 25 or under": (105, 58),
                "female & over 25": (205, 143),
                "male & 25 or under": (85, 52),
                "male & over 25": (605, 447),
            },
        ),
    ],
)
def test_groups_and_labels(
    name: str, sensitive: str | tuple[str, ...] | None, groups: dict[str, tuple[int, int]]
) -> None:
    """People and positives per group are those of the published tables."""
    data = load(name, sensitive=sensitive)
    assert data.group_names == tuple(groups)
    assert data.group_counts.tolist() == [n for n, _ in groups.values()]
    assert [int(data.y[data.group == g].sum()) for g in range(len(groups))] == [
        positive for _, positive in groups.values()
    ]


@pytest.mark.parametrize(
    ("name", "rows", "rate", "positive", "sensitive"),
    [
        ("census", 32561, 0.2408, ">50K", "sex"),
        ("census-full", 48842, 0.2393, ">50K", "sex"),
        ("compas", 5278, 0.4704, "1", "race"),
        ("credit", 1000, 0.7, "good", "sex"),
    ],
)
def test_size_label_rate_and_default(
    name: str, rows: int, rate: float, positive: str, sensitive: str
) -> None:
    """Rows, share of y = 1, what it means, and which column is sensitive unless given."""
    data = load(name)
    assert len(data) == len(data.x) == len(data.sensitive) == rows
    assert data.y.mean() == pytest.approx(rate, abs=5e-5)
    assert data.positive == positive
    assert data.sensitive_names == (sensitive,)
    assert data.x.dtype == torch.float32
    assert data.x.shape[1] == len(set(data.feature_names))


CENSUS = (
    "age workclass education education-num marital-status occupation relationship race sex "
    "capital-gain capital-loss hours-per-week native-country"
).split()
COMPAS = (
    "sex race age_cat c_charge_degree juv_fel_count juv_misd_count juv_other_count priors_count "
    "days_b_screening_arrest jail_days"
).split()
CREDIT = (
    "status duration credit_history purpose amount savings employment installment_rate "
    "other_debtors residence_since property age other_installment_plans housing existing_credits "
    "job people_liable telephone foreign_worker"
).split()


@pytest.mark.parametrize(
    ("name", "sensitive", "left_out", "added"),
    [
        ("census", "sex", {"sex"}, set()),
        ("census", "race", {"race"}, set()),
        ("census-full", ("sex", "race"), {"sex", "race"}, set()),
        ("compas", "race", {"race"}, set()),
        ("compas", "sex", {"sex"}, set()),
        ("compas", ("race", "sex"), {"race", "sex"}, set()),
        ("credit", "sex", set(), {"sex"}),
        ("credit", "age", {"age"}, set()),
        ("credit", ("sex", "age"), {"age"}, {"sex"}),
    ],
)
def test_inputs_with_and_without_the_sensitive_columns(
    name: str, sensitive: str | tuple[str, ...], left_out: set[str], added: set[str]
) -> None:
    """All columns that may be inputs are; the chosen sensitive ones only if they are asked for."""
    every = set({"census": CENSUS, "compas": COMPAS, "credit": CREDIT}[name.partition("-")[0]])
    assert columns_of(load(name, sensitive=sensitive)) == every - left_out
    assert columns_of(load(name, sensitive=sensitive, include_sensitive=True)) == every | added


@pytest.mark.parametrize("include_sensitive", [False, True])
@pytest.mark.parametrize("sensitive", ["race", "sex", ("race", "sex"), ("sex", "race")])
def test_compas_never_states_its_label(
    sensitive: str | tuple[str, ...], include_sensitive: bool
) -> None:
    """Neither a banned column, nor a column that alone tells the label as is_recid does (97 %)."""
    data = load("compas", sensitive=sensitive, include_sensitive=include_sensitive)
    banned = {"is_recid", "two_year_recid", "decile_score", "score_text", "is_violent_recid"}
    assert not columns_of(data) & banned
    agreement = [(column > column.median()).eq(torch.from_numpy(data.y)) for column in data.x.T]
    assert max(float(a.float().mean().sub(0.5).abs()) for a in agreement) < 0.2


def test_census_rows_are_those_of_the_file() -> None:
    """Label, groups, numbers and categories of every row; a question mark is a category."""
    text = unpacked("adult.data").decode().strip()
    table = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if row]
    data = load("census", sensitive=("sex", "race"), include_sensitive=True)
    columns = list(zip(*table, strict=True))
    assert (data.y == (np.array(columns[14]) == ">50K")).all()
    names = np.array(data.group_names)[data.group]
    assert (
        names == [f"{sex} & {race}" for sex, race in zip(columns[9], columns[8], strict=True)]
    ).all()
    for position, column in [(0, "age"), (10, "capital-gain"), (12, "hours-per-week")]:
        assert (value_of(data, column) == np.array(columns[position], dtype=float)).all()
    for position, column in [(1, "workclass"), (8, "race"), (9, "sex"), (13, "native-country")]:
        assert (value_of(data, column) == np.array(columns[position])).all()
    assert Counter(value_of(data, "occupation"))["?"] == Counter(columns[6])["?"] == 1843


def test_census_full_is_both_files() -> None:
    """The first rows are census; the others are adult.test, whose labels end in a dot."""
    full, first = load("census-full"), load("census")
    assert full.feature_names == first.feature_names
    assert torch.equal(full.x[: len(first)], first.x)
    assert (full.y[: len(first)] == first.y).all()
    assert full.y[len(first) :].sum() == unpacked("adult.test").count(b">50K.") == 3846


def test_compas_rows_are_those_of_the_filter() -> None:
    """ProPublica's filter leaves 6,172 rows; African-American and Caucasian people are 5,278."""
    table = list(csv.DictReader(io.StringIO(unpacked("compas.csv").decode())))
    kept = [
        row
        for row in table
        if row["days_b_screening_arrest"]
        and abs(float(row["days_b_screening_arrest"])) <= 30
        and row["is_recid"] != "-1"
        and row["c_charge_degree"] != "O"
        and row["score_text"] not in ("", "N/A")
    ]
    assert len(kept) == 6172
    kept = [row for row in kept if row["race"] in ("African-American", "Caucasian")]
    data = load("compas", include_sensitive=True)
    assert (data.y == [int(row["two_year_recid"]) for row in kept]).all()
    for column in ("race", "sex", "age_cat"):
        assert (value_of(data, column) == [row[column] for row in kept]).all()
    for column in ("priors_count", "jail_days", "juv_other_count"):
        assert (value_of(data, column) == np.float32([row[column] for row in kept])).all()


def test_credit_groups_are_read_from_attributes_9_and_13() -> None:
    """A92 and A95 are female, all others male; over 25 means 26 or more; class 1 is good."""
    table = [line.split() for line in unpacked("german.data").decode().splitlines()]
    data = load("credit", sensitive=("sex", "age"), include_sensitive=True)
    sex = ["female" if row[8] in ("A92", "A95") else "male" for row in table]
    age = ["over 25" if int(row[12]) >= 26 else "25 or under" for row in table]
    assert (
        np.array(data.group_names)[data.group]
        == [f"{s} & {a}" for s, a in zip(sex, age, strict=True)]
    ).all()
    assert (data.y == [row[20] == "1" for row in table]).all()
    assert (value_of(data, "sex") == sex).all()
    assert (value_of(data, "age") == [float(row[12]) for row in table]).all()


@pytest.mark.parametrize("name", ["census", "compas", "credit"])
def test_a_row_has_one_category_per_column(name: str) -> None:
    """The zeros and ones of a categorical column sum to 1 in every row."""
    data = load(name)
    categorical = {f.partition("=")[0] for f in data.feature_names if "=" in f}
    for column in categorical:
        block = [i for i, f in enumerate(data.feature_names) if f.startswith(f"{column}=")]
        values = data.x[:, block]
        assert set(values.unique().tolist()) == {0.0, 1.0}
        assert (values.sum(1) == 1).all()


# Groups


def arrays(sensitive: object, **changes: object) -> Dataset:
    """A Dataset of these groups with a feature that numbers the rows."""
    n = len(np.asarray(sensitive))
    fields = {"x": np.arange(n, dtype=float)[:, None], "y": np.arange(n) % 2} | changes
    return Dataset.from_arrays(sensitive=sensitive, **fields)


def test_groups_are_intersections() -> None:
    """Two columns of 2 and 3 values are 6 groups; one without people is listed with 0."""
    data = arrays(
        [["m", "x"], ["f", "z"], ["f", "x"], ["m", "y"], ["f", "z"], ["m", "z"]],
        sensitive_names=["sex", "age"],
    )
    assert data.group_names == ("f & x", "f & y", "f & z", "m & x", "m & y", "m & z")
    assert data.group.tolist() == [3, 2, 0, 4, 2, 5]
    assert data.group_counts.tolist() == [1, 0, 2, 1, 1, 1]
    assert data.sensitive_levels == (("f", "m"), ("x", "y", "z"))


def test_three_columns_and_names_unless_given() -> None:
    """The last column varies fastest; columns are numbered from 1, a single one is not."""
    data = arrays([[1, 0, 7], [1, 1, 8], [0, 0, 9]])
    assert data.sensitive_names == ("sensitive1", "sensitive2", "sensitive3")
    assert data.group_names[:4] == ("0 & 0 & 7", "0 & 0 & 8", "0 & 0 & 9", "0 & 1 & 7")
    assert [data.group_names[g] for g in data.group] == ["1 & 0 & 7", "1 & 1 & 8", "0 & 0 & 9"]
    assert arrays(list("abc")).sensitive_names == ("sensitive",)
    assert arrays(list("abc")).group_names == ("a", "b", "c")


@CALM
@given(st.lists(st.tuples(*[st.sampled_from("abcd")] * 3), min_size=1, max_size=20))
def test_every_row_is_in_the_group_of_its_values(rows: list[tuple[str, ...]]) -> None:
    """Whatever the columns: the name of a row's group are its values."""
    data = arrays(rows)
    assert [data.group_names[g] for g in data.group] == [" & ".join(row) for row in rows]
    assert data.group_counts.sum() == len(rows)


@pytest.mark.parametrize(
    "x",
    [
        pd.DataFrame(np.arange(8.0).reshape(4, 2)),
        np.arange(8, dtype=np.uint8).reshape(4, 2),
        torch.arange(8).reshape(4, 2),
        np.arange(8.0).reshape(2, 4).T[:, ::-1][::-1],
        [[0, 1], [2, 3], [4, 5], [6, 7]],
    ],
    ids=["pandas", "bytes", "torch", "a view", "lists"],
)
def test_inputs_of_any_kind(x: object) -> None:
    """Tables, arrays, tensors and lists become float32 without a word."""
    data = Dataset.from_arrays(x, pd.Series([0, 1, 0, 1]), pd.Series(list("abab")))
    assert data.x.dtype == torch.float32
    assert data.x.tolist() == np.asarray(x).tolist()


def test_a_dataset_has_arrays_of_its_own() -> None:
    """What happens to an array afterwards does not happen to the data."""
    x, y = np.zeros((2, 1), dtype=np.float32), np.array([0, 1])
    data = Dataset.from_arrays(x, y, list("ab"))
    x[0], y[0] = 9, 1
    assert data.x.tolist() == [[0], [0]]
    assert data.y.tolist() == [0, 1]


# Subsets


@CALM
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_subset_by_mask(mask: list[bool]) -> None:
    """A mask keeps its rows in their order, in x, y, sensitive and group alike."""
    data = arrays([f"{i % 3}" for i in range(len(mask))])
    assert data.group_counts.sum() == len(mask)  # cached before, right after
    part = data.subset(np.array(mask))
    rows = [i for i, wanted in enumerate(mask) if wanted]
    assert part.x[:, 0].tolist() == rows
    assert part.y.tolist() == [i % 2 for i in rows]
    assert part.group.tolist() == [i % 3 for i in rows]
    assert part.group_names == data.group_names


@CALM
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_subset_by_index(index: list[int]) -> None:
    """An index takes its rows in its order, some of them twice."""
    data = arrays(list("abcabc"))
    part = data.subset(np.array(index))
    assert part.x[:, 0].tolist() == index
    assert part.y.tolist() == [i % 2 for i in index]
    assert part.sensitive[:, 0].tolist() == [i % 3 for i in index]


def test_subset_of_nobody() -> None:
    """A mask that keeps nobody gives a Dataset of 0 rows with the same columns and groups."""
    part = arrays(list("ab")).subset(np.zeros(2, dtype=bool))
    assert len(part) == 0
    assert part.group_counts.tolist() == [0, 0]


def test_a_dataset_is_frozen() -> None:
    """Its fields cannot be put elsewhere."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        arrays(list("ab")).y = np.zeros(2)


# Splits


@st.composite
def crowds(draw: st.DrawFn, fewest: int = 30) -> Dataset:
    """Labels of 2 or 3 classes and 2 or 3 groups, shuffled; column 0 numbers the rows."""
    classes, groups = draw(st.integers(2, 3)), draw(st.integers(2, 3))
    sizes = draw(
        st.lists(st.integers(fewest, 60), min_size=classes * groups, max_size=classes * groups)
    )
    cell = np.repeat(np.arange(classes * groups), sizes)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    cell = rng.permutation(cell)
    assume(len(cell) > 0)
    x = np.stack([np.arange(len(cell)), rng.normal(3, 5, len(cell))], axis=1)
    return Dataset.from_arrays(x, cell // groups, np.array(list("abc"))[cell % groups])


FRACTIONS = st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.25, 0.25), (1 / 3, 1 / 3, 1 / 3)])


@CALM
@given(crowds(), FRACTIONS, st.integers(0, 2**32))
def test_a_split_is_a_partition(
    data: Dataset, fractions: tuple[float, float, float], seed: int
) -> None:
    """Every row is in one part, with its label and group; sizes are the fractions to the row."""
    parts = data.split(seed, fractions=fractions, scale=False)
    rows = [part.x[:, 0].long().numpy() for part in parts]
    assert sorted(np.concatenate(rows)) == list(range(len(data)))
    for part, row, fraction in zip(parts, rows, fractions, strict=True):
        assert abs(len(part) - fraction * len(data)) <= 1
        assert (part.y == data.y[row]).all()
        assert (part.group == data.group[row]).all()
        assert torch.equal(part.x, data.x[row])


@CALM
@given(crowds(fewest=0), FRACTIONS, st.integers(0, 99))
def test_a_split_is_stratified(
    data: Dataset, fractions: tuple[float, float, float], seed: int
) -> None:
    """In each part the people of a label and group are their fraction to two rows, few or many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairNeuronWarning)  # a group too small for three parts
        try:
            parts = data.split(seed, fractions=fractions)
        except DataError:  # a class too small
            assume(False)
    for part, fraction in zip(parts, fractions, strict=True):
        for y, g in np.ndindex(3, len(data.group_names)):
            all_of_them = ((data.y == y) & (data.group == g)).sum()
            there = ((part.y == y) & (part.group == g)).sum()
            assert abs(there - fraction * all_of_them) <= 2


@pytest.mark.parametrize("name", ["census", "compas", "credit"])
def test_rates_of_the_parts_are_those_of_the_whole(name: str) -> None:
    """70, 10 and 20 % of the rows; the share of each group and label differs by < 1 person each."""
    data = load(name)
    parts = data.split(0)
    assert [len(p) for p in parts] == {
        "census": [22793, 3256, 6512],
        "compas": [3694, 528, 1056],
        "credit": [700, 100, 200],
    }[name]
    for part in parts:
        for y, g in np.ndindex(2, 2):
            share = ((data.y == y) & (data.group == g)).mean()
            assert abs(((part.y == y) & (part.group == g)).mean() - share) <= 2 / len(part)


def test_a_split_is_seeded() -> None:
    """The same seed gives the same rows, another seed other rows."""
    data = load("compas")
    one, same, other = (data.split(seed)[2] for seed in (3, 3, 4))
    assert torch.equal(one.x, same.x)
    assert (one.y == same.y).all()
    assert not torch.equal(one.x, other.x)


def test_scaling_is_fitted_on_the_training_part() -> None:
    """Training columns get mean 0 and sd 1, the others the same shift and scale."""
    data = load("compas")
    raw, scaled = data.split(1, scale=False), data.split(1)
    column = data.feature_names.index("priors_count")
    known = raw[0].x[:, column].double().numpy()
    for before, after in zip(raw, scaled, strict=True):
        wanted = (before.x[:, column].double().numpy() - known.mean()) / known.std()
        np.testing.assert_allclose(after.x[:, column], wanted, atol=1e-5)
    assert float(scaled[0].x[:, column].mean()) == pytest.approx(0, abs=1e-6)
    assert float(scaled[0].x[:, column].std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert float(scaled[2].x[:, column].mean()) != pytest.approx(0, abs=1e-6)


def test_what_others_hold_does_not_move_the_training_part() -> None:
    """Other numbers in the validation and test rows leave the training part as it was."""
    rng = np.random.default_rng(0)
    n = 200
    x = np.stack([np.arange(n), rng.normal(size=n)], axis=1)
    y, group = rng.integers(0, 2, n), rng.choice(list("ab"), n)
    _, *others = Dataset.from_arrays(x, y, group).split(0, scale=False)
    changed = x.copy()
    for part in others:
        changed[part.x[:, 0].long().numpy(), 1] = 1e4
    one, other = (Dataset.from_arrays(v, y, group).split(0)[0] for v in (x, changed))
    assert torch.equal(one.x, other.x)


def test_columns_of_zeros_and_ones_stay() -> None:
    """Categories are not scaled; a constant is 0 after scaling, and its neighbours are finite."""
    n = 100
    rng = np.random.default_rng(1)
    x = np.stack([rng.integers(0, 2, n), np.full(n, 0.1), rng.normal(50, 9, n)], axis=1)
    x[:, 1] = np.float32(0.1)
    parts = Dataset.from_arrays(x, np.arange(n) % 2, rng.choice(list("ab"), n)).split(0)
    for part in parts:
        assert set(part.x[:, 0].tolist()) == {0.0, 1.0}
        assert not part.x[:, 1].any()
        assert part.x[:, 2].abs().max() < 5


def test_a_constant_of_the_training_part_is_not_blown_up() -> None:
    """A test row that differs from a column's one training value keeps that difference."""
    n = 100
    x = np.full((n, 2), 0.1)
    x[:, 0] = np.arange(n)
    data = Dataset.from_arrays(x, np.arange(n) % 2, list("aabb") * 25)
    row = int(data.split(0, scale=False)[2].x[0, 0])
    x[row, 1] = 0.6
    test = Dataset.from_arrays(x, data.y, list("aabb") * 25).split(0)[2]
    assert test.x[:, 1].max() == pytest.approx(0.5)
    assert test.x[:, 1].min() == pytest.approx(0, abs=1e-6)


def test_the_fitted_scaling_is_kept() -> None:
    """Applying it to unscaled rows gives what the split gave, so that it can serve later tables."""
    data = load("credit")
    assert data.scaling is None
    for raw, scaled in zip(data.split(5, scale=False), data.split(5), strict=True):
        assert raw.scaling is None
        assert torch.equal(scaled.scaling(raw.x), scaled.x)


def test_a_group_too_small_for_three_parts_is_said() -> None:
    """Two people of a group cannot be in three parts: a warning names group and part."""
    data = arrays(["a"] * 100 + ["rare"] * 2)
    with pytest.warns(FairNeuronWarning, match=r"nobody of \['rare'\].*\[data-group-absent\]"):
        parts = data.split(0)
    assert sum(part.group_counts[1] for part in parts) == 2


# Tables


def frame(**changes: object) -> pd.DataFrame:
    """A small table: a number, a text, a sensitive column, a label."""
    columns = {
        "age": [20, 31.5, 47, 20],
        "job": ["cook", "nurse", "cook", "actor"],
        "sex": ["m", "f", "f", "m"],
        "hired": ["no", "yes", "yes", "no"],
    }
    return pd.DataFrame(columns | changes)


def from_frame(table: pd.DataFrame | None = None, **changes: object) -> Dataset:
    """Encodes it with the usual roles."""
    roles = {"target": "hired", "positive": "yes", "sensitive": "sex"} | changes
    return Dataset.from_frame(frame() if table is None else table, **roles)


def test_a_table_by_hand() -> None:
    """Numbers as they are, texts one-hot in alphabetical order, columns in the table's order."""
    data = from_frame(name="jobs")
    assert data.feature_names == ("age", "job=actor", "job=cook", "job=nurse")
    expected = [[20, 0, 1, 0], [31.5, 0, 0, 1], [47, 0, 1, 0], [20, 1, 0, 0]]
    assert data.x.tolist() == expected
    assert data.y.tolist() == [0, 1, 1, 0]
    assert data.group_names == ("f", "m")
    assert data.group.tolist() == [1, 0, 0, 1]
    assert (data.name, data.positive, data.sensitive_names) == ("jobs", "yes", ("sex",))


def test_which_columns_are_inputs() -> None:
    """Neither target nor dropped columns, and the sensitive ones only if asked for."""
    assert from_frame(include_sensitive=True).feature_names[-2:] == ("sex=f", "sex=m")
    assert from_frame(drop=["job"]).feature_names == ("age",)
    both = from_frame(sensitive=["sex", "job"], include_sensitive=True)
    assert columns_of(both) == {"age", "job", "sex"}
    assert len(both.group_names) == 6


@pytest.mark.parametrize(
    ("labels", "positive", "y", "means"),
    [
        ([0, 1, 1, 0], None, [0, 1, 1, 0], "1"),
        ([0.0, 1.0, 1.0, 0.0], None, [0, 1, 1, 0], "1"),
        ([False, True, True, False], None, [0, 1, 1, 0], "True"),
        (["no", "yes", "yes", "no"], "no", [1, 0, 0, 1], "no"),
        ([1, 2, 2, 1], 1, [1, 0, 0, 1], "1"),
        ([-1, 1, 1, -1], 1, [0, 1, 1, 0], "1"),
        ([False, True, True, False], True, [0, 1, 1, 0], "True"),
        ([0.0, 1.0, 1.0, 0.0], 1, [0, 1, 1, 0], "1"),
        ([0.0, 1.0, 1.0, 0.0], 1.0, [0, 1, 1, 0], "1"),
        (np.array([0, 1, 1, 0], dtype=np.float32), None, [0, 1, 1, 0], "1"),
    ],
)
def test_labels(labels: list[object], positive: object, y: list[int], means: str) -> None:
    """The label that counts as y = 1: named, or 1 and True by themselves."""
    data = from_frame(frame(hired=labels), positive=positive)
    assert data.y.tolist() == y
    assert data.positive == means


def test_a_missing_group_is_called_unknown() -> None:
    """People without a value are a group of their own, and a warning counts them."""
    with pytest.warns(FairNeuronWarning, match=r"^1 rows without 'sex'.*\[data-group-missing\]"):
        data = from_frame(frame(sex=["m", None, "f", "m"]))
    assert data.group_names == ("f", "m", "unknown")
    assert data.group.tolist() == [1, 2, 0, 1]


def test_a_missing_category_is_called_unknown() -> None:
    """A text column with gaps has one category more; without gaps it has not."""
    assert from_frame(frame(job=["cook", None, "cook", "actor"])).feature_names[-1] == "job=unknown"
    assert "job=unknown" not in from_frame().feature_names


def test_groups_that_look_missing_are_kept() -> None:
    """The texts "None", "NA" and "nan" are groups like any other."""
    data = from_frame(frame(sex=["None", "NA", "nan", "NA"]))
    assert data.group_names == ("NA", "None", "nan")
    assert data.group_counts.tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([20, 31, 47, 20], dtype="Int64"),
        pd.Series([20, 31, 47, 20], dtype="int8"),
        pd.Series([True, False, True, True]),
        pd.Series([True, False, True, True], dtype="boolean"),
        pd.Series([0.5, 1.5, 2.5, 3.5], dtype="float32"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_kinds_of_numbers(column: pd.Series) -> None:
    """Integers, booleans and floats of any width are one column of numbers."""
    data = from_frame(frame(age=column))
    assert data.feature_names[0] == "age"
    assert data.x[:, 0].tolist() == [float(v) for v in column]


def test_categories_of_pandas_are_texts() -> None:
    """A categorical column of integers is one-hot, not a number."""
    data = from_frame(frame(age=pd.Categorical([3, 1, 2, 3])))
    assert data.feature_names[:3] == ("age=1", "age=2", "age=3")


@pytest.mark.filterwarnings("ignore::fairneuron.FairNeuronWarning")
@pytest.mark.parametrize("column", ["job", "sex"])
def test_the_index_of_a_table_plays_no_part(column: str) -> None:
    """Two tables put one below the other repeat their row numbers; that is fine, with gaps too."""
    table = frame(**{column: ["m", None, "f", "m"]})
    again = from_frame(table.set_axis([0, 1, 0, 1], axis=0))
    assert torch.equal(again.x, from_frame(table).x)
    assert (again.group == from_frame(table).group).all()


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def any_tables(draw: st.DrawFn) -> pd.DataFrame:
    """Tables with any texts as categories and groups, hostile ones too."""
    n = draw(st.integers(4, 12))
    words = draw(st.lists(WORDS, min_size=2, max_size=5, unique=True))
    texts = st.lists(st.sampled_from(words), min_size=n - 2, max_size=n - 2)
    return pd.DataFrame(
        {
            "number": draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n)),
            "text": words[:2] + draw(texts),
            "group": words[:2] + draw(texts),
            "label": [0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))],
        }
    )


@pytest.mark.filterwarnings("ignore::fairneuron.FairNeuronWarning")
@CALM
@given(any_tables(), st.data())
def test_a_schema_survives_json_and_encodes_the_same(
    table: pd.DataFrame, data: st.DataObject
) -> None:
    """Restored from JSON it is equal, and gives rows alone what they had in the whole table."""
    texts = {"text": "category", "group": "category"}
    whole = Dataset.from_frame(
        table, target="label", sensitive="group", include_sensitive=True, types=texts
    )
    restored = Schema.from_dict(json.loads(json.dumps(whole.schema.to_dict())))
    assert restored == whole.schema
    rows = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=6))
    again = restored.encode(table.iloc[rows])
    assert torch.equal(again.x, whole.x[rows])
    assert (again.y == whole.y[rows]).all()
    assert (again.group == whole.group[rows]).all()
    assert again.group_names == whole.group_names
    assert again.feature_names == whole.feature_names


def test_another_table_of_the_same_columns() -> None:
    """The order of columns, further columns and the index of the new table play no part."""
    schema = from_frame().schema
    later = pd.DataFrame(
        {
            "extra": [1, 2],
            "hired": ["yes", "yes"],
            "sex": ["m", "m"],
            "job": ["nurse", "nurse"],
            "age": ["44", "45.5"],
        },
        index=[7, 7],
    )
    data = schema.encode(later, name="later")
    assert data.x.tolist() == [[44, 0, 0, 1], [45.5, 0, 0, 1]]
    assert data.y.tolist() == [1, 1]
    assert data.group.tolist() == [1, 1]
    assert data.group_names == ("f", "m")
    assert data.name == "later"


def test_numbered_groups_with_fractions_in_another_table() -> None:
    """A group of number 1 beside one of 0.5 is that group also in rows where it is alone."""
    table = frame(sex=[0.5, 1.0, 1.0, 0.5])
    data = from_frame(table)
    later = data.schema.encode(table.iloc[1:3])
    assert data.group.tolist() == [0, 1, 1, 0]
    assert later.group.tolist() == [1, 1]
    assert later.group_names == data.group_names


# What is refused


REFUSED_TABLES = {
    "no rows": (lambda: from_frame(frame().iloc[:0]), "data-empty"),
    "unknown target": (lambda: from_frame(target="hire"), "data-no-column"),
    "unknown sensitive": (lambda: from_frame(sensitive=["sex", "race"]), "data-no-column"),
    "unknown to drop": (lambda: from_frame(drop=["agee"]), "data-no-column"),
    "a column twice": (
        lambda: from_frame(pd.concat([frame(), frame()[["age"]]], axis=1)),
        "data-duplicate-column",
    ),
    "sensitive target": (lambda: from_frame(sensitive="hired"), "data-target-used"),
    "no inputs": (lambda: from_frame(drop=["age", "job"]), "data-no-inputs"),
    "missing label": (
        lambda: from_frame(frame(hired=["no", None, "yes", "no"])),
        "data-label-missing",
    ),
    "three labels": (
        lambda: from_frame(frame(hired=["no", "yes", "perhaps", "no"])),
        "data-labels",
    ),
    "one label": (lambda: from_frame(frame(hired=["yes"] * 4)), "data-labels"),
    "numbers as labels": (lambda: from_frame(frame(hired=[0.1, 0.7, 0.2, 0.9])), "data-labels"),
    "positive not said": (lambda: from_frame(positive=None), "data-positive"),
    "positive of 1 and 2 not said": (
        lambda: from_frame(frame(hired=[1, 2, 2, 1]), positive=None),
        "data-positive",
    ),
    "unknown positive": (lambda: from_frame(positive="Yes"), "data-positive"),
    "one group": (lambda: from_frame(frame(sex=["f"] * 4)), "data-single-group"),
    "groups by the number": (
        lambda: from_frame(
            pd.DataFrame({"x": range(42), "sex": np.arange(42) / 7, "hired": ["yes", "no"] * 21})
        ),
        "data-sensitive-continuous",
    ),
    "NaN": (lambda: from_frame(frame(age=[1, np.nan, 3, 4])), "data-nonfinite"),
    "missing integer": (
        lambda: from_frame(frame(age=pd.array([1, None, 3, 4], dtype="Int64"))),
        "data-nonfinite",
    ),
    "infinite": (lambda: from_frame(frame(age=[1, 2, -np.inf, 4])), "data-nonfinite"),
    "too large for float32": (lambda: from_frame(frame(age=[1, 2, 3, 1e39])), "data-nonfinite"),
    "complex": (lambda: from_frame(frame(age=[1, 2, 3, 1j])), "data-complex"),
    "no sensitive column": (lambda: from_frame(sensitive=[]), "data-no-sensitive"),
    "none of ours": (lambda: fn.load_dataset("compas", sensitive=[]), "data-no-sensitive"),
}
REFUSED_LATER = {
    "no rows": (frame().iloc[:0], "data-empty"),
    "no such column": (frame().drop(columns="job"), "data-no-column"),
    "no label": (frame(hired=["no", None, "yes", "no"]), "data-labels"),
    "new label": (frame(hired=["no", "maybe", "yes", "no"]), "data-labels"),
    "new category": (frame(job=["cook", "nurse", "pilot", "cook"]), "data-unseen-category"),
    "new gap": (frame(job=["cook", "nurse", None, "cook"]), "data-unseen-category"),
    "new group": (frame(sex=["m", "f", "d", "m"]), "data-unseen-category"),
    "text among numbers": (frame(age=["20", "1,234", "30", "40"]), "data-nonfinite"),
}
X, Y, S = np.arange(8.0).reshape(4, 2), [0, 1, 0, 1], list("abab")
REFUSED_ARRAYS = {
    "labels too few": ((X, [0, 1, 0], S), "data-lengths"),
    "groups too few": ((X, Y, list("aba")), "data-lengths"),
    "features of one dimension": ((X[:, 0], Y, S), "data-shape"),
    "labels of two dimensions": ((X, np.eye(4, 2), S), "data-shape"),
    "a half": ((X, [0, 0.5, 1, 1], S), "data-labels"),
    "-1 and 1": ((X, [-1, 1, -1, 1], S), "data-labels"),
    "NaN": ((np.where(X == 3, np.nan, X), Y, S), "data-nonfinite"),
    "infinite": (
        (torch.tensor(X).masked_fill(torch.tensor(X) == 3, -torch.inf), Y, S),
        "data-nonfinite",
    ),
    "texts as labels": ((X, ["no", "yes", "no", "yes"], S), "data-labels"),
    "a number for all labels": ((X, 1, S), "data-shape"),
    "a missing label": ((X, [0, np.nan, 1, 1], S), "data-labels"),
    "no sensitive column": ((X, Y, np.empty((4, 0))), "data-shape"),
    "texts": (([["a"]] * 4, Y, S), "data-type"),
    "complex": ((X * 1j, Y, S), "data-type"),
    "too large for float32": ((np.where(X == 3, 1e39, X), Y, S), "data-nonfinite"),
}


@pytest.mark.parametrize(("encode", "code"), REFUSED_TABLES.values(), ids=REFUSED_TABLES.keys())
def test_refused_tables(encode: Callable[[], Dataset], code: str) -> None:
    """A table that cannot be encoded is refused with a code that says why."""
    with pytest.raises(DataError) as caught:
        encode()
    assert caught.value.code == code


@pytest.mark.parametrize(("table", "code"), REFUSED_LATER.values(), ids=REFUSED_LATER.keys())
def test_refused_later_tables(table: pd.DataFrame, code: str) -> None:
    """So is a later table that the schema was not made for."""
    schema = from_frame().schema
    with pytest.raises(DataError) as caught:
        schema.encode(table)
    assert caught.value.code == code


@pytest.mark.parametrize(("fields", "code"), REFUSED_ARRAYS.values(), ids=REFUSED_ARRAYS.keys())
def test_refused_arrays(fields: tuple[object, object, object], code: str) -> None:
    """So are arrays."""
    with pytest.raises(DataError) as caught:
        Dataset.from_arrays(*fields)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("refused", "error", "code"),
    [
        (lambda: fn.load_dataset("adult"), OptionError, "option-data"),
        (lambda: fn.load_dataset("compas", sensitive="age"), OptionError, "option-sensitive"),
        (
            lambda: arrays(list("ab") * 9).split(0, fractions=(0.7, 0.2, 0.2)),
            OptionError,
            "option-fractions",
        ),
        (
            lambda: arrays(list("ab") * 9).split(0, fractions=(0.8, 0, 0.2)),
            OptionError,
            "option-fractions",
        ),
        (lambda: arrays(list("abab")).split(0), DataError, "data-too-few"),
    ],
)
def test_refused_options(refused: Callable[[], object], error: type[InputError], code: str) -> None:
    """Unknown names, fractions that are none, and splits that would miss a class."""
    with pytest.raises(error) as caught:
        refused()
    assert caught.value.code == code


def test_refusals_say_rule_value_and_cure() -> None:
    """A typo in a column's name is shown with the name that was meant."""
    with pytest.raises(DataError, match=r"column 'hird'; got none .*\. Did you mean 'hired'\?"):
        from_frame(target="hird")
    with pytest.raises(DataError, match=r"'age' must be a finite number; got .*nan.* in row 1"):
        from_frame(frame(age=[1, np.nan, 3, 4]))
    with pytest.raises(DataError, match=r"got 'pilot'\. Known: actor, cook, nurse"):
        from_frame().schema.encode(frame(job=["cook", "nurse", "pilot", "cook"]))


# Printing


def test_describe_counts_groups() -> None:
    """Sizes and positives per group, empty intersections too, as plain values."""
    data = arrays([["f", "x"], ["f", "y"], ["m", "x"], ["f", "x"]], name="four")
    described = data.describe()
    assert described["groups"] == [
        {"group": "f & x", "n": 2, "positive": 1},
        {"group": "f & y", "n": 1, "positive": 1},
        {"group": "m & x", "n": 1, "positive": 0},
        {"group": "m & y", "n": 0, "positive": 0},
    ]
    assert (described["rows"], described["features"], described["name"]) == (4, 1, "four")
    json.dumps(described, allow_nan=False)
    assert "four" in repr(data)
    assert "m & y 0" in repr(data)


def test_describe_counts_class_1_alone() -> None:
    """Of three classes the positive one is class 1, as in an audit."""
    data = arrays(list("aaabbb"), y=[0, 1, 2, 0, 2, 2])
    assert [group["positive"] for group in data.describe()["groups"]] == [1, 0]
    assert "16.7%" in repr(data)
