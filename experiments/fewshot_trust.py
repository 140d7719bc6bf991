"""Measure whether what `metarun fewshot` says of its own answers holds, on the pixels of MNIST's test files.

    python experiments/fewshot_trust.py FOLDER [--draws N]

FOLDER holds t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz. Each draw takes five classes with some pictures
each as the support, 60 queries of each, and 300 queries of two other classes. Pixels stand for features. A line has
means over the draws: accuracy on what was left out, and on the queries; the expected accuracy and the calibration error
(ten bins) of the probabilities; the expected and the true error of the threshold of unknown pictures.
"""

import argparse
from pathlib import Path

import numpy as np

from metarun.data import idx
from metarun.fewshot import centroids, heads, novelty, scaling, temperature

METHODS = {"centroid": heads.fit_centroid, "logistic": heads.fit_logistic}
SHOTS = (2, 5, 10)
QUERIES, STRANGERS = 60, 150  # of each class


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels [picture, pixel] in [0, 1] and digits [picture]."""
    files = {"t10k-images-idx3-ubyte.gz": 3, "t10k-labels-idx1-ubyte.gz": 1}  # with their axes
    pixels, digits = (
        idx.to_array(*idx.read_bytes(folder / name, axes, "fetch it: metarun data fetch mnist"))
        for name, axes in files.items()
    )
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255, digits.astype(int)


def draw(generator: np.random.Generator, digits: np.ndarray, shots: int) -> list[np.ndarray]:
    """Return the places of a support, of its queries, and of queries of other classes."""
    classes = generator.choice(10, 7, replace=False)
    own, others = classes[:5], classes[5:]
    support = choose(generator, digits, own, shots, np.arange(len(digits)))
    rest = np.setdiff1d(np.arange(len(digits)), support)
    return [
        support,
        choose(generator, digits, own, QUERIES, rest),
        choose(generator, digits, others, STRANGERS, rest),
    ]


def choose(
    generator: np.random.Generator, digits: np.ndarray, classes: np.ndarray, count: int, places: np.ndarray
) -> np.ndarray:
    """Return the places of `count` pictures of each class among these places."""
    chosen = [generator.choice(places[digits[places] == name], count, replace=False) for name in classes]
    return np.concatenate(chosen)


def measure(method: str, pixels: np.ndarray, parts: list[np.ndarray], shots: int) -> list[float]:
    """Return the six numbers of one draw, in the order of the module's docstring."""
    rows, count = pixels[np.concatenate(parts)], len(parts[0])
    features, labels = scaling.scale(rows, count), np.repeat(np.arange(5, dtype=np.int32), shots)
    asked, truth = len(parts[1]), np.repeat(np.arange(5), QUERIES)
    head = METHODS[method](features[:count], labels)
    seen = labels[head.left_out.places]
    heat = temperature.fit(head.left_out.scores, seen)
    shares = temperature.make_probabilities(head.score(features[count : count + asked]), heat)
    right, sure = shares.argmax(axis=1) == truth, shares.max(axis=1)
    bins = np.clip((10 * sure).astype(int), 0, 9)
    gaps = [abs((right[bins == one] - sure[bins == one]).mean()) * (bins == one).mean() for one in set(bins)]
    threshold = novelty.find_threshold(rows[:count], labels)
    assert threshold is not None  # each class has two pictures or more
    distances = centroids.measure(centroids.fit(features[:count], labels), features[count:]).min(axis=1)
    errors = novelty.measure_errors(threshold.distance, distances[:asked], distances[asked:])
    left_out = (head.left_out.scores.argmax(axis=1) == seen).mean()
    accuracies = float(left_out), float(right.mean()), float(sure.mean())
    return [*accuracies, float(sum(gaps)), threshold.expected_error, sum(errors) / 2]


def main() -> None:
    """Print a line for each method and number of shots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=40)
    arguments = parser.parse_args()
    pixels, digits = read(arguments.folder)
    print("method   shots  left out  queries  expected  calibration error  unknown: expected, true")
    for method in METHODS:
        for shots in SHOTS:
            generator = np.random.default_rng(shots)
            parts = [draw(generator, digits, shots) for _ in range(arguments.draws)]
            means = np.mean([measure(method, pixels, part, shots) for part in parts], axis=0)
            print(f"{method} {shots:5}  " + "  ".join(f"{value:.3f}" for value in means), flush=True)


if __name__ == "__main__":
    main()
