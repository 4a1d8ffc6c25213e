"""A run folder, used again: predictions of new data, another choice among the candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairneuron.errors import DataError, OptionError, did_you_mean, printable, require_range
from fairneuron.io import read_folder, to_json, write_folder
from fairneuron.limits import Limit

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from fairneuron.data.scaling import Scaling
    from fairneuron.data.schema import Schema


_FORMAT = 3  # of the trials and verdicts in result.json


@dataclass(frozen=True, eq=False)
class Saved:
    """A run folder that was read and found whole.

    Attributes:
        folder: Where it is.
        files: Name to content.
        encoding: How its models read data.
    """

    folder: Path
    files: Mapping[str, bytes]
    encoding: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Saved:
        """Reads a run folder; its files must be as they were written.

        Raises:
            OptionError: For other folders, and for changed files.
        """
        files = read_folder(folder)
        with _whole(folder):
            return cls(folder, files, _json(files["encoding.json"]))

    def require_code(self, *, model: str | None, encode: str | None) -> None:
        """Asks for the user's code by name: a file never says what is imported.

        Raises:
            OptionError: If the run was made with code of the user's and it is not named, or the
                other way round.
        """
        for option, given in (("model", model), ("encode", encode)):
            used = self.encoding.get(option)
            if used is not None and given is None:
                raise OptionError(
                    f"option-{option}",
                    f"This run was made with --{option}, which is never imported unasked",
                    got="none",
                    cure=f"If you trust it, give --{option} {used}.",
                )
            if used is None and given is not None:
                raise OptionError(
                    f"option-{option}",
                    f"This run was made without --{option}",
                    got=given,
                    cure="Leave it out.",
                )

    def predict(
        self,
        data: Path,
        *,
        model: str | None = None,
        encode: str | None = None,
        delimiter: str | None = None,
        original: bool = False,
    ) -> str:
        """Predicts a table, arrays or images, encoded as for the repair.

        Args:
            data: The file, or the folder of images; labels and sensitive columns that are no inputs
                may be missing.
            model: ``module:factory``, if the run was made with one.
            encode: ``module:function``, likewise.
            delimiter: Of a CSV file; as in the run unless given.
            original: Whether to predict with the model before the repair.

        Returns:
            CSV with a line per row: of images their "file", of arrays the "row", from 0; the
            "prediction", a class by its name if that is known; and of two classes the "score", the
            probability of ``y = 1``, of more the "probability" of the prediction.

        Raises:
            DataError: For data that do not fit the encoding.
            ModelError: For a factory whose network does not fit the weights.
        """
        import torch

        from fairneuron.checks import check_model
        from fairneuron.data.tables import read_table
        from fairneuron.models import predicted_classes, probabilities

        with _whole(self.folder):
            names = [str(name) for name in self.encoding["feature_names"]]
            threshold, delimiter = self.encoding["threshold"], delimiter or self._delimiter
            require_range("threshold", threshold, 0, 1)
            schema, scaling = self._schema, self._scaling(len(names))
            shape, labels = () if schema is not None else self._shape, self._classes
            texts = [str(name) for name in self.encoding["texts"]]
            if encode is None and schema is not None and [*schema.feature_names] != names:
                raise ValueError("a schema of other features")
        place: tuple[str, Sequence[Any]] | None = None
        if schema is None and data.is_dir():
            x, files = _images(data, names, shape)
            place = "file", [_inert(printable(file)) for file in files]
        elif schema is None:
            x = _arrays(data, names)
            place = "row", range(len(x))
        else:
            frame = read_table(data, delimiter=delimiter, text={*schema.texts, *texts})
            x = (
                schema.inputs_of(frame)
                if encode is None
                else _encoded(encode, frame, schema, names)
            )
        _require_width(x, names)
        tensor = torch.from_numpy(x)
        if scaling is not None:
            tensor = scaling(tensor)
        name = "original.safetensors" if original else "repaired.safetensors"
        network = self._model(name, model)
        check_model(network, tensor, feature_names=names)
        scores = probabilities(network, tensor)
        classes = predicted_classes(scores, threshold)
        if len(labels) != scores.shape[1]:
            labels = [str(k) for k in range(scores.shape[1])]
        return _csv(classes, scores, labels, place)

    def choose(self, limit: Limit, *, interactive: bool = False) -> dict[str, Any]:
        """Chooses among the candidates anew, by their validation figures, and rewrites the folder.

        Args:
            limit: Metric to bound; the metrics must be those of the repair.
            interactive: Whether to write ``front.html``, if it is not there anyway.

        Returns:
            The new content of ``result.json``.

        Raises:
            OptionError: For other metrics.
        """
        from fairneuron.report.document import repair_document
        from fairneuron.report.front import FILE, front_page
        from fairneuron.report.html import repair_page
        from fairneuron.report.markdown import report
        from fairneuron.trials import Trial, choose
        from fairneuron.verdict import Verdict

        with _whole(self.folder):
            result, front = (_json(self.files[n]) for n in ("result.json", "front.json"))
            if result["format"] < _FORMAT:
                raise ValueError(f"verdicts as before format {_FORMAT}")
            made_for = list(result["configuration"]["limit"])
            if set(limit) != set(made_for):
                raise OptionError(
                    "option-limit",
                    f"The candidates were made for limits of {', '.join(made_for)}",
                    got=", ".join(limit),
                    cure="Repair again for other metrics.",
                )
            trials = [
                Trial(
                    number=t["number"],
                    settings=t["settings"],
                    metrics=t["validation"],
                    rejected=t["rejected"],
                    training=t["training"],
                )
                for t in result["trials"]
                if str(t["number"]) in front  # the original and the others that have weights
            ]
            chosen = choose(trials, limit).number
            data = ("validation", "test")
            for proof in front.values():
                proof |= {on: Verdict.from_dict(proof[on]).under(limit).to_dict() for on in data}
            proof = front[str(chosen)]
            result["configuration"]["limit"] = dict(limit)
            result |= {"chosen": chosen, "after": proof["after"]}
            result["verdicts"] = {on: proof[on] for on in data}
            files = {
                **self.files,
                "repaired.safetensors": self._candidate(chosen),
                "front.json": to_json(front),
                "result.json": to_json(result),
                "report.md": report(result).encode(),
                "report.html": repair_page(result),
                "report.json": to_json(repair_document(result)),
            }
            if interactive or FILE in files:
                files[FILE] = front_page(result, front)
        write_folder(self.folder, files, overwrite=True)
        return result

    def _candidate(self, number: int) -> bytes:
        """The weights of a candidate: the original's, with what differs."""
        from fairneuron.checkpoints import read_tensors, tensor_bytes

        metadata, state = read_tensors(self.folder / "original.safetensors")
        _, changed = read_tensors(self.folder / "candidates.safetensors")
        own: dict[str, torch.Tensor] = {
            name: changed.get(f"{number}.{name}", value) for name, value in state.items()
        }
        if any(own[name].shape != value.shape for name, value in state.items()):
            raise ValueError("weights of a candidate in other shapes than the original's")
        return tensor_bytes(own, metadata)

    def _model(self, name: str, factory: str | None) -> nn.Module:
        from fairneuron.usercode import given_model

        return given_model(factory, self.folder / name)

    @property
    def _delimiter(self) -> str:
        given = self.encoding["delimiter"]
        return "," if given is None else str(given)

    @property
    def _schema(self) -> Schema | None:
        """How a table becomes inputs; None for arrays."""
        from fairneuron.data.schema import Schema

        if self.encoding["kind"] not in ("arrays", "table"):
            raise ValueError("neither arrays nor a table")
        if self.encoding["kind"] == "arrays":
            return None
        return Schema.from_dict(self.encoding["schema"])

    @property
    def _classes(self) -> list[str]:
        """What the classes are called; empty where that was not kept."""
        schema = self._schema
        if schema is not None:
            return [schema.negative, schema.positive]
        return [str(name) for name in self._data.get("classes", [])]

    @property
    def _shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images of the repair; empty if it was of no images."""
        return tuple(int(side) for side in self._data.get("shape", []))

    @property
    def _data(self) -> dict[str, Any]:
        """What ``result.json`` says of the data."""
        return dict(_json(self.files["result.json"])["data"])

    def _scaling(self, width: int) -> Scaling | None:
        import torch

        from fairneuron.data.scaling import Scaling

        given = self.encoding["scaling"]
        if given is None:
            return None
        values = [torch.tensor(given[key], dtype=torch.float32) for key in ("mean", "scale")]
        if any(v.shape != (width,) or not torch.isfinite(v).all() for v in values) or not bool(
            (values[1] > 0).all()
        ):
            raise ValueError("a scaling of another width")
        return Scaling(*values)


class _whole:  # noqa: N801  # reads as a word: with _whole(folder)
    """Turns what a strange run folder makes fail into one coded error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        wrong = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
        if isinstance(error, wrong):
            raise OptionError(
                "option-run",
                "The folder must hold a run of this version of fairneuron",
                got=f"{self.folder}: {type(error).__name__}: {error}",
                cure="Repair again.",
            ) from error


def _json(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise TypeError(type(value).__name__)
    return value


def _arrays(path: Path, names: list[str]) -> np.ndarray[Any, Any]:
    """The inputs of a file of arrays, whose features must have these names, if they have any."""
    from fairneuron.data.arrays import as_read, channels_first
    from fairneuron.loading import read_arrays

    arrays = read_arrays(path)
    if "x" not in arrays:
        raise DataError(
            "data-no-column",
            "The arrays must have one named x",
            got="none",
            cure=did_you_mean("x", arrays),
        )
    x = channels_first(arrays["x"])
    with np.errstate(over="ignore"):
        numbers = as_read(x) if x.dtype.kind in "biuf" else None
    if numbers is None or numbers.ndim < 2 or not np.isfinite(numbers).all():
        raise DataError(
            "data-nonfinite",
            "x must be (n, features) or (n, channels, …) finite numbers",
            got=f"{x.dtype} {x.shape}",
            cure="Check the array.",
        )
    if "feature_names" in arrays:
        _require_names([str(name) for name in arrays["feature_names"].reshape(-1)], names)
    return numbers


def _images(
    folder: Path, names: list[str], shape: tuple[int, ...]
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The inputs of a folder of images, which must be as those of the repair; and its files."""
    from fairneuron.data.arrays import as_read
    from fairneuron.data.imagefolder import read_unlabelled

    if len(shape) != 3:
        raise DataError(
            "data-file",
            "A folder of images is for a run on images",
            got=f"{folder}, and a run on rows of {len(names)} features",
            cure="Give arrays (.npz with x).",
        )
    pixels, files = read_unlabelled(folder)
    if len(pixels[0]) == 1:
        pixels = pixels.repeat(shape[0], axis=1)  # grey ones among colours, as for the repair
    if pixels.shape[1:] != shape:
        raise DataError(
            "data-shape",
            f"Images must be of the repair's {_sides(shape)} (channels, height, width)",
            got=_sides(pixels.shape[1:]),
            cure="Make them as those were, or give them as .npz with an array x.",
        )
    return as_read(pixels), files


def _sides(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _encoded(
    encode: str, frame: pd.DataFrame, schema: Schema, names: list[str]
) -> np.ndarray[Any, Any]:
    """The inputs that the user's function makes, with the names that they had for the repair."""
    from fairneuron.usercode import own_inputs

    x, found = own_inputs(encode, frame, dict(schema.unused))
    _require_names(list(found), names)
    return np.asarray(x)


def _require_names(found: list[str], names: list[str]) -> None:
    if found != names:
        pairs = zip(found, names, strict=False)
        other = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(names)))
        raise DataError(
            "data-shape",
            f"The data must have the {len(names)} features of the repair, in their order",
            got=f"{len(found)}; in place {other} {[*found, None][other]!r}, "
            f"which was {[*names, None][other]!r}",
            cure="Encode them as for the repair.",
        )


def _require_width(x: np.ndarray[Any, Any], names: list[str]) -> None:
    if x.shape[1] != len(names):
        raise DataError(
            "data-shape",
            f"The data must have the {len(names)} features of the repair",
            got=f"{x.shape[1]}",
            cure="Encode them as for the repair.",
        )
    if not len(x):
        raise DataError("data-empty", "There must be rows", got="none", cure="Check the file.")


def _csv(
    classes: Any, scores: Any, labels: list[str], place: tuple[str, Sequence[Any]] | None
) -> str:
    """The columns as CSV; a text that a spreadsheet would run gets a quote before it.

    Args:
        classes: ``(n,)`` predicted classes.
        scores: ``(n, classes)`` probabilities.
        labels: Names of the classes.
        place: Name and values of a first column that tells the rows apart.
    """
    import pandas as pd

    columns = {} if place is None else {place[0]: place[1]}
    columns["prediction"] = np.array([_inert(label) for label in labels], dtype=object)[classes]
    if scores.shape[1] == 2:
        columns["score"] = scores[:, 1]
    else:
        columns["probability"] = scores[np.arange(len(scores)), classes]
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")


def _inert(label: str) -> str:
    try:
        float(label)
    except ValueError:
        return f"'{label}" if label.startswith(("=", "+", "-", "@", "\t", "\r")) else label
    return label
