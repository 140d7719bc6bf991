"""Values of YAML become fields of dataclasses: which values each annotation takes, and what is said of the others."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from metarun.config import binder
from metarun.config.origin import Origin
from metarun.errors import ConfigError
from metarun.plugins import PluginError
from metarun.ranges import Above, AtLeast, Between

ORIGIN = Origin("run.yaml", {})


@dataclass(frozen=True)
class Inner:
    """A section within another one."""

    size: Annotated[int, AtLeast(1)] = 8


@dataclass(frozen=True)
class Section:
    """One field of each form."""

    count: Annotated[int, AtLeast(1)]
    rate: Annotated[float, Above(0)] | None = 0.5
    name: str = "x"
    flag: bool = False
    mode: Literal["one", "two", 3] = "one"
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[Annotated[int, Between(0, 9)], ...] = ()
    mixed: float | Literal["learned"] = 1.0
    inner: Inner = Inner()
    large: Annotated[int, Between(1, 2**60)] = 1
    made: int = dataclasses.field(default=0, init=False)


def bind(**values):
    return binder.bind(Section, {"count": 1, **values}, ORIGIN)


def refuse(**values) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        bind(**values)
    return refused.value


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("count", 3, 3),
        ("count", 3.0, 3),
        ("count", 100_000, 100_000),
        ("large", float(2**53), 2**53),
        ("large", 2**60, 2**60),
        ("rate", 2, 2.0),
        ("rate", None, None),
        ("rate", 1e-9, 1e-9),
        ("name", "", ""),
        ("flag", True, True),
        ("mode", 3, 3),
        ("pair", [4, 5], (4, 5.0)),
        ("many", [], ()),
        ("many", 7, (7,)),
        ("many", [0, 9], (0, 9)),
        ("mixed", "learned", "learned"),
        ("mixed", 3, 3.0),
        ("inner", {}, Inner(8)),
        ("inner", {"size": 2}, Inner(2)),
    ],
)
def test_a_value_has_the_type_of_its_field(field, value, bound):
    found = getattr(bind(**{field: value}), field)
    assert found == bound and type(found) is type(bound)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"count": 0}, "count cannot be 0"),
        ({"count": 1.5}, "count cannot be 1.5"),
        ({"count": 100_001}, "count cannot be 100001"),
        ({"large": float(2**53 + 2)}, "large cannot be 9007199254740994.0"),
        ({"count": True}, "count cannot be true"),
        ({"count": None}, "count cannot be null"),
        ({"count": "1"}, "count cannot be '1'"),
        ({"rate": 0}, "rate cannot be 0"),
        ({"rate": float("inf")}, "rate cannot be inf"),
        ({"rate": float("nan")}, "rate cannot be nan"),
        ({"rate": False}, "rate cannot be false"),
        ({"name": 1}, "name cannot be 1"),
        ({"flag": 1}, "flag cannot be 1"),
        ({"flag": "true"}, "flag cannot be 'true'"),
        ({"mode": "three"}, "mode cannot be 'three'"),
        ({"mode": 3.0}, "mode cannot be 3.0"),
        ({"pair": [1]}, "pair cannot be [1]"),
        ({"pair": [1, 2, 3]}, "pair cannot be [1, 2, 3]"),
        ({"pair": [1.5, 2]}, "pair.0 cannot be 1.5"),
        ({"pair": None}, "pair cannot be null"),
        ({"many": {"a": 1}}, "many cannot be a section"),
        ({"many": [1, 10]}, "many.1 cannot be 10"),
        ({"many": [[1, 2, 3, 4, 5]]}, "many.0 cannot be a list"),
        ({"many": [[1, 2, 3, None]]}, "many.0 cannot be [1, 2, 3, null]"),
        ({"mixed": "lerned"}, "mixed cannot be 'lerned'"),
        ({"inner": 3}, "inner cannot be 3"),
        ({"inner": {"size": 0}}, "inner.size cannot be 0"),
        ({"name": ["a" * 70]}, f"name cannot be ['{'a' * 70}']"),
        ({"count": "a" * 70}, f"count cannot be '{'a' * 58}…"),
        ({"count": "a" * 58}, f"count cannot be '{'a' * 58}'"),
        ({"size": 1}, "the configuration has no key size"),
        ({"inner": {"made": 1}}, "the section inner has no key made"),
        ({"made": 1}, "the configuration has no key made"),
    ],
)
def test_another_value_is_refused_in_the_words_of_the_file(values, what):
    if "aaa" in what and "[" in what:
        what = f"name cannot be ['{'a' * 58}…]"
    assert refuse(**values).what == what


def test_a_field_without_a_default_is_missed():
    with pytest.raises(ConfigError) as refused:
        binder.bind(Section, {}, ORIGIN)
    assert refused.value.what == "count is missing"
    assert refused.value.remedy == "add it: a whole number, at least 1"


def test_a_list_without_brackets_is_shown_with_them():
    assert refuse(many="1,2").remedy.startswith("write [1,2]: ")
    assert refuse(name={"a": 1}).remedy == "give text"
    assert refuse(count="1,2").remedy == "give a whole number, at least 1"


def test_an_owner_is_named_where_there_is_one():
    with pytest.raises(ConfigError, match="the model of ours has no key b"):
        binder.bind(Inner, {"b": 1}, ORIGIN, "model", "the model of ours")


def test_a_section_may_not_be_a_list():
    with pytest.raises(ConfigError) as refused:
        binder.bind(Inner, [1], ORIGIN, "inner")
    assert refused.value.remedy == "give a section with the keys size"


def test_what_a_section_refuses_itself_is_told_with_its_place_and_its_remedy():
    @dataclass(frozen=True)
    class Choosy:
        value: int = 0

        def __post_init__(self):
            if self.value == 1:
                raise ValueError("one is too few", "give two")
            if self.value == 2:
                raise ValueError("two is too many")

    for value, remedy in ((1, "give two"), (2, "change one so that they agree")):
        with pytest.raises(ConfigError) as refused:
            binder.bind(Choosy, {"value": value}, ORIGIN, "there")
        assert refused.value.remedy == remedy and "key there" in refused.value.where


def test_an_annotation_that_no_yaml_fits_is_a_fault_of_the_plug_in():
    @dataclass(frozen=True)
    class Odd:
        value: complex = 0j

    with pytest.raises(PluginError, match="which YAML cannot hold"):
        binder.bind(Odd, {"value": 1}, ORIGIN)


def test_a_choice_is_a_section_with_a_name():
    def refuse_model(value):
        with pytest.raises(ConfigError) as refused:
            binder.bind_selection("model", value, "model", ORIGIN)
        return refused.value

    assert binder.bind_selection("model", {"name": "mlp"}, "model", ORIGIN).name == "mlp"
    assert refuse_model("mlp").remedy == "write it as a section: {name: mlp}"
    assert refuse_model("nothing").remedy == "write it as a section: {name: affine}"
    assert refuse_model({"hidden": [1]}).what == "model.name is missing"
    assert refuse_model({"name": "mpl"}).what == "there is no model 'mpl'"
    assert refuse_model({"name": "mpl"}).remedy.startswith("did you mean mlp?")
    assert refuse_model({"name": 3}).what == "there is no model 3"
    assert refuse_model({"name": "./none.py"}).remedy.startswith("write the path as it is seen from")
    assert refuse_model({"name": "no.such"}).remedy.startswith("install its package")
    assert refuse_model({"name": "mlp", "hiden": 1}).what == "the model mlp has no key hiden"


def test_equal_choices_are_bound_once_where_they_are_remembered():
    def choose(name="mlp", path="model"):
        return binder.bind_selection("model", {"name": name}, path, ORIGIN)

    assert choose() is not choose()
    with binder.remember_selections():
        first = choose()
        assert choose() is first
        assert choose(path="stages.0.model") is not first and choose("affine") is not first
    assert choose() is not first and choose() is not choose()
