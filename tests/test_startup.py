"""The command starts at once: what is heavy is imported where it is used."""

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "pandas", "scipy", "sklearn", "safetensors", "matplotlib", "ray")


def test_training_does_not_import_the_compiler_of_torch() -> None:
    """It takes as long to import as torch itself."""
    code = (
        "import sys, numpy as np, fairneuron as fn\n"
        "rng = np.random.default_rng(0)\n"
        "x, group = rng.normal(size=(300, 3)), rng.integers(0, 2, 300)\n"
        "y = (x[:, 0] + group + rng.normal(size=300) > 0.5).astype(int)\n"
        "data = fn.Dataset.from_arrays(x, y, group)\n"
        "train, valid, _ = data.split(0)\n"
        "net = fn.train_classifier(train, valid, schedule=fn.Schedule(epochs=3))\n"
        "fn.repair(net, train, valid)\n"
        "fn.repair(net, train, valid, recipe='paper', schedule=fn.Schedule(epochs=2))\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["repair", "--help"], ["compare", "--help"], ["repair"]]
)
def test_help_and_a_missing_option_import_nothing_heavy(words: list[str]) -> None:
    """Not even numpy, whose import takes as long as all the rest."""
    code = (
        "import json, sys\n"
        "from fairneuron import cli\n"
        "sys.argv = ['fairneuron', *json.loads(sys.argv[1])]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write('\\n' + json.dumps([n for n in {HEAVY} if n in sys.modules]))\n"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, json.dumps(words)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert done.stdout or done.stderr.count("\n") > 1
