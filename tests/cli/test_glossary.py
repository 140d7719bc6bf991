"""`metarun list NAME` for what is no plug-in: methods, optimizers, schedules, sections of a config."""

import pytest

from helpers.commands import assert_three_lines
from metarun.cli import glossary
from metarun.config import choices, shipped


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("anil", ["algorithm maml with adapts: head", "metarun train sinusoid/anil"]),
        ("fomaml", ["algorithm maml with order: first"]),
        ("boil", ["algorithm maml with adapts: body"]),
        ("meta-sgd", ["algorithm maml with learned_lr: parameter"]),
        ("Meta_SGD", ["algorithm maml with learned_lr: parameter"]),
        ("snail", ["algorithm memory with reader: attention"]),
        ("t-net", ["algorithm preconditioned", "metarun train sinusoid/t-net"]),
        ("mt-net", ["algorithm preconditioned with mask: true"]),
        ("maml++", ["outer_loss: annealed", "metarun train sinusoid/maml-plus-plus"]),
        ("pretrain-finetune", ["algorithm pretrain", "algorithm finetune"]),
        ("adam", ["optimizer adam", "learning_rate", "the highest rate", "schedule"]),
        ("cosine", ["schedule cosine", "warmup_steps"]),
        ("constant", ["schedule constant", "it has no options"]),
        ("training", ["section training", "steps", "seconds", "{name: adam}"]),
        ("stages", ["section stages", "required", "init_from", "taken_from"]),
        ("accelerator", ["hosts", "{}"]),
        ("maml", ["algorithm maml", "inner_steps", "metarun train sinusoid/maml"]),
    ],
)
def test_list_finds_what_is_no_plug_in(metarun_, name, words):
    said = metarun_("list", name)
    assert said.code == 0
    for word in words:
        assert word in "\n".join(said.out)


def test_list_prints_every_name_that_it_knows(metarun_):
    printed = " ".join(metarun_("list").out).replace(",", " ").split()
    assert set(glossary.list_names()) <= set(printed)


def test_every_short_name_is_that_of_a_config():
    for name in glossary.ALIASES:
        assert glossary.find_configs(name)


def test_a_misspelt_method_is_answered_with_the_nearest(metarun_):
    assert_three_lines(metarun_("list", "fomamls"), 2, "did you mean fomaml?")


def test_names_mean_one_thing_each():
    tables = [name for table in choices.TABLES.values() for name in table]
    names = [*glossary.list_methods(), *tables, *glossary.SECTIONS]
    assert len(names) == len(set(names))
    assert {path.rpartition("/")[2] for path in shipped.list_names()} >= set(glossary.list_methods())
