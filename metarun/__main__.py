"""`metarun` and `python -m metarun`."""

import sys

COMPUTING = ("train", "eval", "doctor")  # the commands that are worth a restart with large pages


def main() -> None:
    """Run the command line."""
    if len(sys.argv) > 1 and sys.argv[1] in COMPUTING:
        from metarun import large_pages

        large_pages.use_large_pages()
    from metarun import cli

    cli.main()


if __name__ == "__main__":
    main()
