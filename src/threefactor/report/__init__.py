"""Tables, figures and pages out of finished runs, and what to cite.

The way of a number: `threefactor.training.Run` reads it from `metrics.jsonl`, a `ReportedRun`
(`runs`) derives what follows from it, a `Group` (`study`) gathers it over seeds, `comparison` puts
it into a table beside the published number, and `page` shows it.
"""

from threefactor.report.citing import citation
from threefactor.report.figures import Figure, Series
from threefactor.report.page import (
    Listing,
    Section,
    html_page,
    markdown_page,
    write_figures,
    write_tables,
)
from threefactor.report.published import find_published, published_table, published_tables
from threefactor.report.sections import ReportSections, report_sections, study_sections
from threefactor.report.study import Group, Study, collect, gather
from threefactor.report.values import Number, Spread, Table

__all__ = [
    "Figure",
    "Group",
    "Listing",
    "Number",
    "ReportSections",
    "Section",
    "Series",
    "Spread",
    "Study",
    "Table",
    "citation",
    "collect",
    "find_published",
    "gather",
    "html_page",
    "markdown_page",
    "published_table",
    "published_tables",
    "report_sections",
    "study_sections",
    "write_figures",
    "write_tables",
]
