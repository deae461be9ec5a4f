"""`python -m allweather` is the `allweather` command."""

from allweather.app.cli import main

main()
