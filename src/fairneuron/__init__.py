"""FairNeuron: audit a network for group fairness, find what carries the gap, retrain only that.

``import fairneuron as fn`` is light: torch is imported when a name that needs it is first used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairneuron import baselines as baselines
    from fairneuron import metrics as metrics
    from fairneuron.audit import Audit as Audit
    from fairneuron.audit import audit as audit
    from fairneuron.clustering import rare_paths as rare_paths
    from fairneuron.compare.comparison import Comparison as Comparison
    from fairneuron.compare.comparison import compare as compare
    from fairneuron.data.builtin import load_dataset as load_dataset
    from fairneuron.data.coloured import coloured as coloured
    from fairneuron.data.dataset import Dataset as Dataset
    from fairneuron.data.imagefolder import read_images as read_images
    from fairneuron.data.schema import Schema as Schema
    from fairneuron.data.tables import read_table as read_table
    from fairneuron.distributed import activation_paths_on_ray as activation_paths_on_ray
    from fairneuron.errors import FairNeuronError as FairNeuronError
    from fairneuron.errors import FairNeuronWarning as FairNeuronWarning
    from fairneuron.estimator import FairNeuronClassifier as FairNeuronClassifier
    from fairneuron.judging import judge as judge
    from fairneuron.mlflow_log import log_to_mlflow as log_to_mlflow
    from fairneuron.models import Predictor as Predictor
    from fairneuron.path_neurons import PathNeurons as PathNeurons
    from fairneuron.path_neurons import path_neurons as path_neurons
    from fairneuron.paths import Means as Means
    from fairneuron.paths import Paths as Paths
    from fairneuron.predictions import audit_predictions as audit_predictions
    from fairneuron.progress import show_progress as show_progress
    from fairneuron.recipes import Conflict as Conflict
    from fairneuron.recipes import Paper as Paper
    from fairneuron.repair import FairNeuron as FairNeuron
    from fairneuron.repair import Repair as Repair
    from fairneuron.repair import repair as repair
    from fairneuron.repaired import RepairedClassifier as RepairedClassifier
    from fairneuron.reproduce.run import reproduce as reproduce
    from fairneuron.settings import Schedule as Schedule
    from fairneuron.slicing import activation_paths as activation_paths
    from fairneuron.slicing import mean_activations as mean_activations
    from fairneuron.slicing import path_synapses as path_synapses
    from fairneuron.training import train_classifier as train_classifier
    from fairneuron.tuning import Search as Search
    from fairneuron.tuning import search as search

__version__ = "0.1.0"

_HOME = {
    "Audit": "audit",
    "Comparison": "compare.comparison",
    "Conflict": "recipes",
    "Dataset": "data.dataset",
    "FairNeuron": "repair",
    "FairNeuronClassifier": "estimator",
    "FairNeuronError": "errors",
    "FairNeuronWarning": "errors",
    "Paper": "recipes",
    "Means": "paths",
    "PathNeurons": "path_neurons",
    "Paths": "paths",
    "Predictor": "models",
    "Repair": "repair",
    "RepairedClassifier": "repaired",
    "Schedule": "settings",
    "Schema": "data.schema",
    "Search": "tuning",
    "activation_paths": "slicing",
    "activation_paths_on_ray": "distributed",
    "audit": "audit",
    "audit_predictions": "predictions",
    "baselines": "baselines",
    "coloured": "data.coloured",
    "compare": "compare.comparison",
    "judge": "judging",
    "load_dataset": "data.builtin",
    "log_to_mlflow": "mlflow_log",
    "mean_activations": "slicing",
    "metrics": "metrics",
    "path_neurons": "path_neurons",
    "path_synapses": "slicing",
    "rare_paths": "clustering",
    "read_images": "data.imagefolder",
    "read_table": "data.tables",
    "repair": "repair",
    "reproduce": "reproduce.run",
    "search": "tuning",
    "show_progress": "progress",
    "train_classifier": "training",
}

__all__ = [*_HOME]  # noqa: PLE0604  # names of the table above


class _Package(ModuleType):
    """Keeps ``fn.repair`` and others functions, although modules have these names too."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets functions that use ``fn`` be sent to other processes, as with any module."""
        return import_module, (self.__name__,)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME[name]}")
    return module if name in ("baselines", "metrics") else getattr(module, name)


def __dir__() -> list[str]:
    return [*_HOME, "__version__"]


sys.modules[__name__].__class__ = _Package
