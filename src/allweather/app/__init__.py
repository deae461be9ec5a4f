"""The command line and the pages: everything a person touches."""
