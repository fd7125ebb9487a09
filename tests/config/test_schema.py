"""Types of settings: ranges and choices, in Python as in files and flags, and what is said."""

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field

from audiotrain.config import load
from audiotrain.config.refusals import describe
from audiotrain.config.schema import (
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    PositiveShare,
    Share,
    ShareBelowOne,
    validated,
)


def even(number: int) -> int:
    if number % 2:
        raise ValueError(f"found {number}, expected an even number")
    return number


@validated
class Optimizer:
    """How weights move."""

    rate: Positive = 1e-3
    decay: NonNegative = 0.0
    average: ShareBelowOne = 0.0

    def __post_init__(self):
        if self.decay > self.rate:
            raise ValueError(f"decay={self.decay}, expected at most rate={self.rate}")


@validated(kw_only=True)
class Run:
    """A run."""

    steps: PositiveInt | None = None
    seed: NonNegativeInt = 0
    valid: Share = 0.1
    share: PositiveShare = 1.0
    mode: Literal["full", "lora"] = "full"
    window: Annotated[int, AfterValidator(even)] = 2
    weights: tuple[NonNegative, ...] = ()
    data: Path | None = None
    runs: Annotated[tuple[Path, ...], Field(min_length=1, description="runs")] = (Path("runs"),)
    optimizer: Optimizer = field(default_factory=Optimizer)


WRONG = [
    ("steps", 0, "steps=0, expected 1 or more"),
    ("seed", -1, "seed=-1, expected 0 or more"),
    ("valid", 1.5, "valid=1.5, expected 0 to 1"),
    ("share", 0.0, "share=0.0, expected more than 0 and at most 1"),
    ("weights", (1, -2), "weights=-2.0, expected 0 or more"),
    ("window", 3, "window: found 3, expected an even number"),
]


@pytest.mark.parametrize(("name", "value", "line"), WRONG)
def test_a_value_beyond_its_range(name, value, line, tmp_path):
    with pytest.raises(ValueError, match="expected") as caught:
        Run(**{name: value})
    assert str(caught.value) == line
    words = [str(one) for one in (value if isinstance(value, tuple) else [value])]
    with pytest.raises(ValueError, match="expected") as caught:
        load(Run, [f"--{name}", *words])
    assert str(caught.value) == f"--{line}"
    text = str(list(value)) if isinstance(value, tuple) else str(value)
    (tmp_path / "run.yaml").write_text(f"# a run\n{name}: {text}\n")
    with pytest.raises(ValueError, match="expected") as caught:
        load(Run, ["--config", str(tmp_path / "run.yaml")])
    assert str(caught.value) == f"{tmp_path / 'run.yaml'}:2: {line}"


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"steps": True}, ["steps: found 'true', expected a whole number, 1 or more or null"]),
        ({"steps": 2.5}, ["steps: found '2.5', expected a whole number, 1 or more or null"]),
        ({"mode": "ful"}, ["mode: found 'ful', expected one of full, lora (did you mean full?)"]),
        ({"stepps": 1}, ["stepps: no such setting (did you mean steps?)"]),
        ({"runs": ()}, ["runs: nothing follows, expected runs"]),
        ({"seed": -1, "valid": 2}, ["seed=-1, expected 0 or more", "valid=2.0, expected 0 to 1"]),
    ],
)
def test_python_values_that_are_refused(values, lines):
    with pytest.raises(ValueError, match=".") as caught:
        Run(**values)
    assert str(caught.value).splitlines() == lines


def test_python_values_become_what_the_types_say():
    run = Run(data="2024", weights=[1, 2], steps=3, optimizer=Optimizer(rate=1))
    assert run.data == Path("2024")
    assert run.weights == (1.0, 2.0)
    assert isinstance(run.optimizer.rate, float)
    assert replace(run, steps=4).steps == 4
    with pytest.raises(ValueError, match="^steps=0, expected 1 or more$"):
        replace(run, steps=0)


def test_values_without_names_where_settings_have_names_alone():
    assert Optimizer(1e-2, decay=0.0).rate == 1e-2
    with pytest.raises(TypeError, match="Run: 1 positional values, expected none; the others by"):
        Run(5)
    with pytest.raises(TypeError, match="Optimizer: 4 positional values, expected 3; the others"):
        Optimizer(1e-2, 0.0, 0.0, 1)
    with pytest.raises(TypeError, match="Optimizer: rate is given by position and by name"):
        Optimizer(1e-2, rate=0.1)


def test_all_mistakes_of_values_and_of_groups_come_at_once(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: -1\ndata: 2024\noptimizer:\n  decay: 0.5\nvalid: 2\n")
    with pytest.raises(ValueError, match=".") as caught:
        load(Run, ["--config", str(path), "--steps", "0", "--moed", "full", "--mode", "all"])
    assert str(caught.value).splitlines() == [
        "--moed: unknown flag (did you mean --mode?)",
        "--steps=0, expected 1 or more",
        f"{path}:1: seed=-1, expected 0 or more",
        f"{path}:5: valid=2.0, expected 0 to 1",
        "--mode: found 'all', expected one of full, lora",
        f"{path}:4: decay=0.5, expected at most rate=0.001",
    ]
    assert "pydantic" not in str(caught.value)


def test_types_in_words():
    assert describe(PositiveInt | None) == "a whole number, 1 or more or null"
    assert describe(tuple[Share, ...]) == "a list, each a number, 0 to 1"
