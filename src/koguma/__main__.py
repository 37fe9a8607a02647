"""`python -m koguma`."""

from koguma.cli import main

main()
