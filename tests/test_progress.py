"""Progress: told to a function, shown as bars or lines."""

import io
import sys

import pytest

import fairneuron as fn
from fairneuron import progress as module


def told(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[str]:
    """Lines about 5 steps that take so many seconds each, twice interleaved with other work."""
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with fn.show_progress() as progress:
        for step in range(1, 6):
            now[0] += seconds
            progress("retraining", step, 5)
            progress("other\x1b[31m work", step, 5)
    return stream.getvalue().splitlines()


def test_short_work_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no control characters."""
    first, second = told(monkeypatch, 1)
    assert first == "retraining (5 steps)"
    assert "\x1b" not in second


def test_long_work_is_told_of_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most every half minute, but for its end."""
    lines = [line for line in told(monkeypatch, 20) if line.startswith("retraining")]
    assert lines == ["retraining (5 steps)", "retraining: 3 of 5 after 0:40"]
    lines = [line for line in told(monkeypatch, 61) if line.startswith("retraining")]
    assert lines[1:] == [f"retraining: {n} of 5 after {n - 1}:0{n - 1}" for n in (2, 3, 4)]


def test_work_of_unknown_length_and_work_that_begins_again(monkeypatch) -> None:
    """Both are told of, too."""
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with fn.show_progress() as progress:
        for _ in range(2):
            for done in range(1, 5):
                progress("means", done * 10, 0)
                now[0] += 20
    assert stream.getvalue().splitlines() == ["means", "means: 30 after 0:40"] * 2


def test_a_repair_tells_what_it_does(parts, trained, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a network of images and of tables alike, it is given the same function."""
    with fn.show_progress() as progress:
        fn.repair(trained, parts[0], parts[1], epochs=2, progress=progress)
    assert "retraining (" in capsys.readouterr().err
