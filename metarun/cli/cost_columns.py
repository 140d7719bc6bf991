"""The columns of `metarun compare` that say what each learner has cost, and the lines under them."""

from typing import Any

from metarun.cli.text_tables import format_count

FLOPS = {"FLOPs": "flops", "to adapt": "adaptation_flops", "to predict": "prediction_flops"}  # {column: key}


class CostColumns:
    """The columns that the costs of several learners need, in their order."""

    def __init__(self, comparison: dict[str, Any]) -> None:
        self.labels = [entry["label"] for entry in comparison["ranking"]]
        self.costs = costs = [entry["cost"] for entry in comparison["ranking"]]
        self.budgets = comparison["budgets"]
        self.earlier = any(cost["earlier_seconds"] for cost in costs)
        self.all_parameters = any(cost["all_parameters"] not in (None, cost["parameters"]) for cost in costs)
        self.flops = any(cost[key] is not None for cost in costs for key in FLOPS.values())
        self.unequal = any(self.budgets["unequal"])

    def list_names(self) -> list[str]:
        """Return the heads of the columns."""
        names = ["steps", "seconds", *["before"] * self.earlier, "parameters"]
        names += ["in all"] * self.all_parameters + ["state"]
        return names + list(FLOPS) * self.flops + ["budget"] * self.unequal

    def make_cells(self, place: int, cost: dict[str, Any]) -> list[str]:
        """Return the cells of a learner.

        Args:
          place: in the ranking, from 0.
        """
        cells = [format_count(cost["steps"]), format_count(cost["seconds"])]
        cells += [format_count(cost["earlier_seconds"])] * self.earlier + [format_count(cost["parameters"])]
        cells += [format_known(cost["all_parameters"], format_count)] * self.all_parameters
        cells.append("" if cost["state_bytes"] is None else f"{cost['state_bytes'] / 1e6:.2f} MB")
        if self.flops:
            least = "≥ " * cost["flops_at_least"]
            cells += [format_known(cost[key], lambda value: f"{least}{value:.3g}") for key in FLOPS.values()]
        if self.unequal:
            share = self.budgets["shares"][place]
            cells.append(f"{share:.3g} ×" if self.budgets["unequal"][place] else "equal")
        return cells

    def explain(self) -> list[str]:
        """Return the lines that say what the columns mean, and whose budgets differ."""
        from metarun.finished import costs

        lines = ["FLOPs of training, adaptation and prediction: not recorded by the version that trained"]
        if self.flops:
            lines = [
                "FLOPs: of matrix products and convolutions, for training with the stages that a learner stands on, "
                "for one adaptation, and for the answer to one example"
            ]
        if any(cost["flops_at_least"] for cost in self.costs):
            lines.append("≥: a loop of unknown length counts once")
        timed = [
            label
            for label, cost in zip(self.labels, self.costs, strict=True)
            if cost["ended_by"] == "seconds"
        ]
        if timed:
            lines.append(
                f"ended by seconds, so that another run has another number of steps: {', '.join(timed)}"
            )
        described = costs.describe_budgets(costs.Budgets(**self.budgets), self.labels)
        return lines + ([described] if described else [])


def format_known(value: Any, form: Any) -> str:
    """Return a value in its form, or that it was not recorded."""
    from metarun.finished.costs import NOT_RECORDED

    return NOT_RECORDED if value is None else str(form(value))
