"""`python -m dfkd.report` is `dfkd-report`."""

from dfkd.report.cli import cli

if __name__ == "__main__":
    cli()
