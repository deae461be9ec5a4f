"""Architectures of this project, one family a file; parts that families share are in blocks."""
