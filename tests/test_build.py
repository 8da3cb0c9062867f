"""Configuration nodes become objects, or messages that name the value and the fix."""

from typing import Any

import pytest
from torch import nn

from dfkd.config.build import FAILED, Builder, nearest, not_finite, number
from dfkd.config.signature import parameters
from dfkd.errors import ConfigError

HERE = __name__


class Part:
    """A component of the tests."""

    def __init__(self, size: int, rate: float = 0.5, word: str = "a", flag: bool = False, limit: int | None = None):
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        self.size, self.rate, self.word, self.flag, self.limit = size, rate, word, flag, limit


class Whole:
    """A component made of components, that looks at its surroundings."""

    def __init__(self, parts: list[Part], shape: tuple[int, int, int], classes: int = 2, chunk: int = 7):
        self.parts, self.shape, self.classes, self.chunk = parts, shape, classes, chunk


class Small(Part):
    """A component that adds an argument to those of its parent."""

    def __init__(self, *args: Any, rate: float = 0.1, shade: float, **kwargs: Any):
        super().__init__(*args, rate=rate, **kwargs)
        self.shade = shade


class Smaller(Small):
    """Another one, two steps from the class that says what the arguments are, and with something of its own."""

    def __init__(self, classes: int, **others: Any):
        super().__init__(**others)
        self.classes = classes


class Free:
    """A component that takes whatever it gets, and has no parent to hand it to."""

    def __init__(self, **options: Any):
        self.options = options


def anything(**options: object) -> dict:
    return options


def node(kind: str = "Part", **options: object) -> dict:
    return {"_target_": f"{HERE}.{kind}", **options}


def problems(config: object, **context: object) -> list[str]:
    builder = Builder(**context)
    assert builder.build(config, "here") is FAILED
    return builder.problems


def test_nested_nodes_are_built_inside_out():
    config = node("Whole", name="w", parts=[node(size=1), node(size=2, word="b")], shape=[1, 8, 8])
    whole = Builder().build(config, "here")
    assert [part.size for part in whole.parts] == [1, 2]
    assert whole.parts[1].word == "b"


def test_a_dict_without_target_is_built_item_by_item():
    built = Builder().build({"one": node(size=1), "two": 2}, "here")
    assert built["one"].size == 1 and built["two"] == 2


def test_the_name_of_an_option_is_not_an_argument():
    assert Builder().build(node(name="part", size=3), "here").size == 3


def test_an_unknown_key_is_named_with_the_nearest_one():
    assert problems(node(size=1, raet=0.1)) == ["here.raet: there is no such option; did you mean 'rate'?"]


def test_an_unknown_key_nothing_is_near_to_lists_what_there_is():
    (problem,) = problems(node(size=1, zzzzzz=0.1))
    assert problem.startswith("here.zzzzzz:") and "known: flag, limit, rate, size, word" in problem


def test_what_the_context_gives_is_not_offered_as_an_option():
    (problem,) = problems(node("Whole", parts=[], shap=[1]), shape=(1, 8, 8))
    assert "here.shap" in problem and "'shape'" not in problem and "shape," not in problem


def test_a_missing_argument_is_named_with_what_to_set_it_to():
    assert problems(node()) == ["here.size is missing: set it to a whole number"]


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("size", "three", "a whole number"),
        ("size", 1.5, "a whole number"),
        ("size", True, "a whole number"),
        ("size", None, "a whole number"),
        ("rate", "fast", "a number"),
        ("rate", [0.1], "a number"),
        ("word", 3, "a word"),
        ("flag", "yes", "true or false"),
        ("limit", "none", "a whole number or null"),
    ],
)
def test_a_wrong_type_is_named_with_the_value_and_what_fits(option, value, wanted):
    (problem,) = problems(node(**({"size": 1} | {option: value})))
    assert problem == f"here.{option} must be {wanted}, got {value!r}"


@pytest.mark.parametrize(
    ("option", "value", "becomes"),
    [("size", 3.0, 3), ("rate", 2, 2), ("rate", "8/255", 8 / 255), ("rate", "1e-3", 1e-3), ("limit", None, None)],
)
def test_a_value_that_says_the_same_fits(option, value, becomes):
    built = getattr(Builder().build(node(**({"size": 1} | {option: value})), "here"), option)
    assert built == becomes and isinstance(built, type(becomes))


@pytest.mark.parametrize("value", [0.5, 3, True, "imagenet"])
def test_a_value_in_place_of_a_list_is_named(value):
    (problem,) = problems(node("Whole", parts=[], shape=value))
    assert problem == f"here.shape must be a list such as [{value},...], got {value!r}"


def test_all_problems_are_reported_at_once():
    config = {"a": node(siez=1), "b": node("Prt"), "c": node(size="x"), "d": node(size=-1)}
    builder = Builder()
    builder.build(config, "here")
    with pytest.raises(ConfigError) as raised:
        builder.raise_problems()
    message = str(raised.value)
    for said in ("here.a.siez", "here.a.size is missing", "did you mean 'Part'?", "here.c.size", "here.d: size must"):
        assert said in message
    assert len(message.splitlines()) == 5


def test_nothing_is_raised_where_nothing_is_wrong():
    builder = Builder()
    builder.build(node(size=1), "here")
    builder.raise_problems()


def test_a_component_gets_what_it_names_from_its_surroundings():
    whole = Builder(shape=(3, 8, 8), classes=10, unused=1).build(node("Whole", parts=[]), "here")
    assert whole.shape == (3, 8, 8) and whole.classes == 10


def test_a_key_in_the_yaml_wins_over_the_surroundings():
    assert Builder(shape=(1, 2, 1), classes=10).build(node("Whole", parts=[], classes=3), "here").classes == 3


def test_an_explicit_null_wins_over_the_surroundings_too():
    assert Builder(size=1, limit=5).build(node(limit=None), "here").limit is None


def test_surroundings_that_are_none_leave_the_default():
    assert Builder(shape=(1, 2, 1), chunk=None).build(node("Whole", parts=[]), "here").chunk == 7


def test_a_function_of_any_keywords_takes_them_all():
    assert Builder().build(node("anything", x=1, y="b"), "here") == {"x": 1, "y": "b"}


def test_what_a_class_hands_on_to_its_parent_is_an_option_of_it():
    config = node("Smaller", size=1, word="b", shade="1/2", limit=None)
    built = Builder(classes=3, chunk=5).build(config, "here")
    assert (built.size, built.rate, built.word, built.shade, built.limit, built.classes) == (1, 0.1, "b", 0.5, None, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wrod": "b"}, "here.wrod: there is no such option; did you mean 'word'?"),
        ({"zzzzzz": 1}, "here.zzzzzz: there is no such option; known: flag, limit, rate, shade, size, word"),
        ({"flag": "yes"}, "here.flag must be true or false, got 'yes'"),
        ({"rate": "fast"}, "here.rate must be a number, got 'fast'"),
        ({"size": -1}, "here: size must not be negative, got -1"),
    ],
)
def test_mistakes_in_what_is_handed_on_are_named_like_others(options, said):
    assert problems(node("Smaller", **({"size": 1, "shade": 0.5} | options)), classes=2) == [said]


def test_what_is_handed_on_and_missing_is_named_with_what_to_set_it_to():
    missing = problems(node("Smaller"), classes=2)
    assert missing == ["here.shade is missing: set it to a number", "here.size is missing: set it to a whole number"]


def test_a_class_without_a_parent_to_ask_takes_every_keyword():
    assert Builder().build(node("Free", x=1, y="b"), "here").options == {"x": 1, "y": "b"}
    assert [p.kind.name for p in parameters(nn.Module).values()] == ["VAR_KEYWORD"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (f"{HERE}.Prat", "did you mean 'Part'?"),
        ("no_such_module.Part", "cannot import 'no_such_module.Part'"),
        ("Part", "cannot import 'Part'"),
    ],
)
def test_an_unknown_target_is_named(target, said):
    (problem,) = problems({"_target_": target})
    assert problem.startswith("here._target_:") and said in problem


def test_what_a_component_refuses_is_a_problem_with_its_place():
    assert problems(node(size=-1)) == ["here: size must not be negative, got -1"]


def test_nothing_is_built_on_top_of_what_failed():
    assert problems(node("Whole", parts=[], shape=node(size=-1))) == ["here.shape: size must not be negative, got -1"]


def test_binding_checks_without_calling():
    builder = Builder()
    builder.bind(node(size=-1), "here")  # the call would refuse it
    assert builder.problems == []
    builder.bind({"deep": [node(sise=1)]}, "here")
    assert builder.problems[0] == "here.deep[0].sise: there is no such option; did you mean 'size'?"


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), (0.03, 0.03), (4, 4.0), ("1e-3", 1e-3)]
)
def test_numbers_and_fractions(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["eight", "8/0", "8/255/2", "", None])
def test_what_is_no_number_is_named_with_the_fix(text):
    with pytest.raises(ConfigError, match=r"is not a number; write 0.03 or 8/255"):
        number(text)


def test_the_nearest_name():
    assert nearest("supervisd", ["supervised", "ntl"]) == "; did you mean 'supervised'?"
    assert nearest("xyz", ["b", "a", "_hidden"]) == "; known: a, b"
    assert nearest("xyz", []) == ""


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "nan/255", "inf/255", float("nan"), float("inf"), "1e999"])
def test_a_number_is_finite(value):
    with pytest.raises(ConfigError, match="not a finite number"):
        number(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_every_number_that_is_not_finite_is_named_wherever_it_stands(value):
    config = {"a": value, "b": {"c": [1, value, {"d": value}]}, "e": "nan", "f": 1e300, "g": None, "h": [True]}
    named = ["a", "b.c[1]", "b.c[2].d"]
    assert list(not_finite(config)) == [f"{where} must be a finite number, got {value}" for where in named]


def test_a_word_for_infinity_is_no_number():
    assert problems(node(size=1, rate="inf")) == ["here.rate must be a number, got 'inf'"]
