"""Tables, figures and pages out of finished runs, and what to cite."""

from threefactor.report.citing import citation
from threefactor.report.figures import Figure, Series
from threefactor.report.page import Listing, Section, html_page, markdown_page, write_figures
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
]
