"""`python -m einscale`: the command line."""

from einscale.cli import main

main()
