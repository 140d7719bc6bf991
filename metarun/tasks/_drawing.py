"""What the pictures of episodes share."""


def learner_name(steps: int | None) -> str:
    """`after 5 steps` of the inner loop, or `adapted` of a learner without countable ones."""
    return "adapted" if steps is None else f"after {steps} step{'s' * (steps != 1)}"
