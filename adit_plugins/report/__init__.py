"""Results as one HTML page that opens from disk: table, structures in 3D, hulls, distributions."""

from adit_plugins.report.notebook import view
from adit_plugins.report.results import Results, read_results
from adit_plugins.report.write import REPORT, write_campaign_report, write_report

__all__ = [
    "REPORT",
    "Results",
    "read_results",
    "view",
    "write_campaign_report",
    "write_report",
]
