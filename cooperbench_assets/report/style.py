"""How figures look: colours, shapes, fonts, and how numbers are written.

What belongs here: choices that every figure shares. What does not: any figure.

Colours are those of M. Okabe and K. Ito (Color universal design, 2008), which people with any common colour blindness
can tell apart; whatever a colour says, a shape, a dash, a letter or a label says too, for print in grey.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import altair as alt
from altair.utils import schemapi

from cooperbench_assets.analysis.formatting import MINUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.VConcatChart | alt.FacetChart
Row: TypeAlias = dict[str, Any]

schemapi.disable_debug_mode()
"""Altair would check each axis by its schema as it is made; the tests check each figure as a whole."""

BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
YELLOW: Final = "#F0E442"
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#767676"
PALE: Final = "#D9D9D9"

SETTING_COLOURS: Final = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
SETTING_SHAPES: Final = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
SETTING_DASHES: Final = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4], [12, 4], [1, 4])

VERDICT_COLOURS: Final = {"strict": BLUE, "upstream": VERMILION}
VERDICT_SHAPES: Final = {"strict": "circle", "upstream": "diamond"}

WIDTH: Final = 560
"""Pixels of a plot between its axes."""

SMALLEST: Final = 11
"""Pixels of the smallest letters."""

FONT: Final = "Arimo, Arial, Liberation Sans, Helvetica, sans-serif"
"""All of the same widths but the last; ``font`` has Arimo."""
UNKNOWN: Final = "–"


@dataclass(frozen=True)
class OutcomeStyle:
    """What may become of a pair, as figures show it."""

    label: str
    letter: str
    colour: str
    ink: str = BLACK
    """Colour of letters on it."""

    @property
    def key(self) -> str:
        """Letter and label, as a legend has them."""
        return f"{self.letter}  {self.label}"


FATES: Final = {
    "pass": OutcomeStyle("pass", "P", GREEN, "#FFFFFF"),
    "tests": OutcomeStyle("tests fail", "T", VERMILION, "#FFFFFF"),
    "conflict": OutcomeStyle("conflict", "C", ORANGE),
    "not_applied": OutcomeStyle("patch not applied", "N", YELLOW),
    "empty_patch": OutcomeStyle("a patch is empty", "Y", "#D9CF7A"),
    "agent_error": OutcomeStyle("agent error", "A", PURPLE),
    "agent_timeout": OutcomeStyle("agent timeout", "D", "#A3557F", "#FFFFFF"),
    "test_timeout": OutcomeStyle("test timeout", "O", "#8C3D00", "#FFFFFF"),
    "other": OutcomeStyle("fails otherwise", "F", "#B0B0B0"),
    "infra_agent": OutcomeStyle("infrastructure, agents", "I", SKY),
    "infra_eval": OutcomeStyle("infrastructure, evaluation", "E", "#9AD0F0"),
    "unevaluated": OutcomeStyle("unevaluated", "U", PALE),
    "missing": OutcomeStyle("missing", "M", "#FFFFFF"),
}
"""By the names that ``funnel_losses`` uses; pass first, then fails, then what has no verdict."""


@dataclass(frozen=True)
class MarkStyle:
    """What all figures of one experiment share: its settings, in order, and what must be said on each figure."""

    settings: tuple[str, ...]
    remark: str | None = None
    """Said under the title of every figure, such as that the agents were scripted."""

    colours: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "colours", dict(zip(self.settings, _cycle(SETTING_COLOURS, self.settings), strict=True))
        )

    def scale_of_colours(self, settings: Sequence[str]) -> alt.Scale:
        """The colour of each of these settings, the same in every figure."""
        return alt.Scale(domain=list(settings), range=[self.colours[name] for name in settings])

    def scale_of_shapes(self, settings: Sequence[str]) -> alt.Scale:
        """The shape of each of these settings."""
        shapes = dict(zip(self.settings, _cycle(SETTING_SHAPES, self.settings), strict=True))
        return alt.Scale(domain=list(settings), range=[shapes[name] for name in settings])

    def dash(self, setting: str) -> list[int]:
        """The dash of a setting's lines: pixels drawn, pixels left out, …."""
        return list(SETTING_DASHES[self.settings.index(setting) % len(SETTING_DASHES)])

    def title(self, text: str, *below: str) -> alt.TitleParams:
        """A title that says what is shown, and lines under it; the remark last."""
        lines = [*below, *([self.remark] if self.remark else [])]
        return alt.TitleParams(text, subtitle=lines)


def _cycle(values: Sequence[Any], over: Sequence[str]) -> list[Any]:
    return [values[place % len(values)] for place in range(len(over))]


def verdict_scales() -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of the verdicts, with one legend for both."""
    names = list(VERDICT_COLOURS)
    colours = alt.Scale(domain=names, range=[VERDICT_COLOURS[name] for name in names])
    shapes = alt.Scale(domain=names, range=[VERDICT_SHAPES[name] for name in names])
    legend = alt.Legend(title="verdict", orient="bottom", titleOrient="left")
    return (
        alt.Color("verdict:N", scale=colours, legend=legend),
        alt.Shape("verdict:N", scale=shapes, legend=legend),
    )


class Unit(alt.Chart):
    """A chart of one mark: what is made of it shares its parts, which nobody changes.

    Altair copies all of a chart, with the hundred options of each axis, several times for each chart that it is put in:
    that would take longer than drawing.
    """

    def __deepcopy__(self, memo: object) -> Unit:
        return self.copy(deep=False)


def data(rows: Iterable[Row]) -> alt.InlineData:
    """Rows as the data of a layer."""
    # A tuple, which Altair takes as it is: it copies each row of a list again whenever a chart is made of another.
    return alt.InlineData(values=tuple(rows))


def finished(chart: Chart) -> Chart:
    """A chart with the fonts, sizes and lines that all figures have."""
    styled: Chart = chart.configure(
        font=FONT,
        background="white",
        padding=10,
        axis=alt.AxisConfig(
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#E6E6E6",
            labelFlush=False, labelLimit=420, domainColor="#555555", tickColor="#555555",
        ),
        legend=alt.LegendConfig(
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", labelLimit=300, symbolOpacity=1
        ),
        header=alt.HeaderConfig(labelFontSize=12, titleFontSize=12, labelFontWeight="bold"),
        title=alt.TitleConfig(
            fontSize=15, subtitleFontSize=SMALLEST + 1, subtitleColor="#444444", anchor="start", offset=12,
            subtitlePadding=5, frame="bounds",
        ),
        view=alt.ViewConfig(stroke="#CCCCCC"),
    )  # fmt: skip
    return styled


def number_on_bar(fate: OutcomeStyle, n: int, share: float) -> str:
    """What is written on a part of a bar: letter and number, the number, or nothing where there is no room."""
    return f"{fate.letter} {n:,}" if share >= 0.06 else f"{n:,}" if share >= 0.02 else ""


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent: ``45.3 %``."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %".replace("-", MINUS)


def shortened(text: str, length: int = 90) -> str:
    """A text that fits beside a figure."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
