"""The contract that is shipped: what `metarun init` writes keeps it, and plug-ins that break a promise are caught."""

from pathlib import Path

import pytest

from metarun import testing
from metarun.config import copies

KINDS = {"algorithm": "own_learner", "model": "own_net", "task": "own_lines"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what `metarun init` writes of each kind."""
    folder = tmp_path_factory.mktemp("own")
    for kind, name in KINDS.items():
        copies.write_plugin(kind, name, folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_init_writes_keeps_every_promise(folder, kind):
    checks = testing.list_checks(kind, folder / f"{KINDS[kind]}.py")
    assert len({str(check) for check in checks}) == len(checks) > 6
    for check in checks:
        if "learning" not in str(check):  # it trains for seconds; the test below trains once
            check()


@pytest.mark.parametrize(
    ("kind", "before", "after", "check", "words"),
    [
        ("model", "params[base.HEAD]", 'params["last"]', "default-check_head", "no head"),
        (
            "model",
            "jax.nn.gelu(",
            "(lambda x: x - x.mean(0)[None])(",
            "default-check_queries",
            "depends on the others",
        ),
        ("task", "[config.shots :]", "[: config.queries]", "check_disjoint", "have a query in their support"),
        ("task", '{"slope": slope, "offset": offset}', "()", "check_facts", "no facts"),
        ("task", "(), sample", "", "check_splits", ""),
        (
            "algorithm",
            "return base.Weights({",
            'return base.Weights({"unused": jnp.ones(2)} | {',
            "",
            "never has",
        ),
        (
            "algorithm",
            "shares @ learner.support.targets",
            "features[:, :1]",
            "",
            "the support does not matter",
        ),
    ],
)
def test_a_broken_promise_is_said(folder, tmp_path, kind, before, after, check, words):
    source = (folder / f"{KINDS[kind]}.py").read_text()
    if check == "default-check_head":
        source = source.replace("base.HEAD:", '"last":')
    if check == "check_splits":
        before, after, words = '("train", "validation", "test")', '("train",)', "the splits are"
    assert before in source
    (tmp_path / "broken.py").write_text(source.replace(before, after))
    checks = testing.list_checks(kind, tmp_path / "broken.py")
    name = check or {"never has": "regression-check_gradients"}.get(words, "regression-check_learning")
    (chosen,) = [chosen for chosen in checks if str(chosen) == name]
    with pytest.raises(AssertionError, match=words):
        chosen()
