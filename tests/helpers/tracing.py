"""How often jit traces a function."""

from collections.abc import Callable


class Counted:
    """A function that counts how often its body runs: under jit, how often it is traced."""

    def __init__(self, function: Callable) -> None:
        self.function, self.traces = function, 0

    def __call__(self, *arguments):
        self.traces += 1
        return self.function(*arguments)
