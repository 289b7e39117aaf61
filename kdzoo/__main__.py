"""`python -m kdzoo` is the command `kdzoo`."""

from kdzoo.cli import main

main()
