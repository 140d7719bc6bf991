"""`metarun` and `python -m metarun`."""

import sys

# The commands that are worth a restart with large pages.
COMPUTING = ("train", "eval", "sweep", "compare", "fewshot", "doctor")


def main() -> None:
    """Run the command line."""
    if len(sys.argv) > 1 and sys.argv[1] in COMPUTING:
        from metarun import large_pages

        large_pages.use_large_pages()
    from metarun import cli

    cli.main()


if __name__ == "__main__":
    main()
