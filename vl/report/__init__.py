"""The run report: one HTML file that opens offline and shows what a run did to the model."""

from vl.report.render import render_report

__all__ = ["render_report"]
