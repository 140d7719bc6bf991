"""Writes sentences of made-up languages as parallel text, a TSV a pair: something for `parallel_text` to read.

    python scripts/translation_folder.py text --languages 16 --pairs 60 --sentences 300
                                                    text/l00-l05.tsv and so on: SOURCE<tab>TARGET on every line

The languages are the first ones of the world of the task family `translation` as it is by default.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from metarun.tasks import _language, translation


def main() -> None:
    options = parse()
    generator = np.random.default_rng(options.seed)
    world = translation.make_world(translation.Config())
    every = list(itertools.combinations(range(options.languages), 2))
    options.folder.mkdir(parents=True, exist_ok=True)
    for index in sorted(generator.permutation(len(every))[: options.pairs]):
        rows = generator.permutation(world.corpus.shape[1])[: options.sentences]
        first, second = every[index]
        columns = [_language.spell(world.vocabulary, world.corpus[side, rows]) for side in (first, second)]
        lines = [f"{source}\t{target}\n" for source, target in zip(*columns, strict=True)]
        (options.folder / f"l{first:02}-l{second:02}.tsv").write_text("".join(lines), encoding="utf-8")
    print(options.folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write; made if it is not there")
    parser.add_argument(
        "--languages", type=int, default=16, help="how many of the world's, from the first on"
    )
    parser.add_argument("--pairs", type=int, default=60, help="of languages, chosen at random")
    parser.add_argument("--sentences", type=int, default=300, help="of each pair, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the choices")
    return parser.parse_args()


if __name__ == "__main__":
    main()
