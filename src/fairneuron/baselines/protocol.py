"""What every mitigator promises."""

from typing import Protocol, runtime_checkable

from torch import nn

from fairneuron.data.dataset import Dataset
from fairneuron.models import Predictor


@runtime_checkable
class Mitigator(Protocol):
    """A way to make a trained network treat groups more equally."""

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Predictor:
        """Mitigates.

        Args:
            model: A trained network; it stays as it is.
            train: The data it was trained on.
            valid: Other data, to choose by.
            seed: Same seed, same result.

        Returns:
            A predictor. One that is a network has the class, the forward and the state_dict keys of
            ``model``.
        """
        ...
