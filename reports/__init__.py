"""Views of a run, for the terminal and as HTML, drawn from the files of its run directory alone."""

from kneepoint.reports.figures import front_figure, hypervolume_figure
from kneepoint.reports.html import write_report
from kneepoint.reports.hypervolume import hypervolume_curve
from kneepoint.reports.inspection_view import Inspection, inspection_views
from kneepoint.reports.pictures import write_picture
from kneepoint.reports.run_view import RunView
from kneepoint.reports.summary import summary_lines
from kneepoint.reports.terminal import LiveDisplay, front_table

__all__ = [
    "Inspection",
    "LiveDisplay",
    "RunView",
    "front_figure",
    "front_table",
    "hypervolume_curve",
    "hypervolume_figure",
    "inspection_views",
    "summary_lines",
    "write_picture",
    "write_report",
]
