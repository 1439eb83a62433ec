"""Configuration of Sphinx, used by `make docs`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from check_table import write_check_table
from docutils import nodes
from method_table import write_method_table
from score_table import find_score, write_score_table

project = "scdeconv"
author = "the scdeconv developers"
copyright = f"2026, {author}"
release = version = installed_version("scdeconv")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
# the documentation shows the notebooks; `make tutorials` makes them from these texts
exclude_patterns = [
    "_build",
    "**.ipynb_checkpoints",
    "tutorials/*.md",
    "generated/method_table.md",
    "generated/check_table.md",
    "generated/score_table.md",
]
templates_path = ["_templates"]

# Links to other projects need their inventories from the network, which is always available on Read the Docs.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

# References to our public names must resolve; those to other projects need their inventories.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!scdeconv).*"),
    (r"py:.*", r"scdeconv\.(.*\.)?_.*"),
    (r"py:.*", r"scdeconv\.models\..*State"),
]
# Types that are imported only for the type checker, some of them in other packages.
suppress_warnings = ["sphinx_autodoc_typehints.forward_reference", "sphinx_autodoc_typehints.guarded_import"]

autodoc_member_order = "bysource"
autosummary_generate = True
default_role = "literal"
napoleon_custom_sections = ["Writes", "Result"]
napoleon_google_docstring = False
napoleon_include_init_with_doc = False
napoleon_use_param = True
napoleon_use_rtype = True
always_document_param_types = True
typehints_defaults = "braces"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
bibtex_bibfiles = ["../src/scdeconv/references.bib"]
bibtex_reference_style = "author_year"


def repository_url() -> str:
    """Return the web address of the repository that this clone comes from, or an empty text."""
    command = ["git", "config", "--get", "remote.origin.url"]
    origin = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    found = re.fullmatch(r"(?:https://|git@)([\w.-]+)[:/](.+?)(?:\.git)?/?", origin)
    return f"https://{found[1]}/{found[2]}" if found else ""


html_theme = "sphinx_book_theme"
html_title = f"{project} {version}"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "logo": {"image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "text": html_title},
    "repository_url": repository_url(),
    "use_repository_button": bool(repository_url()),
    "path_to_docs": "docs",
    "show_toc_level": 2,
}

write_method_table(Path(__file__).parent / "generated" / "method_table.md")
write_check_table(Path(__file__).parent / "generated" / "check_table.md")
write_score_table(Path(__file__).parent / "generated" / "score_table.md")


def rmse_role(name, rawtext, text, lineno, inliner, options=None, content=()):
    """Write the error of a method on a data set: ``{rmse}`ridge, retina```."""
    return [nodes.Text(find_score(text))], []


def keep_numbers_whole(app, doctree):
    """Mark the table cells that are numbers: a range stands below its mean, and numbers are not broken at a sign."""
    for cell in doctree.findall(nodes.entry):
        if re.fullmatch(r"[\d.,e+%–\-\s()]+", cell.astext()):
            cell["classes"].append("number")
            for text in list(cell.findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(text.replace(" (", "\n(")))


def show_running_text(app, what, name, obj, options, lines):
    """Rename the section Returns if it is running text: napoleon would read each of its lines as one returned value."""
    if "Returns" in lines:
        start = lines.index("Returns")
        if not lines[start + 3 : start + 4] or not lines[start + 3].startswith(" "):
            lines[start : start + 2] = ["Result", "------"]


def setup(app):
    app.add_role("rmse", rmse_role)
    # before napoleon, which has priority 500
    app.connect("autodoc-process-docstring", show_running_text, priority=400)
    app.connect("doctree-read", keep_numbers_whole)
