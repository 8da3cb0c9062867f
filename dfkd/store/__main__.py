"""`python -m dfkd.store`."""

from dfkd.cli.store import main

main()
