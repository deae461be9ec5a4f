"""How Sphinx builds the documentation: Markdown pages by MyST, the API from docstrings, nothing fetched by a page."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "allweather"
author = "The allweather developers"
project_copyright = "The allweather developers, Apache-2.0"
release = version = version_of("allweather")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
    "docstrings",
    "reports",
    "command_line",
]
exclude_patterns = ["_*"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!allweather\.).*"),  # names of other libraries: no other site is asked
    (
        r"py:.*",
        r"allweather\.(ncut\.lowrank\.Factors|live\.clock\.Clock|methods\.method\.T|data\.decoding\.Moments)",
    ),  # internal
]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # the notebook is kept without outputs
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

highlight_language = "text"  # of a block that names no language: commands

html_theme = "furo"
html_title = f"allweather {release}"
html_math_renderer = "mathml"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["allweather.css"]
html_js_files = ["accessible.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"
