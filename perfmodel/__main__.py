"""`python -m perfmodel` is the command line."""

from perfmodel.cli.main import main

main()
