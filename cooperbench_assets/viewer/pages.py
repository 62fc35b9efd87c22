"""The files of the pages: one HTML file, its scripts and its style.

What belongs here: where they are and what makes them pages of a server or of a bundle. What does not: their data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

STATIC: Final = Path(__file__).parent / "static"
TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
"""Content security policy: files beside the page, and no script or style in it."""


def page_html(source: Literal["server", "bundle"]) -> str:
    """The HTML file; `source` says to its scripts where data come from."""
    return (STATIC / "index.html").read_text().replace("{{source}}", source).replace("{{policy}}", POLICY)
