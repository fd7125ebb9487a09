"""Rows of CSV whose quotes, lines and delimiters are as people write them."""

import pytest

from audiotrain.datasets.delimited import csv_rows

BROKEN = "broken"


def rows_of(text: str) -> tuple[list[list[str]], list[int]]:
    """The cells of each row, and the numbers of broken lines."""
    problems: list[str] = []
    rows = [cells for _, cells in csv_rows(text, "x.csv", problems) if cells]
    return rows, [int(problem.split(":")[1]) for problem in problems]


@pytest.mark.parametrize(
    ("lines", "expected", "broken"),
    [
        (['a.wav,"hum, then; loud"'], [["a.wav", "hum, then; loud"]], []),
        (['a.wav,"a ""quoted"" beep"'], [["a.wav", 'a "quoted" beep']], []),
        (['a.wav, "dog" '], [["a.wav", "dog"]], []),
        (['a.wav,a 12" record'], [["a.wav", 'a 12" record']], []),
        (['a.wav,a record of 12"'], [["a.wav", 'a record of 12"']], []),
        (['a.wav,the "best" tone'], [["a.wav", 'the "best" tone']], []),
        (['a.wav,"a beep', 'on two lines"'], [["a.wav", "a beep\non two lines"]], []),
        (['a.wav,"a beep,', 'then, a dog"'], [["a.wav", "a beep,\nthen, a dog"]], []),
        (['a.wav,"a beep,', "", 'loud"'], [["a.wav", "a beep,\n\nloud"]], []),
        (['a.wav,"dog', "b.wav,cat"], [["b.wav", "cat"]], [2]),
        (['a.wav,"dog', 'b.wav,"cat"'], [["b.wav", "cat"]], [2]),
        (['a.wav,"dog', 'b.wav,"cat', "c.wav,cow"], [["c.wav", "cow"]], [2, 3]),
        (
            ['a.wav,"dog', "b.wav,cat", 'c.wav,dog"', "d.wav,x"],
            [["b.wav", "cat"], ["d.wav", "x"]],
            [2, 4],
        ),
        (['a.wav,"dog', 'b.wav,dog"'], [], [2, 3]),
        (['"a.wav,dog', "b.wav,cat"], [["b.wav", "cat"]], [2]),
        (['a.wav,"dog" bark', "b.wav,cat"], [["b.wav", "cat"]], [2]),
        (['a.wav,dog"'], [], [2]),
        (
            ["a.wav,dog", "", "# b.mp3, no", "   ", "c.wav,x"],
            [["a.wav", "dog"], ["# b.mp3", "no"], ["c.wav", "x"]],
            [],
        ),
        (["a.wav,dog", "# made by hand, in May", "#"], [["a.wav", "dog"]], []),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_broken_line_costs_itself_alone(lines, expected, broken, end):
    more = [f"m{number}.wav,x" for number in range(3)]
    text = end.join(["file,label", *lines, *more])
    rows, faults = rows_of(text)
    assert rows == [["file", "label"], *expected, *(line.split(",") for line in more)]
    assert faults == broken


@pytest.mark.parametrize(
    ("first", "line", "cells"),
    [
        ("file;label", 'a.wav;"dog; cat, cow"', ["a.wav", "dog; cat, cow"]),
        ("file\tlabel", "a.wav\tdog, cat; cow", ["a.wav", "dog, cat; cow"]),
        ("# one, two, three\nfile;label", "a.wav;x,y", ["a.wav", "x,y"]),
    ],
)
def test_the_line_of_the_header_says_the_delimiter(first, line, cells):
    assert rows_of(f"{first}\n{line}\n")[0][-1] == cells


def test_ids_without_a_suffix_are_told_from_text_by_their_shape():
    """Without names of files a line of as many cells and single words in the same columns is a
    row."""
    rows = "\n".join(f"yt{n},{n},a low hum" for n in range(5))
    lines = f'{rows}\nytb,4,"a dog,\nthen, of all, a cat barks"\nytc,5,x"\n'
    found, broken = rows_of(f'id,start,caption\nyta,3,"never closed\n{lines}')
    assert [row[0] for row in found] == ["id", "yt0", "yt1", "yt2", "yt3", "yt4", "ytb"]
    assert broken == [2, 10]


def test_without_a_list_for_problems_a_broken_line_is_refused():
    with pytest.raises(
        ValueError, match='x.csv:2: an opening quote never closes, found a.wav,"dog'
    ):
        list(csv_rows('file,label\na.wav,"dog\nb.wav,cat\n', "x.csv"))


def test_many_open_quotes_take_no_more_than_one_pass_each():
    text = "file,label\n" + "".join(f'{n}.wav,"x\n' for n in range(3000))
    assert len(rows_of(text)[1]) == 3000
