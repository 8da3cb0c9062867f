"""Makes `python -m dfkd.report` the same as `dfkd-report`."""

from dfkd.report.cli import cli

if __name__ == "__main__":
    cli()
