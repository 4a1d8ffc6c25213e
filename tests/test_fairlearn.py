"""fairlearn's own tests of its fairness metrics, with our functions in the place of theirs.

Its packages do not have them: ``FAIRLEARN_SOURCE`` names a checkout of its repository.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SWAPPED = """
import sys
import fairlearn.metrics
import pytest
import fairneuron as fn
for name in fn.metrics.__all__:
    assert hasattr(fairlearn.metrics, name)
    setattr(fairlearn.metrics, name, getattr(fn.metrics, name))
sys.exit(pytest.main(["-q", "-c", "/dev/null", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def swapped(tests: Path) -> subprocess.CompletedProcess[str]:
    """Runs tests that import from ``fairlearn.metrics``."""
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", SWAPPED, str(tests)], capture_output=True, text=True, check=False
    )


def test_our_functions_are_in_their_place(tmp_path: Path) -> None:
    """What a test gets from fairlearn.metrics is ours."""
    seen = tmp_path / "test_seen.py"
    seen.write_text(
        "from fairlearn.metrics import equalized_odds_ratio\n"
        "def test_seen():\n"
        "    assert equalized_odds_ratio.__module__ == 'fairneuron.metrics.functions'\n"
    )
    done = swapped(seen)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif("FAIRLEARN_SOURCE" not in os.environ, reason="FAIRLEARN_SOURCE is not set")
def test_their_own_tests_pass() -> None:
    """All of them, which compare with exact equality."""
    source = Path(os.environ["FAIRLEARN_SOURCE"])
    done = swapped(source / "test" / "unit" / "metrics" / "test_fairness_metrics.py")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
