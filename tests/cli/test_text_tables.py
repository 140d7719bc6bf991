"""What a result looks like as text."""

from metarun.cli import text_tables

TRIALS = {
    "step": 12,
    "split": "test",
    "modes": ["inductive"],
    "episodes": {"count": 8, "hash": "00"},
    "seeds": [0, 0],
    "trials": [
        {"seed": 0, "algorithm.inner_lr": 0.01},
        {"seed": 0, "algorithm.inner_lr": 0.3},
    ],
    "diverged": [{"trial": 1, "stage": "maml", "step": 7}],
    "stages": {
        "maml": {
            "step": 12,
            "inductive": {
                "adapted": {"loss": {"mean": 2.0, "ci95": 0.5, "seeds": {"values": [1.5, 2.5], "ci95": 0.1}}}
            },
        }
    },
}


def test_trials_are_told_apart_by_their_numbers_and_not_by_their_seeds(capsys):
    text_tables.print_result(TRIALS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "0.01" in line or "0.3" in line] == [
        ["0", "0", "0.01"],
        ["1", "0", "0.3"],
    ]
    assert "trial 1 has diverged at step 7 of maml: its values are those of the step before" in lines
    (header,) = (line for line in lines if line.endswith("trial 0  trial 1"))
    values = lines[lines.index(header) + 1]
    assert values.split()[-2:] == ["1.5000", "2.5000"]
    assert lines[-1].endswith("in brackets that over 2 trials, which differ in numbers")
