"""Figures of the reports as SVG inside HTML: drawn by hand, the same for the same figures.

Colours come from the page's style by class, so that they follow light and dark; no meaning is in a
colour alone, and each figure says in words what it shows.
"""

from fairneuron.report.figures.board import Board, Line, Look, Spot, board_plot, look_of, swatch
from fairneuron.report.figures.candidates import Plane, Point, candidate_plot
from fairneuron.report.figures.drawing import short
from fairneuron.report.figures.frequency import frequency_plot
from fairneuron.report.figures.intervals import ROWS, Mark, Row, interval_plot
from fairneuron.report.figures.network import Column, Link, network_plot
from fairneuron.report.figures.panels import Cross, Panel

__all__ = [
    "ROWS",
    "Board",
    "Column",
    "Cross",
    "Line",
    "Link",
    "Look",
    "Mark",
    "Panel",
    "Plane",
    "Point",
    "Row",
    "Spot",
    "board_plot",
    "candidate_plot",
    "frequency_plot",
    "interval_plot",
    "look_of",
    "network_plot",
    "short",
    "swatch",
]
