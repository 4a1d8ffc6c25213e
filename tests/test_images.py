"""Images: as data, from files of all kinds, by name; audits without groups; coloured ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import nn

import fairneuron as fn
from fairneuron.audit import audit_scores
from fairneuron.checks import check_model
from fairneuron.data import imagefile, imagesets
from fairneuron.data.arrays import channels_first
from fairneuron.data.dataset import Dataset
from fairneuron.data.scaling import Scaling
from fairneuron.errors import DataError, ModelError, OptionError
from tests.fuzzing import command

RNG = np.random.default_rng(0)


def grey(n: int = 60, classes: int = 3, side: int = 4) -> Dataset:
    """Grey images whose label is how bright they are, without groups."""
    y = np.arange(n) % classes
    noise = np.random.default_rng(0).integers(0, 20, (n, 1, side, side))
    return Dataset.from_arrays((noise + 60 * y[:, None, None, None]).astype(np.uint8), y)


class Brightness(nn.Module):
    """Class logits by how bright an image is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, height, width)`` to ``(n, 3)``."""
        middle = torch.tensor([10.0, 70.0, 130.0]) / 255
        return -((x.mean((1, 2, 3))[:, None] - middle) ** 2) * 1e4


def refused(code: str, act: Callable[[], Any], *words: str) -> str:
    """The message of the coded error that comes."""
    with pytest.raises(fn.FairNeuronError) as caught:
        act()
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


# As data


def test_bytes_are_read_as_shares_of_255() -> None:
    """Of images; a table of bytes stays as it is."""
    x = np.array([[[[0, 255], [51, 102]]], [[[1, 2], [3, 4]]]], dtype=np.uint8)
    data = Dataset.from_arrays(x, [0, 1], ["a", "b"])
    assert data.x.dtype == torch.float32
    assert torch.equal(data.x[0, 0], torch.tensor([[0.0, 1.0], [0.2, 0.4]]))
    table = Dataset.from_arrays(x.reshape(2, 4), [0, 1], ["a", "b"])
    assert table.x[0].tolist() == [0, 255, 51, 102]
    assert x[0, 0, 0, 1] == 255  # the caller's


def test_images_are_scaled_per_channel() -> None:
    """By mean and deviation of the training part, also of other parts; masks of 0 and 1 stay."""
    x = RNG.normal(3, 2, (50, 3, 5, 4)).astype(np.float32)
    x[:, 1] = x[:, 1] > 3
    data = Dataset.from_arrays(x, np.arange(50) % 2)
    train, valid, test = data.split(0)
    kept = data.split(0, scale=False)
    for k in (0, 2):
        mean, deviation = (
            kept[0].x[:, k].double().mean(),
            kept[0].x[:, k].double().std(correction=0),
        )
        for part, before in zip((train, valid, test), kept, strict=True):
            expected = (before.x[:, k] - mean.float()) / deviation.float()
            assert torch.allclose(part.x[:, k], expected, atol=1e-6)
    assert torch.equal(train.x[:, 1], kept[0].x[:, 1])
    assert train.scaling is not None
    assert train.scaling.mean.shape == (3, 1, 1)
    assert torch.equal(data.x, torch.from_numpy(x))  # the whole is as it was


def test_scaling_a_few_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images are taken at once."""
    x = torch.from_numpy(RNG.normal(100, 1e-2, (33, 2, 3, 3)).astype(np.float32))
    whole = Scaling.fit(x)
    monkeypatch.setattr("fairneuron.data.scaling._AT_ONCE", 20)
    parts = Scaling.fit(x)
    assert torch.allclose(whole.mean, parts.mean)
    assert torch.allclose(whole.scale, parts.scale, rtol=1e-5)
    assert torch.allclose(whole.scale.flatten(), x.double().std((0, 2, 3), correction=0).float())


def test_without_groups_everybody_is_one() -> None:
    """Data need no sensitive columns; what needs groups says so."""
    data = grey()
    assert data.group_names == ("everybody",)
    assert data.group_counts.tolist() == [60]
    assert data.compared.tolist() == [True]
    assert "each 1 × 4 × 4" in repr(data)
    assert data.describe()["shape"] == [1, 4, 4]
    train, valid, test = data.split(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    refused("data-no-groups", lambda: fn.repair(network, train, valid))
    refused("data-no-groups", lambda: fn.judge(network, network, test, {"dp": 0.1}, on="test"))
    refused("data-shape", lambda: fn.train_classifier(train, valid, outputs=3), "read tables")


def test_the_own_split_is_kept() -> None:
    """With its validation part, or an eighth of its training part drawn for it."""
    data = grey(80, 2)
    part = np.repeat([0, 2], [64, 16])
    refused("data-split", data.split_by)
    own = replace(data, part=part)
    train, valid, test = own.split_by(seed=1)
    assert [len(p) for p in (train, valid, test)] == [56, 8, 16]
    assert torch.equal(own.split_by(scale=False)[2].x, data.x[64:])
    other = own.split_by(seed=2, scale=False)[1]
    assert not torch.equal(own.split_by(seed=1, scale=False)[1].x, other.x)
    whole = replace(data, part=np.repeat([0, 1, 2], [40, 24, 16]))
    assert [len(p) for p in whole.split_by()] == [40, 24, 16]
    assert whole.subset(np.array([0, 79])).part.tolist() == [0, 2]  # type: ignore[union-attr]
    joined = whole.joined(data).part
    assert joined is None


@pytest.mark.parametrize(
    ("shape", "value"), [((2, 1, 2, 2), np.nan), ((2, 3, 2, 2), np.inf), ((2, 2, 3), -np.inf)]
)
def test_numbers_must_be_finite(shape: tuple[int, ...], value: float) -> None:
    """Also those of images."""
    x = np.zeros(shape, dtype=np.float32)
    x[1, -1, ...] = value
    refused("data-nonfinite", lambda: Dataset.from_arrays(x, [0, 1]), "in row 1 of", f"{value}")


def test_class_names_cover_the_labels() -> None:
    """A label without a name is refused."""
    x = np.zeros((3, 1, 2, 2), dtype=np.uint8)
    refused("data-labels", lambda: Dataset.from_arrays(x, [0, 1, 2], class_names=["a", "b"]))
    assert Dataset.from_arrays(x, [0, 1, 1], class_names=["a", "b"]).class_names == ("a", "b")
    refused("data-shape", lambda: Dataset.from_arrays(x, [0, 1, 1], np.zeros((3, 0))))
    refused("data-shape", lambda: Dataset.from_arrays(np.zeros(3), [0, 1, 1]))


# Networks


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 2, 2), nn.Flatten()), ("Its layer '0'", "3 channels", "1 × 4")),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), ("Its layer '1'", "9 inputs; got 16")),
        (nn.Linear(16, 2), ("The model expects 16 inputs; got 4", "1 × 4 × 4")),
    ],
)
def test_a_network_of_other_images_is_refused(network: nn.Module, words: tuple[str, ...]) -> None:
    """The message has the layer, what it expects and what the images are."""
    with pytest.raises(ModelError) as caught:
        check_model(network, grey().x)
    assert caught.value.code == "model-width"
    for word in words:
        assert word in str(caught.value)


# Audits without groups


def test_gaps_between_classes_are_audited() -> None:
    """Class accuracies, CV and MCD as worked out by hand; what compares groups has a reason."""
    data = replace(grey(), class_names=("dark", "dim", "bright"))
    scores = np.eye(3)[data.y]
    scores[[0, 3, 6, 9]] = [0, 0, 1]  # 4 of the 20 dark ones
    scores[[1]] = [0, 0, 1]  # 1 of the 20 dim ones
    found = audit_scores(scores, data)
    accuracies = np.array([0.8, 0.95, 1.0])
    assert found.metrics["mcd"] == pytest.approx(0.2)
    assert found.metrics["cv"] == pytest.approx(accuracies.var())
    assert found.metrics["accuracy"] == pytest.approx(55 / 60)
    assert [(c["class"], c["n"]) for c in found.classes] == [
        ("dark", 20),
        ("dim", 20),
        ("bright", 20),
    ]
    assert [c["accuracy"] for c in found.classes] == pytest.approx(accuracies)
    assert found.classes[2]["interval"][1] == 1
    groupwise = ("dp", "dpr", "eo", "eodds", "abcc", "worst_group_accuracy")
    for name in groupwise:
        assert found.metrics[name] is None
        assert found.undefined[name] == "the data have no sensitive columns"
        assert found.intervals[name] is None
    low, high = found.intervals["mcd"]  # type: ignore[misc]
    assert low < 0.2 < high
    plain = found.to_dict()
    assert plain["classes"] == found.classes
    assert plain["sensitive"] == []
    assert "<th" in found._repr_html_()
    assert "bright" in found._repr_html_()
    assert "Groups" not in found._repr_html_()
    assert "mcd 0.200" in repr(found)


def test_gaps_between_classes_have_a_noise_floor() -> None:
    """That of a classifier with one accuracy for all classes: it falls with the root of n."""
    floors = []
    for n in (300, 4_800):
        data = grey(n)
        scores = np.eye(3)[np.where(np.arange(n) % 10 == 0, (data.y + 1) % 3, data.y)]
        floors.append(audit_scores(scores, data).noise_floor["mcd"])
    assert floors[0] == pytest.approx(0.0508, abs=0.004)  # range of 3 normals: 1.69 · .3 / √100
    assert floors[0] / floors[1] == pytest.approx(4, rel=0.1)  # type: ignore[operator]


def test_audit_of_images() -> None:
    """``audit`` takes images without groups, and images with groups, of two classes too."""
    found = fn.audit(Brightness(), grey())
    assert (found.metrics["accuracy"], found.metrics["mcd"]) == (1, 0)
    with_groups = fn.coloured(grey(), correlation=0)
    both = fn.audit(Brightness(), replace(with_groups, x=3 * with_groups.x))
    assert both.metrics["worst_group_accuracy"] == 1
    assert both.metrics["mcd"] == 0
    assert "classes" in both.to_dict()


def test_tables_of_two_classes_show_no_classes() -> None:
    """What is said of them is what it was."""
    data = Dataset.from_arrays(RNG.normal(size=(40, 2)), np.arange(40) % 2, np.arange(40) % 4 < 2)
    found = audit_scores(np.full((40, 2), 0.5), data)
    assert "classes" not in found.to_dict()
    assert "mcd" not in found.noise_floor


# Folders


def picture(
    path: Path, value: object = 100, mode: str = "L", size: tuple[int, int] = (6, 4)
) -> Path:
    """Writes an image of one colour; ``size`` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)  # type: ignore[arg-type]
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of cats and dogs in folders of their names."""
    root = tmp_path / "pets"
    for k in range(4):
        picture(root / "cat" / f"{k}.png", 10 * k)
        picture(root / "dog" / f"{k}.png", 200 + k)
    return root


def test_a_folder_by_class(folder: Path) -> None:
    """Labels are the names of the folders; rows come sorted by path; values are from 0 to 1."""
    picture(folder / "cat" / ".hidden.png")
    data = fn.read_images(folder, positive="cat")
    assert data.x.shape == (8, 1, 4, 6)
    assert data.class_names == ("dog", "cat")
    assert data.positive == "cat"
    assert data.y.tolist() == [1] * 4 + [0] * 4
    assert (data.x[:, 0, 0, 0] * 255).tolist() == pytest.approx([0, 10, 20, 30, 200, 201, 202, 203])
    assert data.sensitive_names == ()
    assert data.feature_names == ("grey",)


def test_two_classes_need_the_positive_one(folder: Path) -> None:
    """Unless they are 0 and 1; of more classes none is."""
    refused("data-positive", lambda: fn.read_images(folder), "cat and dog")
    refused("data-positive", lambda: fn.read_images(folder, positive="cow"), "cat, dog")
    (folder / "cat").rename(folder / "1")
    (folder / "dog").rename(folder / "0")
    assert fn.read_images(folder).class_names == ("0", "1")
    for k in (2, 10):
        picture(folder / str(k) / "0.png")
    assert fn.read_images(folder).class_names == ("0", "1", "2", "10")


def test_a_folder_by_group_and_class(tmp_path: Path) -> None:
    """The first level are the groups."""
    for group in ("old", "young"):
        for label in ("no", "yes"):
            picture(tmp_path / "x" / group / label / "a.png")
    data = fn.read_images(tmp_path / "x", positive="yes")
    assert data.sensitive_names == ("group",)
    assert [data.group_names[g] for g in data.group] == ["old", "old", "young", "young"]
    assert data.y.tolist() == [0, 1, 0, 1]


def test_a_folder_with_a_table(folder: Path) -> None:
    """Its rows are the images, in its order, with labels, groups and parts."""
    (folder / "labels.csv").write_text(
        "file,label,place,age,split\n"
        "dog/1.png,dog,home,old,train\ncat/0.png,cat,home,,train\n"
        "dog/0.png,dog,wild,young,test\ncat/3.png,cat,wild,old,test\n"
    )
    with pytest.warns(fn.FairNeuronWarning, match="4 images are not in labels.csv"):
        data = fn.read_images(folder, positive="cat", sensitive="place")
    assert data.y.tolist() == [0, 1, 0, 1]
    assert data.sensitive_names == ("place",)
    assert [data.group_names[g] for g in data.group] == ["home", "home", "wild", "wild"]
    assert data.part.tolist() == [0, 0, 2, 2]  # type: ignore[union-attr]
    with (
        pytest.warns(fn.FairNeuronWarning, match="1 rows without 'age'"),
        pytest.warns(fn.FairNeuronWarning, match="4 images"),
    ):
        data = fn.read_images(folder, positive="cat", sensitive=["place", "age"])
    assert data.group_names[data.group[1]] == "home & unknown"


def test_a_table_without_labels_takes_the_folders(folder: Path) -> None:
    """Of a flat folder it must have them."""
    files = [f"{kind}/{k}.png" for kind in ("cat", "dog") for k in range(4)]
    rows = [f"{file},{'ab'[i % 2]}" for i, file in enumerate(files)]
    (folder / "labels.csv").write_text("\n".join(["file,group", *rows]))
    data = fn.read_images(folder, positive="dog")
    assert data.y.tolist() == [0] * 4 + [1] * 4
    assert data.group.tolist() == [0, 1] * 4
    flat = folder.parent / "flat"
    for k in range(2):
        picture(flat / f"{k}.png")
    (flat / "labels.csv").write_text("file\n0.png\n1.png\n")
    refused("data-no-column", lambda: fn.read_images(flat), "label")
    (flat / "labels.csv").write_text("file,label\n0.png,0\n1.png,1\n")
    assert fn.read_images(flat).y.tolist() == [0, 1]


def test_a_table_names_files_at_any_depth(tmp_path: Path) -> None:
    """Up to 16 levels; without a table a third folder is too deep, and links stay refused."""
    deep = [f"x/faces/{place}/{k}/0.png" for place in ("west", "east") for k in ("no", "yes")]
    for file in deep:
        picture(tmp_path / "lab" / file)
    too_deep = refused("data-folder", lambda: fn.read_images(tmp_path / "lab"), "labels.csv")
    assert "16 levels" in too_deep
    (tmp_path / "lab" / "labels.csv").write_text("\n".join(["file", *deep]))
    assert fn.read_images(tmp_path / "lab", positive="yes").y.tolist() == [0, 1, 0, 1]
    out = tmp_path / "lab" / "x" / "faces" / "out.png"
    out.symlink_to(picture(tmp_path / "elsewhere.png"))
    refused("data-folder", lambda: fn.read_images(tmp_path / "lab", positive="yes"), "link out")
    out.unlink()
    picture(tmp_path / "lab" / "/".join("abcdefghijklmnopq") / "0.png")
    refused("data-folder", lambda: fn.read_images(tmp_path / "lab", positive="yes"), "too deep")


@pytest.mark.parametrize(
    ("table", "code", "word"),
    [
        ("file,g\ncat/9.png,a\ndog/0.png,b\n", "data-file", "'cat/9.png'"),
        ("file,g\n../pets/cat/0.png,a\ndog/0.png,b\n", "data-file", "'../pets/cat/0.png'"),
        ("file,g\ncat/0.png,a\ncat/0.png,b\n", "data-file", "once"),
        ("path,g\ncat/0.png,a\n", "data-no-column", "file"),
        ("file,label,g\ncat/0.png,,a\ndog/0.png,dog,b\n", "data-label-missing", "1 missing"),
        ("file,g\ncat/0.png,a\ncat/1.png,b\n", "data-labels", "only ['cat']"),
        ("file,g\ncat/0.png,a\ndog/0.png,a\n", "data-single-group", "'g'"),
        ("file,split\ncat/0.png,train\ndog/0.png,later\n", "data-split-column", "'later'"),
        ("file,g\ncat/0.png\n", "data-ragged", "2"),
    ],
)
@pytest.mark.filterwarnings("ignore::fairneuron.errors.FairNeuronWarning")
def test_a_table_that_does_not_fit(folder: Path, table: str, code: str, word: str) -> None:
    """What is wrong with it is told, before an image is opened."""
    (folder / "labels.csv").write_text(table)
    picture(folder / "cat" / "0.png").write_bytes(b"no image")
    refused(code, lambda: fn.read_images(folder, positive="dog"), word)


def test_kinds_of_pixels(tmp_path: Path) -> None:
    """Colour makes three channels of all; palettes and opaque alpha are colours; JPEG too."""
    for name, mode, value in (
        ("a/0.png", "L", 100),
        ("a/1.png", "RGB", (10, 20, 30)),
        ("a/2.png", "RGBA", (10, 20, 30, 255)),
        ("b/3.png", "1", 1),
        ("b/4.png", "P", 0),
        ("b/5.jpg", "L", 77),
        ("b/6.JPEG", "CMYK", (0, 0, 0, 0)),
        ("b/7.png", "LA", (9, 255)),
    ):
        picture(tmp_path / "x" / name, value, mode)
    data = fn.read_images(tmp_path / "x", positive="b")
    assert data.feature_names == ("red", "green", "blue")
    first = (data.x[:, :, 0, 0] * 255).round().int().tolist()
    assert first[:4] == [[100] * 3, [10, 20, 30], [10, 20, 30], [255] * 3]
    assert first[5] == [77] * 3
    assert first[6:] == [[255] * 3, [9] * 3]


def test_resizing(tmp_path: Path) -> None:
    """Other sizes are refused unless one is given."""
    picture(tmp_path / "x" / "a" / "0.png", 90, size=(6, 4))
    picture(tmp_path / "x" / "b" / "1.png", 90, size=(5, 9))
    message = refused("data-shape", lambda: fn.read_images(tmp_path / "x", positive="b"))
    assert "a/0.png of 4 × 6, b/1.png of 9 × 5" in message
    data = fn.read_images(tmp_path / "x", positive="b", size=(3, 2))
    assert data.x.shape == (2, 1, 3, 2)
    assert (data.x * 255).round().unique().tolist() == [90]
    for size in (0, (3,), (3, -1), 1.5, "3"):
        refused("option-size", lambda s=size: fn.read_images(tmp_path / "x", size=s))  # type: ignore[misc]


# Hostile files


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says it has so many pixels, and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def noisy(kind: str) -> bytes:
    """An image of noise."""
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 255, (40, 40), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def text_bomb() -> bytes:
    """A small image with a text that unpacks to 100 MB."""
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("x", "a" * 100_000_000, zip=True)
    Image.new("L", (6, 4)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def animated() -> bytes:
    """A GIF."""
    file = io.BytesIO()
    Image.new("L", (6, 4)).save(file, "GIF")
    return file.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "data-image"),
    "text": (lambda: b"hello", "data-image"),
    "web page": (lambda: b"<!doctype html><p>not found", "data-image"),
    "another format": (animated, "data-image"),
    "pickle": (lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", "data-image"),
    "truncated PNG": (lambda: noisy("PNG")[:700], "data-image"),
    "truncated JPEG": (lambda: noisy("JPEG")[:700], "data-image"),
    "flipped PNG": (lambda: noisy("PNG").replace(b"IDAT", b"IDAX"), "data-image"),
    "many pixels": (lambda: png_header(30_000, 30_000), "data-bomb"),
    "a few too many": (lambda: png_header(8_193, 8_193), "data-bomb"),
    "no pixels": (lambda: png_header(0, 5), "data-image"),
    "pixels that are not there": (lambda: png_header(6, 4000), "data-image"),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "data-image"),
    "text bomb": (text_bomb, "data-image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_are_refused(name: str, folder: Path) -> None:
    """With a code and the file, and nothing else happens."""
    content, code = HOSTILE[name]
    (folder / "dog" / "0.png").write_bytes(content())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refused(code, lambda: fn.read_images(folder, positive="dog"))
    assert "dog/0.png" in message


def test_all_damaged_images_are_told(folder: Path) -> None:
    """Up to 20 at once."""
    for k in range(3):
        (folder / "dog" / f"{k}.png").write_bytes(b"no")
    with pytest.raises(DataError) as caught:
        fn.read_images(folder, positive="dog")
    assert caught.value.code == "data-image"
    assert [f"dog/{k}.png" in str(p) for k, p in enumerate(caught.value.problems)] == [True] * 3


@pytest.mark.parametrize(
    ("mode", "value", "word"),
    [("RGBA", (1, 2, 3, 0), "show through"), ("LA", (9, 254), "show through"), ("I;16", 9, "I;16")],
)
def test_strange_pixels_are_refused(mode: str, value: object, word: str, folder: Path) -> None:
    """Nothing is dropped or clipped in silence."""
    picture(folder / "dog" / "0.png", value, mode)
    refused("data-image", lambda: fn.read_images(folder, positive="dog"), word)


def test_links_out_of_the_folder_are_refused(folder: Path) -> None:
    """To files, folders and tables; links within are read; circles lead nowhere."""
    outside = picture(folder.parent / "outside.png")
    (folder / "dog" / "9.png").symlink_to(folder / "dog" / "0.png")
    assert len(fn.read_images(folder, positive="dog")) == 9

    def denied(link: Path, target: Path) -> None:
        link.symlink_to(target)
        refused("data-folder", lambda: fn.read_images(folder, positive="dog"), "link", link.name)
        link.unlink()

    denied(folder / "dog" / "8.png", outside)
    denied(folder / "cow", folder / "dog")
    denied(folder / "labels.csv", picture(folder.parent / "t.png"))
    (folder / "dog" / "8.png").symlink_to(folder / "dog" / "8.png")
    refused("data-image", lambda: fn.read_images(folder, positive="dog"), "dog/8.png")


@pytest.mark.parametrize("kind", ["fifo", "text", "loose", "deep", "empty"])
def test_strange_folders_are_refused(kind: str, folder: Path) -> None:
    """Other files, pipes, images in no class, and four levels."""
    code = "data-folder"
    if kind == "fifo":
        os.mkfifo(folder / "dog" / "8.png")
        code = "data-image"
    elif kind == "text":
        (folder / "dog" / "notes.txt").write_text("x")
    elif kind == "loose":
        picture(folder / "0.png")
    elif kind == "deep":
        picture(folder / "a" / "b" / "c" / "0.png")
    else:
        folder, code = folder.parent / "new", "data-empty"
        folder.mkdir()
    refused(code, lambda: fn.read_images(folder, positive="dog"))


def test_large_files_and_many_pixels_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they fill the memory."""
    monkeypatch.setattr(imagefile, "MOST_BYTES", 1000)
    (folder / "dog" / "0.png").write_bytes(bytes(1001))
    refused("data-bomb", lambda: fn.read_images(folder, positive="dog"), "dog/0.png")
    picture(folder / "dog" / "0.png")
    monkeypatch.setattr("fairneuron.data.imagefolder._MOST_VALUES", 100)
    refused("data-too-large", lambda: fn.read_images(folder, positive="dog"), "8 images of 1 × 4")
    monkeypatch.setattr("fairneuron.data.imagefolder._MOST_FILES", 7)
    refused("data-folder", lambda: fn.read_images(folder, positive="dog"), "8 files")


def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(OptionError, match=r"fairneuron\[images\]"):
        fn.read_images(folder, positive="dog")


# Arrays


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 8, 9), (5, 1, 8, 9)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 8, 9, 1), (5, 1, 8, 9)),
        ((5, 3, 8, 9), (5, 3, 8, 9)),
        ((5, 1, 8, 3), (5, 1, 8, 3)),
        ((5, 4, 8, 9), (5, 4, 8, 9)),
    ],
)
def test_where_the_channels_are(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """At the end, in front, or not there."""
    x = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    found = channels_first(x)
    assert found.shape == expected
    if shape == (5, 8, 9, 3):
        assert np.array_equal(found[2, 1], x[2, :, :, 1])


def test_arrays_of_images(tmp_path: Path) -> None:
    """One array with groups and a split, or parts of their own; labels of two classes by name."""
    x, y = RNG.integers(0, 255, (12, 4, 5, 3), dtype=np.uint8), np.array(["no", "yes", "no"] * 4)
    np.savez(tmp_path / "one.npz", x=x, y=y, group=np.arange(12) % 3 > 0, split=[0] * 8 + [2] * 4)
    data = fn.read_images(tmp_path / "one.npz", positive="yes")
    assert data.x.shape == (12, 3, 4, 5)
    assert torch.equal(data.x[3, 2], torch.from_numpy(x[3, :, :, 2]) / 255)
    assert data.class_names == ("no", "yes")
    assert data.part.tolist() == [0] * 8 + [2] * 4  # type: ignore[union-attr]
    assert data.group_counts.tolist() == [4, 8]
    np.savez(
        tmp_path / "parts.npz",
        **{"x_train": x[:9], "y_train": np.arange(9)[:, None] % 3, "x_test": x[9:]},
        **{"y_test": np.arange(3)[:, None], "class_names": ["a", "b", "c"]},
    )
    data = fn.read_images(tmp_path / "parts.npz")
    assert data.y.tolist() == [*range(3)] * 4
    assert data.part.tolist() == [0] * 9 + [2] * 3  # type: ignore[union-attr]
    assert (data.class_names, data.positive, data.sensitive_names) == (("a", "b", "c"), "b", ())
    np.savez(tmp_path / "lost.npz", x_train=x, y_train=np.arange(12) % 3, x_test=x)
    refused("data-shape", lambda: fn.read_images(tmp_path / "lost.npz"), "parts of y")
    refused("data-no-column", lambda: fn.read_images(tmp_path / "parts.npz", sensitive="sex"))
    refused("option-size", lambda: fn.read_images(tmp_path / "one.npz", size=3))


def test_a_table_of_arrays_still_needs_groups(tmp_path: Path) -> None:
    """Only images may come without."""
    np.savez(tmp_path / "t.npz", x=np.zeros((4, 3)), y=[0, 1, 0, 1])
    refused("data-no-column", lambda: fn.read_images(tmp_path / "t.npz"), "no 'sensitive'")


# By name


def idx(values: np.ndarray) -> bytes:
    """The bytes of an IDX file."""
    dimensions = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + dimensions + values.tobytes()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, np.ndarray]:
    """Digits and things that stand for the known sets, with their sums; nothing is cached."""
    rng = np.random.default_rng(1)
    digits = {
        "x_train": rng.integers(0, 256, (80, 28, 28), dtype=np.uint8),
        "y_train": (np.arange(80) % 10).astype(np.uint8),
        "x_test": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_test": (np.arange(20) % 10).astype(np.uint8),
    }
    known = {k: (imagesets._IDX[k][0], v.shape) for k, v in digits.items()}
    sums = {k: hashlib.sha256(idx(v)).hexdigest() for k, v in digits.items()}
    monkeypatch.setattr(imagesets, "_IDX", known)
    monkeypatch.setattr(imagesets, "_IDX_SUMS", sums)
    monkeypatch.setattr(imagesets, "_BATCH", 20)
    monkeypatch.setattr(imagesets, "_PACKAGE", "no-such-package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FAIRNEURON_DATA_FOLDER", raising=False)
    return digits


def test_what_is_not_here_is_not_made_up(small: object) -> None:
    """The error says how to get it."""
    for name in ("mnist", "cifar10"):
        refused(
            "data-not-here",
            lambda name=name: fn.load_dataset(name),  # type: ignore[misc]
            f"fairneuron data get {name}",
        )


@pytest.mark.parametrize("form", ["npz", "idx", "idx.gz"])
@pytest.mark.parametrize("place", ["path", "variable", "cache"])
def test_digits_are_found(
    form: str,
    place: str,
    small: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By path, in the folder of FAIRNEURON_DATA_FOLDER or in the cache, in three forms."""
    home = tmp_path / "given" if place != "cache" else imagesets.data_folders()[-1]
    if form == "npz":
        target = home / "mnist.npz"
        home.mkdir(parents=True)
        np.savez_compressed(target, **small)
    else:
        target = home / "MNIST" / "raw"
        target.mkdir(parents=True)
        for key, (name, _) in imagesets._IDX.items():
            content = idx(small[key])
            packed = form == "idx.gz"
            file = target / (f"{name}.gz" if packed else name)
            file.write_bytes(gzip.compress(content) if packed else content)
    if place == "variable":
        monkeypatch.setenv("FAIRNEURON_DATA_FOLDER", str(home))
    data = fn.load_dataset("mnist", path=target if place == "path" else None)
    assert data.x.shape == (100, 1, 28, 28)
    assert torch.equal(data.x[:80, 0], torch.from_numpy(small["x_train"]) / 255)
    assert data.y.tolist() == [*range(10)] * 10
    assert data.part.tolist() == [0] * 80 + [2] * 20  # type: ignore[union-attr]
    assert data.class_names == tuple("0123456789")


def test_other_digits_under_their_name_are_refused(
    small: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folders of downloads; a path may be of a sample."""
    monkeypatch.setenv("FAIRNEURON_DATA_FOLDER", str(tmp_path))
    np.savez(tmp_path / "mnist.npz", **(small | {"x_test": small["x_test"][:, ::-1]}))
    refused("data-file", lambda: fn.load_dataset("mnist"), "x_test is not that of MNIST")
    assert len(fn.load_dataset("mnist", path=tmp_path / "mnist.npz")) == 100
    np.savez(tmp_path / "other.npz", **(small | {"x_test": small["x_test"][:, :9]}))
    refused("data-shape", lambda: fn.load_dataset("mnist", path=tmp_path / "other.npz"))


@pytest.mark.parametrize("wrong", ["short", "long", "bomb", "header", "missing", "torn gzip"])
def test_damaged_idx_files_are_refused(
    wrong: str, small: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Of other lengths and headers, torn, or packed to fill the memory."""
    for key, (name, _) in imagesets._IDX.items():
        (tmp_path / name).write_bytes(idx(small[key]))
    file = tmp_path / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    if wrong == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {
                "short": whole[:-1],
                "long": whole + b"x",
                "bomb": gzip.compress(bytes(50 << 20), 1),
                "header": b"\0\0\x0d" + whole[3:],
                "torn gzip": gzip.compress(whole)[:-9],
            }[wrong]
        )
    refused("data-file", lambda: fn.load_dataset("mnist", path=tmp_path), "train-images")


def batches() -> dict[str, bytes]:
    """The binary version of 120 things, in six files."""
    rng = np.random.default_rng(2)
    records = rng.integers(0, 256, (6, 20, 3073), dtype=np.uint8)
    records[:, :, 0] = np.arange(20) % 10
    return {name: records[i].tobytes() for i, name in enumerate(imagesets._BATCHES)}


def archive(files: dict[str, bytes]) -> bytes:
    """They in a folder of a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return file.getvalue()


def expect(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Makes it the known archive of CIFAR-10."""
    known = imagesets.IMAGE_SETS["cifar10"]
    download = replace(
        known.download, sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    monkeypatch.setitem(imagesets.IMAGE_SETS, "cifar10", replace(known, download=download))


@pytest.mark.parametrize("form", ["archive", "folder", "npz"])
def test_things_are_found(
    form: str, small: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The binary version as an archive and unpacked, and arrays with channels at the end."""
    files = batches()
    place = tmp_path / "cifar"
    if form == "archive":
        content = archive({"batches.meta.txt": b"airplane\n", **files})
        expect(monkeypatch, content)
        place.write_bytes(content)
    elif form == "folder":
        place.mkdir()
        for name, each in files.items():
            (place / name).write_bytes(each)
    else:
        found = imagesets._of_batches(files)
        place = place.with_suffix(".npz")
        np.savez(
            place,
            **{k: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v[:, None] for k, v in found.items()},
        )
    data = fn.load_dataset("cifar10", path=place)
    assert data.x.shape == (120, 3, 32, 32)
    assert data.part.tolist() == [0] * 100 + [2] * 20  # type: ignore[union-attr]
    first = np.frombuffer(files["data_batch_2.bin"], dtype=np.uint8)[1:3073].reshape(3, 32, 32)
    assert torch.equal(data.x[20], torch.from_numpy(first.copy()) / 255)
    assert data.class_names[:2] == ("airplane", "automobile")
    assert data.feature_names == ("red", "green", "blue")


def test_other_archives_are_not_opened(
    small: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their sum: nothing of them is parsed; the version that is pickles is named."""
    content = archive(batches())
    expect(monkeypatch, content)
    opened: list[str] = []
    monkeypatch.setattr(imagesets.tarfile, "open", lambda *_, **__: opened.append("!"))
    place = tmp_path / "cifar-10-binary.tar.gz"
    for wrong in (content[:-1] + b"x", content + b"x", content[:100]):
        place.write_bytes(wrong)
        refused("data-file", lambda: fn.load_dataset("cifar10", path=place), "another SHA-256")
    python = tmp_path / "cifar-10-python.tar.gz"
    python.write_bytes(content)
    refused("data-file", lambda: fn.load_dataset("cifar10", path=python), "pickles")
    assert opened == []
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, each in batches().items():
        (folder / name).write_bytes(each[:-1])
    refused("data-file", lambda: fn.load_dataset("cifar10", path=folder), "data_batch_1.bin")


def test_names_and_options_of_known_sets() -> None:
    """Tables have no path, images no sensitive columns."""
    refused("option-data", lambda: fn.load_dataset("mnits"), "Did you mean 'mnist'")
    refused("option-data", lambda: fn.load_dataset("compas", path="x"))
    refused("option-data", lambda: fn.load_dataset("mnist", sensitive="sex"))


def test_mnist_of_the_package() -> None:
    """The real one, if it is installed: its size, its first labels, its mean and deviation."""
    try:
        metadata.distribution(imagesets._PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip("fairneuron[images] is not installed")
    arrays = imagesets._packaged_mnist()
    assert arrays is not None
    assert {key: a.shape for key, a in arrays.items()} == {
        key: shape for key, (_, shape) in imagesets._IDX.items()
    }
    assert arrays["y_train"][:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    x = arrays["x_train"] / np.float32(255)
    assert x.mean() == pytest.approx(0.1307, abs=1e-4)
    assert x.std() == pytest.approx(0.3081, abs=1e-4)


# Coloured ones


@pytest.mark.parametrize("correlation", [-1, 0, 0.5, 1])
def test_colours_go_with_the_label(correlation: float) -> None:
    """As strongly as asked for; another seed colours others."""
    data = grey(200, 10)
    found = fn.coloured(data, correlation=correlation, seed=1)
    high = data.y >= 5
    phi = found.group[high].mean() - found.group[~high].mean()
    assert phi == pytest.approx(correlation)
    assert found.sensitive_names == ("colour",)
    assert found.group_names == ("red", "green")
    assert np.array_equal(found.y, data.y)
    again = fn.coloured(data, correlation=correlation, seed=1)
    assert np.array_equal(found.group, again.group)
    if abs(correlation) < 1:
        other = fn.coloured(data, correlation=correlation, seed=2)
        assert not np.array_equal(found.group, other.group)


def test_only_the_channel_tells_the_colour() -> None:
    """The picture is in the channel of its colour; the others are black."""
    data = grey(30, 3)
    found = fn.coloured(data, correlation=0.6, positive=[2])
    rows = torch.arange(30)
    assert torch.equal(found.x[rows, torch.from_numpy(found.group)], data.x[:, 0])
    assert torch.equal(found.x.sum(1), data.x[:, 0])
    assert found.y.tolist() == (data.y == 2).astype(int).tolist()
    assert found.class_names == ("0, 1", "2")
    refused("data-shape", lambda: fn.coloured(found, correlation=0.5))
    refused("data-shape", lambda: fn.coloured(data.split(0)[0], correlation=0.5), "scaled")
    refused("option-range", lambda: fn.coloured(data, correlation=1.5))


def test_a_network_that_reads_the_colour_has_a_gap() -> None:
    """What they are for: the audit shows it, where the label says nothing of the colour."""
    data = fn.coloured(grey(400, 2), correlation=0)

    class Green(nn.Module):
        """Predicts 1 for green ones."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """``(n, 3, height, width)`` to ``(n,)``."""
            return x[:, 1].mean((1, 2)) - x[:, 0].mean((1, 2))

    found = fn.audit(Green(), data)
    assert found.metrics["dp"] == 1
    assert found.metrics["eo"] == 1


# On the command line

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1))
"""


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Images by place and kind, and a network for them in a module; the options that name it."""
    for i, (place, kind) in enumerate([(p, k) for p in ("home", "wild") for k in ("cat", "dog")]):
        for k in range(30):
            picture(tmp_path / "pets" / place / kind / f"{k}.png", (20 + 50 * i + k) % 256)
    (tmp_path / "petnet.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    return ("--data", "pets", "--positive", "dog", "--model", "petnet:build")


@pytest.mark.filterwarnings("ignore::fairneuron.errors.FairNeuronWarning")
def test_a_folder_on_the_command_line(pets: tuple[str, ...], tmp_path: Path) -> None:
    """It is audited and repaired as tables are; new images are predicted from arrays."""
    audited = command(tmp_path, "audit", *pets)
    assert audited.code == 0, audited.err
    assert "home" in audited.out
    repaired = command(tmp_path, "repair", *pets, "--epochs", "1", "--out", "run")
    assert repaired.code in (0, 1), repaired.err
    np.savez(tmp_path / "new.npz", x=RNG.integers(0, 255, (5, 4, 6), dtype=np.uint8))
    predicted = command(tmp_path, "predict", "run", "new.npz", "--model", "petnet:build")
    assert predicted.code == 0, predicted.err
    assert len(predicted.out.splitlines()) == 6
    picture(tmp_path / "pets" / "home" / "cat" / "0.png", 255)
    changed = command(tmp_path, "audit", *pets, "--part", "all")
    assert changed.code == 0


def lines_of(outcome: Any) -> list[list[str]]:
    """The fields of each line of CSV that a command printed."""
    assert outcome.code == 0, outcome.err
    return [line.split(",") for line in outcome.out.splitlines()]


@pytest.mark.filterwarnings("ignore::fairneuron.errors.FairNeuronWarning")
def test_a_folder_is_predicted(pets: tuple[str, ...], tmp_path: Path) -> None:
    """By class or flat, without labels, or as its table says; classes have their names."""
    assert command(tmp_path, "repair", *pets, "--epochs", "1", "--out", "run").code in (0, 1)
    model = ("--model", "petnet:build")
    head, *lines = lines_of(command(tmp_path, "predict", "run", "pets", *model))
    assert head == ["file", "prediction", "score"]
    assert len(lines) == 120
    assert lines[0][0] == "home/cat/0.png"
    x = fn.read_images(tmp_path / "pets", positive="dog").x
    for _, said, score in lines:
        assert said == ("dog" if float(score) >= 0.5 else "cat")
    np.savez(tmp_path / "all.npz", x=x.numpy())
    head, *others = lines_of(command(tmp_path, "predict", "run", "all.npz", *model))
    assert head == ["row", "prediction", "score"]
    assert [line[0] for line in others] == [str(k) for k in range(120)]
    assert [line[1:] for line in others] == [line[1:] for line in lines]  # the same pixels
    for k in (1, 0):
        content = (tmp_path / "pets" / "home" / "cat" / f"{k}.png").read_bytes()
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{k}.png").write_bytes(content)
    flat = lines_of(command(tmp_path, "predict", "run", "flat", *model))[1:]
    assert [line[0] for line in flat] == ["0.png", "1.png"]
    (tmp_path / "flat" / "labels.csv").write_text("file\n1.png\n0.png\n")
    listed = lines_of(command(tmp_path, "predict", "run", "flat", *model))[1:]
    assert listed == flat[::-1]


@pytest.mark.filterwarnings("ignore::fairneuron.errors.FairNeuronWarning")
def test_a_folder_that_is_predicted_must_fit(pets: tuple[str, ...], tmp_path: Path) -> None:
    """Images of another size or in colour are refused; so are images for a run on rows."""
    assert command(tmp_path, "repair", *pets, "--epochs", "1", "--out", "run").code in (0, 1)
    model = ("--model", "petnet:build")
    Image.new("L", (9, 9)).save(picture(tmp_path / "odd" / "0.png"))
    outcome = command(tmp_path, "predict", "run", "odd", *model)
    assert "error[data-shape]" in outcome.err
    assert "1 × 4 × 6" in outcome.err
    picture(tmp_path / "odd" / "0.png", (1, 2, 3), "RGB")
    assert "got 3 × 4 × 6" in command(tmp_path, "predict", "run", "odd", *model).err
    rows = np.arange(200)
    np.savez(
        tmp_path / "rows.npz", x=RNG.normal(size=(200, 2)), y=rows % 2, sensitive=rows // 2 % 2
    )
    words = ("--data", "rows.npz", "--epochs", "1", "--hidden", "4", "--out", "rows")
    assert command(tmp_path, "repair", *words).code in (0, 1)
    outcome = command(tmp_path, "predict", "rows", "odd")
    assert "error[data-file]" in outcome.err
    assert "a run on images" in outcome.err
    outcome = command(tmp_path, "predict", "run", "odd/0.png", *model)
    assert "Give the folder" in outcome.err


@pytest.mark.filterwarnings("ignore::fairneuron.errors.FairNeuronWarning")
def test_several_classes_are_predicted_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the probability of the predicted class, which is the largest; they can be audited."""
    y = np.arange(240) % 3
    x = (60 * y[:, None, None] + RNG.integers(0, 20, (240, 4, 6))).astype(np.uint8)
    kinds, group = np.array(["ant", "bee", "cow"]), y // 2 ^ (np.arange(240) // 3 % 2)
    np.savez(tmp_path / "three.npz", x=x, y=y, group=group, class_names=kinds)
    (tmp_path / "threenet.py").write_text(NETWORK.replace("8, 1)", "8, 3)"))
    monkeypatch.syspath_prepend(str(tmp_path))
    model = ("--model", "threenet:build")
    words = ("repair", "--data", "three.npz", *model, "--epochs", "1", "--out", "run")
    assert command(tmp_path, *words).code in (0, 1)
    head, *lines = lines_of(command(tmp_path, "predict", "run", "three.npz", *model))
    assert head == ["row", "prediction", "probability"]
    assert {line[1] for line in lines} <= {*kinds}
    assert all(float(line[2]) > 1 / 3 for line in lines)
    assert command(tmp_path, "predict", "run", "three.npz", *model, "--out", "p.csv").code == 0
    audited = command(tmp_path, "audit", "--data", "three.npz", "--predictions", "p.csv")
    assert audited.code == 0, audited.err


def test_an_array_that_is_not_read_is_told(tmp_path: Path) -> None:
    """With the name that was meant, if one is near."""
    x, y = np.zeros((4, 2, 2), dtype=np.uint8), np.arange(4) % 2
    np.savez(tmp_path / "a.npz", x=x, y=y, groups=y)
    with pytest.warns(fn.FairNeuronWarning, match=r"'groups' is not read; did you mean 'group'\?"):
        fn.read_images(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=x, y=y, zzz=y)
    with pytest.warns(fn.FairNeuronWarning, match=r"'zzz' is not read \[data-unread\]"):
        fn.read_images(tmp_path / "a.npz")


def test_advice_fits_images(pets: tuple[str, ...], tmp_path: Path) -> None:
    """It names what a folder and arrays have, as the command line says it."""
    trained = (*pets[:4], "--model", "petnet:build")
    said = command(tmp_path, "audit", *trained[:2], *trained[4:]).err
    assert "For example --positive dog" in said
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    said = command(tmp_path, "audit", *trained, "--weights", "w.pt").err
    assert "a column split with train, valid and test in labels.csv" in said
    assert "--split-column" not in said
    data = fn.read_images(tmp_path / "pets", positive="dog")
    np.savez(tmp_path / "a.npz", x=data.x.numpy(), y=data.y, group=data.group)
    words = ("--data", "a.npz", "--model", "petnet:build", "--weights", "w.pt")
    said = command(tmp_path, "audit", *words).err
    assert "an array split" in said
    assert "--split-column" not in said
    Image.new("L", (9, 9)).save(tmp_path / "pets" / "home" / "cat" / "0.png")
    said = command(tmp_path, "audit", *trained).err
    assert "Resize the files" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--target", "y"), "data-file"),  # who names a column means a table
        (("--drop", "y"), "option-data"),
        (("--include-sensitive",), "option-data"),
        (("--sensitive", "sex"), "data-no-column"),
    ],
)
def test_options_that_images_do_not_have(
    words: tuple[str, ...], code: str, pets: tuple[str, ...], tmp_path: Path
) -> None:
    """They are refused by name."""
    outcome = command(tmp_path, "audit", *pets, *words)
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err


def test_images_need_a_network(pets: tuple[str, ...], tmp_path: Path) -> None:
    """None of ours reads them."""
    outcome = command(tmp_path, "audit", *pets[:4])
    assert "error[option-model]" in outcome.err
    shown = command(tmp_path, "data", "show", "pets")
    assert "error[option-data]" in shown.err


def test_class_gaps_on_the_command_line(
    small: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known set without groups: accuracies per class, and no table of groups."""
    monkeypatch.setenv("FAIRNEURON_DATA_FOLDER", str(tmp_path))
    np.savez(tmp_path / "mnist.npz", **small)
    code = NETWORK.replace("24", "784").replace("8, 1)", "8, 10)")
    (tmp_path / "digitnet.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = ("--data", "mnist", "--model", "digitnet:build")
    outcome = command(tmp_path, "audit", *given)
    assert outcome.code == 0, outcome.err
    assert "the data have no" in outcome.out
    assert "class" in outcome.out
    assert "selection_rate" not in outcome.out
    denied = command(tmp_path, "repair", *given, "--out", "run")
    assert "error[data-no-groups]" in denied.err
    assert not (tmp_path / "run").exists()
    assert "yes" in command(tmp_path, "data", "list").out
    assert str(tmp_path / "mnist.npz") in command(tmp_path, "data", "show", "mnist", "--json").out
