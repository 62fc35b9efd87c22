"""The font that pages and figures carry: texts are laid out by its widths, and a reader's machine need not have it.

What belongs here: the font as CSS. What does not: where it is used, and sizes (``style``).
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Final

FONTS: Final = Path(__file__).parent / "fonts"
WEIGHTS: Final = (400, 700)


@cache
def font_faces() -> str:
    """CSS that declares Arimo, with the font in it (31 kB), which has the widths of Arial."""
    faces = []
    for weight in WEIGHTS:
        data = base64.b64encode((FONTS / f"arimo-latin-{weight}-normal.woff2").read_bytes()).decode()
        source = f"url(data:font/woff2;base64,{data}) format('woff2')"
        faces.append(f"@font-face {{ font-family: Arimo; font-weight: {weight}; src: {source}; }}")
    return "\n".join(faces) + "\n"


def with_font(svg: str) -> str:
    """An SVG that carries the font, for a file of its own."""
    opening = svg.index(">") + 1
    return f"{svg[:opening]}<style>{font_faces()}</style>{svg[opening:]}"
