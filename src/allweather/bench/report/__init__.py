"""Reports from records alone: tables in four formats, and one page that needs no network."""

from allweather.bench.report.collect import Group, load_records
from allweather.bench.report.page import write_report

__all__ = ["Group", "load_records", "write_report"]
