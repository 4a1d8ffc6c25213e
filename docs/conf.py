"""How Sphinx builds the documentation; ``scripts/docs`` runs it.

Nothing is fetched, and the site loads nothing from elsewhere.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

import fairneuron

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
import from_code

project = "FairNeuron"
copyright = "the FairNeuron authors"  # noqa: A001  # Sphinx's name
release = version = fairneuron.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_*"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"FairNeuron {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_type_aliases = {"npt.ArrayLike": "ArrayLike", "Ints": "Ints"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!fairneuron\b).*")]  # other packages are not looked up


def setup(app: Sphinx) -> None:
    """Fills the places of pages that are made of the code, and makes signatures readable."""
    app.connect("source-read", _fill)
    app.connect("autodoc-process-signature", lambda *event: from_code.readable(*event[-2:]))


def _fill(_: Sphinx, __: str, source: list[str]) -> None:
    source[0] = from_code.fill(source[0])
