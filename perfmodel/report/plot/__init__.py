"""Tables as pictures: each function takes a table of this package and returns matplotlib's axes.

timeline, critical_path: when and where things run      breakdown: where the time goes
roofline: how well compute nodes use the accelerator    sweep_lines, sweep_heatmap: many designs
tornado: what matters                                   pareto: what cannot be had together
residuals: how well a calibration fits                  memory: what ranks hold, at the peak or over the step

With `ax` a function draws into axes that are there, else into a new figure. matplotlib is imported when a function
is called (`pip install 'perfmodel[plot]'`). Colours are those of Okabe and Ito (2008), told apart by everybody.
"""

from perfmodel.report.plot.memory_use import memory
from perfmodel.report.plot.roof import roofline
from perfmodel.report.plot.schedules import critical_path, timeline
from perfmodel.report.plot.shares import breakdown
from perfmodel.report.plot.studies import pareto, residuals, tornado
from perfmodel.report.plot.sweeps import sweep_heatmap, sweep_lines

__all__ = [
    "breakdown",
    "critical_path",
    "memory",
    "pareto",
    "residuals",
    "roofline",
    "sweep_heatmap",
    "sweep_lines",
    "timeline",
    "tornado",
]
