"""Random and damaged input: a success or a coded error, nothing else; scripts/soak goes on."""

from __future__ import annotations

import pytest

from tests.fuzzing import FUZZERS, attempt, main

SEEDS = {"csv": 60, "arrays": 150, "options": 60, "run_folder": 40}  # others have their own tests


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("name", SEEDS)
def test_odd_input_is_refused_or_used(name: str, part: int) -> None:
    """Odd tables, arrays, words and run folders make no error but our own."""
    for seed in range(part, SEEDS[name], 4):
        try:
            attempt(name, seed)
        except Exception as error:
            error.add_note(f"scripts/soak --once --seed {seed} {name}")
            raise


def test_soak_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The soak runs every fuzzer and counts; at a failure it says how to see it again."""
    ran = []
    for name in FUZZERS:
        monkeypatch.setitem(FUZZERS, name, lambda *_, name=name: ran.append(name))
    monkeypatch.setattr("sys.argv", ["soak", "--once", "--seed", "7"])
    assert main() == 0
    assert ran == list(FUZZERS)
    assert "csv: 1, arrays: 1" in capsys.readouterr().out

    def fails(*_: object) -> None:
        raise ValueError("odd")

    monkeypatch.setitem(FUZZERS, "csv", fails)
    monkeypatch.setattr("sys.argv", ["soak", "--seed", "7", "csv"])
    with pytest.raises(ValueError, match="odd"):
        main()
    assert "scripts/soak --once --seed 7 csv" in capsys.readouterr().out
