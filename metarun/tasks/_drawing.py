"""Words in the pictures of episodes of several families."""


def name_learner(steps: int | None) -> str:
    """Return `after 5 steps` of the inner loop, or `adapted` for an algorithm without inner steps."""
    return "adapted" if steps is None else f"after {steps} step{'s' * (steps != 1)}"
