"""Reports from records alone: tables in four formats, and one page that needs no network."""

from allweather.report.collect import Group
from allweather.report.folder import load_records
from allweather.report.page import Format, write_report

__all__ = ["Format", "Group", "load_records", "write_report"]
