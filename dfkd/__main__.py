"""`python -m dfkd` is `dfkd`."""

from dfkd.main import cli

if __name__ == "__main__":
    cli()
