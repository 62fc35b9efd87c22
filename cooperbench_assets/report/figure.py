"""Figures: drawn by Altair, rendered to SVG, PDF and PNG in this process, without a browser or a network.

What belongs here: rendering, and what a rendered figure is. What does not: what is drawn (``charts``).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import altair as alt
import vl_convert

from cooperbench_assets.report.style import finished

if TYPE_CHECKING:
    from cooperbench_assets.report.style import Chart

PNG_SCALE = 2.0
"""Pixels of a PNG per pixel of its SVG."""

VEGA_LITE = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
"""Version of the language that Altair writes, as the renderer calls it."""

_READ_OUT = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')
_ID = re.compile(r'\bid="([^"]+)"')


@dataclass(frozen=True)
class Figure:
    """One figure, or the sentence that stands in its place."""

    name: str
    """File name without its ending."""

    definition: str
    """What it shows and how to read it; stands under it."""

    svg: str | None = None
    sentence: str | None = None
    """Why there is no figure."""

    def png(self, scale: float = PNG_SCALE) -> bytes:
        """The figure as pixels.

        Raises:
            ValueError: if there is only a sentence.
        """
        if self.svg is None:
            raise ValueError(f"{self.name} is not drawn: {self.sentence}")
        png: bytes = vl_convert.svg_to_png(self.svg, scale=scale)
        return recompressed(png)

    def pdf(self) -> bytes:
        """The figure as vectors for LaTeX, its letters embedded.

        Raises:
            ValueError: if there is only a sentence.
        """
        if self.svg is None:
            raise ValueError(f"{self.name} is not drawn: {self.sentence}")
        pdf: bytes = vl_convert.svg_to_pdf(self.svg)
        return pdf

    def inline(self, prefix: str) -> str:
        """The SVG as one picture with a name, with ids that no other figure on the same page has."""
        if self.svg is None:
            return ""
        # Mark after mark, read out by its coordinates, says less than the caption and the table below.
        whole = _READ_OUT.sub("", with_own_ids(self.svg, prefix))
        return whole.replace("<svg", f'<svg role="img" aria-label="{self.name.replace("_", " ")}"', 1)


def render(name: str, definition: str, drawn: Chart | str) -> Figure:
    """Render a chart; a sentence stays one."""
    if isinstance(drawn, str):
        return Figure(name, definition, sentence=drawn)
    with alt.data_transformers.disable_max_rows():
        # The schema is checked by the tests, which draw each figure: here it would be a fifth of what drawing costs.
        specification = finished(drawn).to_dict(validate=False)
    svg: str = vl_convert.vegalite_to_svg(specification, vl_version=VEGA_LITE)
    return Figure(name, definition, svg=svg)


def recompressed(png: bytes) -> bytes:
    """The same pixels in a fraction of the bytes: the renderer compresses in haste."""
    start, chunks = 8, []
    while start < len(png):
        (length,) = struct.unpack(">I", png[start : start + 4])
        chunks.append((png[start + 4 : start + 8], png[start + 8 : start + 8 + length]))
        start += length + 12
    pixels = zlib.compress(zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT")), 6)
    others = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    parts = [*others[:-1], (b"IDAT", pixels), others[-1]]
    return png[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def with_own_ids(svg: str, prefix: str) -> str:
    """`svg` with every id, and every reference to one, behind `prefix`."""
    names = set(_ID.findall(svg))
    for name in sorted(names, key=len, reverse=True):
        svg = svg.replace(f'id="{name}"', f'id="{prefix}-{name}"')
        svg = svg.replace(f"url(#{name})", f"url(#{prefix}-{name})").replace(f'"#{name}"', f'"#{prefix}-{name}"')
    return svg
