"""The asset report: figures and the page of one experiment, from the results store.

What belongs here: making it when the analyses are new, and showing its main figures in the UI. What does not: any
figure (``report``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
import base64
from typing import TYPE_CHECKING, Any

import dagster as dg

from cooperbench_assets import __version__
from cooperbench_assets.analysis.registry import ANALYSES
from cooperbench_assets.assets.keys import FOLLOWS, asset_key, group_name
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.viewer_links import report_page, viewer_address

if TYPE_CHECKING:
    from cooperbench_assets.report.build import Built
    from cooperbench_assets.report.figure import Figure

SHOWN = ("success_by_setting", "paired_comparisons")
"""Figures that the materialisation shows."""

MOST_BYTES = 60_000
"""Bytes of a figure in the UI: metadata is kept in Dagster's database."""


def build_report_asset(experiment: ExperimentContext) -> dg.AssetsDefinition:
    """report of one experiment: made anew after its analyses."""

    @dg.asset(
        key=asset_key(experiment.name, "report"),
        deps=[asset_key(experiment.name, analysis.name) for analysis in ANALYSES],
        description="Figures and one self-contained page in data/report: SVG, PNG, CSV, LaTeX and report.html.",
        kinds={"html"},
        group_name=group_name(experiment.name),
        tags={"experiment": experiment.name},
        automation_condition=FOLLOWS,
        code_version=__version__,
        pool="results_store",
    )
    def report() -> dg.MaterializeResult[Any]:
        from cooperbench_assets.report.build import build_reports  # the drawing libraries take half a second

        logs = {experiment.name: experiment.logs}
        project = experiment.project
        viewer = viewer_address(project.root)
        (built,) = build_reports(project.database, project.report, [experiment.name], logs, viewer)
        return dg.MaterializeResult(metadata=report_metadata(project, built))

    return report


def report_metadata(project: Project, built: "Built") -> dict[str, Any]:
    """Where the page is, how many findings stand first on it, and two figures."""
    drawn = {name: built.figures[name] for name in SHOWN}
    return {
        **_page_of(project, built),
        "page": dg.MetadataValue.path(str(built.page)),
        "open_it": project.relative(built.page),
        "warnings": built.warnings["error"] + built.warnings["warning"],
        "figures": sum(figure.svg is not None for figure in built.figures.values()),
        "bytes": built.bytes,
        **{name: dg.MetadataValue.md(preview(figure)) for name, figure in drawn.items()},
    }


def _page_of(project: Project, built: "Built") -> dict[str, Any]:
    """Where the viewer serves the page; several experiments on one page have none there."""
    if len(built.experiments) != 1:
        return {}
    return {"open_report": dg.MetadataValue.url(viewer_address(project.root) + report_page(built.experiments[0]))}


def preview(figure: "Figure") -> str:
    """A figure as Markdown that needs no file beside it, or the sentence in its place."""
    if figure.svg is None:
        return figure.sentence or ""
    for scale in (1.0, 0.75, 0.5):
        png = figure.png(scale)
        if len(png) <= MOST_BYTES:
            return f"![{figure.name}](data:image/png;base64,{base64.b64encode(png).decode()})"
    return f"{figure.name} is too large to be shown here; it stands on the page"
