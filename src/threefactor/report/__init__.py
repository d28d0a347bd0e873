"""Tables and figures out of finished runs."""

from threefactor.report.curves import draw_curves
from threefactor.report.tables import comparison_table

__all__ = ["comparison_table", "draw_curves"]
