"""`metarun data export`: data as the files that a user would bring, to try the families of own files with."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where to write: an empty folder, or a new one.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random choices.")]

application = typer.Typer(
    no_args_is_help=True, help="Write data as the files that you would bring, to try them with."
)


@application.command("omniglot")
def export_omniglot(
    folder: Folder,
    split: Annotated[str, typer.Option(help="all, train, validation or test.")] = "all",
    characters: Annotated[int, typer.Option(min=1, help="How many classes, chosen at random.")] = 60,
    shots: Annotated[
        int, typer.Option(min=0, max=19, help="Pictures of each class as support; the rest are queries.")
    ] = 0,
    seed: Seed = 0,
) -> None:
    """Write characters as pictures in class folders.

    They are for the task family image_folder, and with --shots for `metarun predict`. Without --shots, the files are
    FOLDER/CLASS/NUMBER.png. With --shots, they are FOLDER/support/CLASS/NUMBER.png and FOLDER/query/CLASS/NUMBER.png.
    The pictures are as published: 105 × 105 pixels, dark ink on white paper, 20 of each character. The splits are those
    of the task family omniglot as it is by default, so that `--split test` gives characters that a run has never seen.
    """
    import numpy as np

    from metarun import errors, folders
    from metarun.cli.download_bar import DownloadBar
    from metarun.data import exports
    from metarun.data.sets import omniglot_files
    from metarun.tasks import omniglot

    splits = {"all": np.arange(omniglot.CHARACTERS)} | omniglot.split_characters(omniglot.Config())
    if split not in splits:
        raise errors.UsageError(f"there is no split {split}", "--split", f"use one of {', '.join(splits)}")
    exports.refuse_used_folder(folder)
    with DownloadBar() as show:
        drawings = omniglot_files.load(folders.data_root(), omniglot_files.ORIGINAL_SIZE, show)
    exports.export_drawings(folder, drawings, splits[split], characters, shots, seed)
    typer.echo(folder)


@application.command("translation")
def export_translation(
    folder: Folder,
    languages: Annotated[
        int, typer.Option(min=2, help="How many languages of the world, from the first on.")
    ] = 16,
    pairs: Annotated[int, typer.Option(min=1, help="How many pairs of languages, chosen at random.")] = 60,
    sentences: Annotated[int, typer.Option(min=1, help="How many sentences for each pair.")] = 300,
    seed: Seed = 0,
) -> None:
    """Write pairs of sentences of made-up languages.

    They are for the task family parallel_text. There is a file for each pair of languages, such as FOLDER/l00-l05.tsv,
    with SOURCE<tab>TARGET on every line. The world is that of the task family translation as it is by default.
    """
    from metarun import errors
    from metarun.data import exports
    from metarun.tasks import translation
    from metarun.tasks.translation import language_world

    settings = translation.Config()
    if languages > settings.languages:
        raise errors.UsageError(
            f"the world has no {languages} languages", "--languages", f"give at most {settings.languages}"
        )
    world = translation.make_world(settings)
    exports.export_sentences(folder, language_world.draw_texts(world, languages, pairs, sentences, seed))
    typer.echo(folder)
