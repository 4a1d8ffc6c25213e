"""What the benchmark of the training loops compares: the same training, as in a textbook."""

import numpy as np
import pytest

from benchmarks.training import differences, jobs
from tests.test_training import fresh


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["ordinary", "selective dropout", "conflict"])
def test_same_losses_as_a_textbook_loop(parts, kind: int) -> None:
    """A DataLoader that gives the rows in the same order: every epoch's loss, whichever Adam."""
    job = list(jobs(fresh(), parts[0], epochs=3))[kind]
    for fused in (True, None):
        np.testing.assert_allclose(differences(job, fused=fused), 0, atol=1e-5)
