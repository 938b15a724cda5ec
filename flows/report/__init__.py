"""Reports on runs: the numbers from the store, figures, and one self-contained page."""

from flows.report.data import find_runs, report_data
from flows.report.page import default_path, write_report

__all__ = ["default_path", "find_runs", "report_data", "write_report"]
