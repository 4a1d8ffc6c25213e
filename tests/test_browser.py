"""What a browser makes of the pages: nothing is loaded, nothing overflows, all can be reached.

Needs a Chromium (``FAIRNEURON_CHROMIUM``, or one on the path); ``.ci/run`` installs one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.fuzzing import command
from tests.test_report import FEW

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("FAIRNEURON_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason=f"needs one of {', '.join(NAMES)}")

KINDS = ("repair", "hostile", "paper", "chosen", "audit", "comparison", "front", "methods")
WIDE, NARROW = 1280, 360
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, made on the command line."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    who = np.repeat(np.array(FEW, dtype=object), 150)
    score = rng.normal(size=len(who)).round(3)
    y = np.where(
        score + (np.arange(len(who)) // 150) % 2 + rng.normal(size=len(who)) > 0.5, "y", "n"
    )
    names = ["".join(c if c.isprintable() else " " for c in name) for name in who]
    pd.DataFrame({"<b>score</b>": score, "who": names, "y": y}).to_csv(
        folder / "t.csv", index=False
    )
    quick = ("--data", "compas", "--include-sensitive", "--hidden", "6", "--epochs", "2")
    own = ("--data", "t.csv", "--target", "y", "--positive", "y", "--sensitive", "who")
    for words in (
        ("repair", *quick, "--interactive", "--out", "repair"),
        ("repair", *own, "--hidden", "6", "--epochs", "2", "--out", "hostile"),
        ("repair", *quick, "--recipe", "paper", "--out", "paper"),
        (
            "audit",
            "--data",
            "compas",
            "--sensitive",
            "sex,race",
            "--hidden",
            "4",
            "--report",
            "a.html",
        ),
        (
            *("compare", "--data", "compas", "--include-sensitive", "--hidden", "6"),
            *("--methods", "naive,fairneuron,linear-post,reject-option", "--seeds", "1"),
            *("--criteria", "dp,eo"),
            *("--workers", "1", "--no-plots", "--interactive", "--out", "comparison"),
        ),
    ):
        done = command(folder, *words)
        assert done.code < 2, done.err
    shutil.copytree(folder / "repair", folder / "chosen")
    assert command(folder, "choose", "chosen", "--limit", "dp=0.2").code < 2
    return {
        **{kind: folder / kind / "report.html" for kind in KINDS[:4]},
        "audit": folder / "a.html",
        "comparison": folder / "comparison" / "report.html",
        "front": folder / "chosen" / "front.html",
        "methods": folder / "comparison" / "front.html",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless one."""
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def shown(browser: Any, file: Path, *, width: int = WIDE, **how: Any) -> Iterator[Any]:
    """A page as it is shown; errors, messages and requests fail."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **how)
    page, heard = context.new_page(), []
    page.set_default_timeout(10_000)
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert heard == [file.as_uri()]
    context.close()


@pytest.mark.parametrize(("mode", "width"), [("light", WIDE), ("dark", NARROW)])
@pytest.mark.parametrize("kind", KINDS)
def test_everybody_can_read_it(
    kind: str, mode: str, width: int, pages: dict[str, Path], browser: Any
) -> None:
    """Axe-core finds no serious barrier, in light and dark, on large and small screens."""
    with shown(browser, pages[kind], width=width, color_scheme=mode) as page:
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", back)[:3])) > 400) == (mode == "light")
        found = axe.Axe().run(page).response
        assert found["passes"]
        barriers = [v for v in found["violations"] if v["impact"] in GRAVE]
        assert [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in barriers] == []


@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_every_screen(kind: str, pages: dict[str, Path], browser: Any) -> None:
    """The page never scrolls sideways: what is wider scrolls in a box of its own."""
    with shown(browser, pages[kind]) as page:
        for width in (WIDE, 768, NARROW):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_sees_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    """So its silence says something."""
    file = tmp_path / "page.html"
    file.write_text('<html lang="en"><title>t</title><p style="color: #ccc">pale</p></html>')
    with shown(browser, file) as page:
        found = axe.Axe().run(page).response["violations"]
    assert "color-contrast" in {v["id"] for v in found if v["impact"] in GRAVE}


@pytest.mark.parametrize("kind", ["repair", "front"])
def test_no_other_script_runs(
    kind: str, pages: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    """The policy of a page stops scripts that are put into it."""
    file = tmp_path / "page.html"
    probe = b'<img src=x onerror="document.title = 1"><script>document.title = 1</script></body>'
    file.write_bytes(pages[kind].read_bytes().replace(b"</body>", probe))
    context = browser.new_context()
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.title().startswith(("Repair", "Candidates"))
    context.close()


# The front


def told(page: Any) -> str:
    """What the box of the first drawing says; empty while it is away."""
    box = page.locator(".tip").first
    return str(box.inner_text()) if box.is_visible() else ""


@pytest.mark.parametrize("kind", ["front", "methods"])
def test_every_point_can_be_hovered(kind: str, pages: dict[str, Path], browser: Any) -> None:
    """The box says what it is: name, accuracy and gap; it stays until it is put away."""
    with shown(browser, pages[kind]) as page:
        assert told(page) == ""
        points = page.locator(".plot").first.locator(".spot:not(.off)")
        seen = set()
        for i in range(points.count()):
            point = points.nth(i).locator(".mark")
            point.hover(force=True)
            seen.add(told(page).splitlines()[0])
            assert "accuracy" in told(page)
            assert page.locator(".spot.at").count() == 1
        places = points.evaluate_all("all => all.map(s => s.querySelector('.mark').outerHTML)")
        assert len(set(places)) - 2 <= len(seen) <= len(places)  # some lie on each other
        page.mouse.move(5, 5)
        assert told(page)
        page.keyboard.press("Escape")
        assert told(page) == ""


def test_points_can_be_reached_by_keyboard(pages: dict[str, Path], browser: Any) -> None:
    """One tab stop for the drawing; arrows, Home and End go on from there; Escape ends it."""
    with shown(browser, pages["front"]) as page:
        page.locator(".toggles button").last.focus()
        page.keyboard.press("Tab")
        count = page.locator(".spot:not(.off)").count()
        names = []
        for _ in range(count):
            names.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
            assert told(page).splitlines()[0] == names[-1].split(";")[0]
            page.keyboard.press("ArrowRight")
        assert len(set(names)) == count
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == names[0]
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == names[-1]
        page.keyboard.press("Escape")
        assert told(page) == ""
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('svg')") is None


def test_points_can_be_tapped(pages: dict[str, Path], browser: Any) -> None:
    """On a small touch screen, a finger's width beside the point; elsewhere puts the box away."""
    with shown(browser, pages["front"], width=NARROW, has_touch=True, is_mobile=True) as page:
        star = page.locator(".spot .mark.s0").first
        star.scroll_into_view_if_needed()
        box = star.bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] + 3)
        assert "this one is chosen" in told(page)
        edge = page.locator(".plot > svg").first.bounding_box()
        page.touchscreen.tap(edge["x"] + 2, edge["y"] + 2)
        assert told(page) == ""


def test_series_can_be_shown_and_hidden(pages: dict[str, Path], browser: Any) -> None:
    """Test data are hidden at first, and a button shows them; one hides a method."""
    with shown(browser, pages["front"]) as page:
        button = page.get_by_role("button", name="test data")
        tested = page.locator('[data-series="4"].spot')
        assert tested.count() > 1
        assert not tested.first.is_visible()
        assert button.get_attribute("aria-pressed") == "false"
        button.click()
        assert tested.first.is_visible()
        tested.last.locator(".mark").hover(force=True)
        assert "test data" in told(page)
        button.click()
        assert not tested.first.is_visible()
        assert told(page) == ""
    with shown(browser, pages["methods"]) as page:
        page.get_by_role("button", name="linear-post").first.click()
        first, second = page.locator(".plot").nth(0), page.locator(".plot").nth(1)
        assert first.locator(".off").count() > 0
        assert second.locator(".off").count() == 0


@pytest.mark.parametrize("kind", ["front", "methods"])
def test_without_scripts(kind: str, pages: dict[str, Path], browser: Any) -> None:
    """Drawing and table are there; what only a script can do is not offered."""
    with shown(browser, pages[kind], java_script_enabled=False) as page:
        assert page.locator(".plot > svg").first.is_visible()
        assert page.locator("table").first.is_visible()
        assert page.locator("button:visible, .tip:visible, [tabindex] .spot").count() == 0
