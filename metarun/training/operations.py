"""The operations of a traced program, counted: what its matrix products and convolutions multiply and add.

The compiler's own count takes the body of a loop once, however often the loop runs, so it cannot say what a step costs
that takes its tasks a few at a time.
"""

import math
from typing import Any


def count_flops(jaxpr: Any) -> float:
    """Count the operations of all matrix products and convolutions: a multiplication and an addition are two.

    A loop counts as often as it runs. A loop whose length is not known counts once, and of several branches each does.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "shard_map":  # its program is that of one device
            times = equation.params["mesh"].size
        total += count_own_flops(equation)
        total += times * sum(map(count_flops, list_inner_jaxprs(equation)))
    return total


def count_open_loops(jaxpr: Any) -> int:
    """Count the loops that multiply matrices and whose length is not known before they run: their FLOPs count once."""
    total = 0
    for equation in jaxpr.eqns:
        inner = list_inner_jaxprs(equation)
        is_open = equation.primitive.name == "while" and any(map(count_flops, inner))
        total += is_open + sum(map(count_open_loops, inner))
    return total


def count_own_flops(equation: Any) -> float:
    """Count the operations of one matrix product or convolution; 0 for what is neither."""
    shapes = [variable.aval.shape for variable in equation.invars]
    if equation.primitive.name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][0]
        products = math.prod(shapes[0][axis] for axis in contracted)
    elif equation.primitive.name == "conv_general_dilated":
        kernel, outputs = shapes[1], equation.params["dimension_numbers"].rhs_spec[0]
        products = math.prod(size for axis, size in enumerate(kernel) if axis != outputs)
    else:
        return 0.0
    return 2.0 * equation.outvars[0].aval.size * products


def list_inner_jaxprs(equation: Any) -> list[Any]:
    """Return the programs that an operation runs.

    The solution of a linear system has four, of which only `solve` runs: the others are for its derivatives.
    """
    params = equation.params
    if equation.primitive.name == "custom_linear_solve":
        params = {"solve": params["jaxprs"].solve}
    values = [
        member for value in params.values() for member in (value if isinstance(value, tuple) else [value])
    ]
    opened = [getattr(value, "jaxpr", value) for value in values]
    return [value for value in opened if hasattr(value, "eqns")]
