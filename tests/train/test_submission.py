"""Submissions: the sample's columns, ids and order; what does not fit is refused in one line."""

import csv

import numpy as np
import pytest

from audiotrain.train.submission import write_submission

SAMPLE = '\ufefffile,rain,"dog, barking"\nc.wav,0,0\n"a,1.wav",0,0\nb.wav,0,0\n'


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample_submission.csv"
    path.write_text(SAMPLE, encoding="utf-8")
    return path


IDS = ["a,1.wav", "b.wav", "c.wav"]
COLUMNS = ["dog, barking", "rain"]
VALUES = np.array([[0.9, 0.1], [0.25, 0.75], [1.0, 0.0]], np.float32)


def read(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_columns_and_rows_are_in_the_order_of_the_sample(tmp_path, sample):
    path = write_submission(IDS, COLUMNS, VALUES, sample, tmp_path / "new" / "submission.csv")
    header, *rows = read(path)
    assert header == ["file", "rain", "dog, barking"]
    assert [row[0] for row in rows] == ["c.wav", "a,1.wav", "b.wav"]
    numbers = np.array([row[1:] for row in rows], np.float32)
    np.testing.assert_array_equal(numbers, VALUES[[2, 0, 1]][:, ::-1])  # float32, bit for bit


def test_a_sample_with_one_label_gets_the_most_probable_names(tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("fname,label\nb.wav,x y\na.wav,x y\n")
    values = [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]
    columns = ["Bark", "Rain", "Bell"]
    path = write_submission(["a.wav", "b.wav"], columns, values, sample, tmp_path / "s.csv", top=2)
    assert path.read_text() == "fname,label\nb.wav,Bell Rain\na.wav,Rain Bell\n"
    write_submission(["a.wav", "b.wav"], ["label"], ["Bell", "Bark"], sample, path)
    assert path.read_text() == "fname,label\nb.wav,Bark\na.wav,Bell\n"


def test_without_a_sample_the_order_is_that_of_the_predictions(tmp_path):
    path = write_submission(["b", "a"], ["p"], np.array([0.5, 1.0]), None, tmp_path / "s.csv")
    assert path.read_text() == "id,p\nb,0.5\na,1\n"


def changed(row, column, value):
    values = VALUES.copy()
    values[row, column] = value
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["b.wav", "b.wav", "c.wav"]}, r"id 'b.wav' is predicted twice"),
        ({"ids": ["a,1.wav", "b.wav", "d.wav"]}, r"1 without .* \(c.wav\); 1 .* \(d.wav\)"),
        ({"columns": ["dog", "rain"]}, r"csv:1: column 'dog, barking' is no class of the model"),
        ({"values": changed(1, 0, 1.5)}, r"dog, barking of 'b.wav' is 1.5, expected a probab"),
        ({"values": changed(1, 0, -0.1)}, r"is -0.1"),
        ({"values": changed(2, 1, np.nan)}, r"rain of 'c.wav' is nan"),
        ({"values": changed(2, 1, np.nan), "probabilities": False}, r"expected a finite number"),
        ({"values": VALUES[:2]}, r"shape \(2, 2\), expected 3 ids by 2 columns"),
        (
            {"columns": [*COLUMNS, "bell"], "values": np.zeros((3, 3))},
            r"csv:1: no column for class 'bell'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, sample, change, message):
    given = {"ids": IDS, "columns": COLUMNS, "values": VALUES} | change
    with pytest.raises(ValueError, match=message) as caught:
        write_submission(**given, sample=sample, path=tmp_path / "s.csv")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"s.csv:1: expected a header"),
        ("id\na\n", r"s.csv:1: expected a header"),
        ("id,p\n", r"no rows after the header"),
        ("id,p\na,0\na,0\n", r"id 'a' is there twice"),
        ("id,p,p\na,0,0\n", r"column 'p' is there twice"),
        ("id,p\na,0\n\nb\n", r"s.csv:4: 1 fields, expected 2"),
    ],
)
def test_a_bad_sample_is_refused(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_submission(["a"], ["p"], [0.5], tmp_path / "s.csv", tmp_path / "out.csv")


def test_a_mean_of_nine_that_are_sure_is_a_probability(tmp_path):
    (value,) = np.tensordot(np.full(9, 1 / 9), np.ones((9, 1)), 1)
    assert value > 1  # by one bit
    write_submission(["a"], ["p"], [value], None, tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "id,p\na,1\n"


def test_numbers_that_are_no_probabilities_are_written_when_asked(tmp_path):
    path = write_submission(["a"], ["dB"], [-12.5], None, tmp_path / "s.csv", probabilities=False)
    assert path.read_text() == "id,dB\na,-12.5\n"
