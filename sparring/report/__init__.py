"""Reports on runs: numbers from the store, figures, and one self-contained page."""

from sparring.report.numbers import find_runs, report_data
from sparring.report.page import default_path, write_report
