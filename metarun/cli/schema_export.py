"""`metarun schema`."""

import json

import typer


def print_schema() -> None:
    """Print the JSON Schema of a config, for editors: keys, ranges, defaults and meanings."""
    from metarun.config import json_schema

    typer.echo(json.dumps(json_schema.make_schema(), indent=1, ensure_ascii=False))
