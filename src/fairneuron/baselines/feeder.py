"""Evasion attacks on a surrogate: copies of rows are moved across its decision boundary.

Biggio et al., *Evasion Attacks against Machine Learning at Test Time* (ECML PKDD 2013), with steps
that are halved where they do not help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.svm import SVC

from fairneuron.data.dataset import Dataset, Floats, Mask
from fairneuron.forward import one_thread

KERNELS = ("rbf", "linear")
ROWS = 2000  # at most, that a surrogate is fitted on: its time grows with their square
STEP = 0.5  # the first one's length; columns are standardised, or 0 and 1
STEPS = 100


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A support vector machine, f(x) = Σ_i a_i k(x, v_i) + b, in float64.

    k is the RBF kernel exp(−γ |x − v|²), or the inner product.

    Attributes:
        vectors: ``(m, features)`` v.
        coefficients: ``(m,)`` a.
        intercept: b.
        gamma: γ, above 0; None for the inner product.
    """

    vectors: torch.Tensor
    coefficients: torch.Tensor
    intercept: float
    gamma: float | None

    @classmethod
    def fit(cls, x: torch.Tensor, positive: Mask, weight: Floats | None, kernel: str) -> Surrogate:
        """Fits one, with the cost C = 1.

        Args:
            x: ``(n, features)`` float64.
            positive: ``(n,)`` the side of each row; both must occur.
            weight: ``(n,)`` of the rows; all alike if None.
            kernel: One of ``KERNELS``. γ is 1 / (features · the variance of all values).
        """
        gamma = 1 / max(x.shape[1] * float(x.var(correction=0)), 1e-12)
        machine = SVC(kernel=kernel, gamma=gamma).fit(x.numpy(), positive, sample_weight=weight)
        return cls(
            torch.tensor(machine.support_vectors_),
            torch.tensor(machine.dual_coef_[0]),
            float(machine.intercept_[0]),
            gamma if kernel == "rbf" else None,
        )

    def decide(self, x: torch.Tensor) -> torch.Tensor:
        """The decision function at ``x (n, features)``, ``(n,)``: above 0 for class 1."""
        return self._kernel(x) @ self.coefficients + self.intercept

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """∂f / ∂x at ``x (n, features)``, of the same shape."""
        if self.gamma is None:
            return (self.coefficients @ self.vectors).expand_as(x)
        pull = self._kernel(x) * self.coefficients  # (n, m)
        return 2 * self.gamma * (pull @ self.vectors - pull.sum(1, keepdim=True) * x)

    def _kernel(self, x: torch.Tensor) -> torch.Tensor:
        product = x @ self.vectors.T  # (n, m)
        if self.gamma is None:
            return product
        squares = x.square().sum(1)[:, None] + self.vectors.square().sum(1) - 2 * product
        return torch.exp(-self.gamma * squares.clamp(min=0))


def evade(
    surrogate: Surrogate,
    x: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    *,
    dmax: float | None = None,
    step: float = STEP,
    steps: int = STEPS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves points along the surrogate's gradient until they are across its boundary.

    A step ends in the box, and within the bound on the whole move. Where it would bring a point no
    nearer to the other side, the point stays, and its next step is half as long: |f| falls with
    every move.

    Args:
        surrogate: What is attacked.
        x: ``(n, features)`` float64, points in the box.
        low: ``(features,)`` the box's lower corner.
        high: ``(features,)`` its upper one.
        dmax: How far from where it was a point may end, above 0; None for no bound.
        step: Length of the first step.
        steps: At most.

    Returns:
        ``(n, features)`` where they are in the end, and ``(n,)`` whether they are across.
    """
    start, x, value = x, x.clone(), surrogate.decide(x)
    side = torch.where(value > 0, 1.0, -1.0).double()
    depth, length = side * value, torch.full_like(value, step)  # below 0 a point is across
    for _ in range(steps):
        rest = (depth >= 0).nonzero()[:, 0]
        if not len(rest):
            break
        slope = side[rest, None] * surrogate.gradient(x[rest])
        along = slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-300)
        ahead = torch.clamp(x[rest] - length[rest, None] * along, low, high)
        if dmax is not None:
            ahead = _within(ahead, start[rest], dmax)
        reached = side[rest] * surrogate.decide(ahead)
        nearer = reached < depth[rest]
        x[rest[nearer]], depth[rest[nearer]] = ahead[nearer], reached[nearer]
        length[rest[~nearer]] /= 2
    return x, depth < 0


def _within(x: torch.Tensor, centre: torch.Tensor, radius: float) -> torch.Tensor:
    """The nearest points to ``x (n, features)`` in balls around centres of the same shape."""
    move = x - centre
    far = move.norm(dim=1, keepdim=True)
    return torch.where(far > radius, centre + move * (radius / far), x)


@dataclass(frozen=True)
class Feeder:
    """Adds adversarial rows to data.

    Attributes:
        points: How many rows are tried at a time, at least 1.
        kernel: Of the surrogate, one of ``KERNELS``.
        dmax: How far a copy may be moved, above 0; None for no bound.
        rows: That a surrogate is fitted on, at most.
    """

    points: int
    kernel: str = "rbf"
    dmax: float | None = None
    rows: int = ROWS

    def feed(self, data: Dataset, rng: np.random.Generator) -> Dataset:
        """The data, and below them adversarial copies of random rows of them.

        A surrogate is fitted to the labels of random rows (class 1 against the others). Random rows
        that it decides right are copied, and the copies moved across its boundary within the range
        of each column. Those that arrive are added, or all if the move has a bound, with label,
        groups and weight of the rows that they are copies of. None are where the labels that the
        surrogate would see are all alike.
        """
        positive = data.y == 1
        seen, tried = rng.permutation(len(data))[: self.rows], rng.permutation(len(data))
        weight = None if data.relative_weight is None else data.relative_weight[seen]
        counted = positive[seen] if weight is None else positive[seen][weight > 0]
        if counted.all() or not counted.any():
            return data
        with one_thread():  # how products are split among threads changes their last bits
            x = data.x.double().cpu()
            surrogate = Surrogate.fit(x[seen], positive[seen], weight, self.kernel)
            tried = tried[: self.points]
            tried = tried[(surrogate.decide(x[tried]) > 0).numpy() == positive[tried]]
            moved, across = evade(surrogate, x[tried], x.amin(0), x.amax(0), dmax=self.dmax)
        if self.dmax is not None:
            across = torch.ones_like(across)
        copies = data.subset(tried[across.numpy()])
        return data.joined(replace(copies, x=moved[across].to(data.x)))
