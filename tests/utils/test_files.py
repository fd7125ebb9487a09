"""Files appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from audiotrain.utils.files import replacing, write


def test_text_and_bytes_replace_a_file_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    write(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["a.txt"]


def test_names_may_be_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("é" * 125 + ".lab")  # 254 bytes
    write(path, "0 1 N\n")
    assert path.read_text() == "0 1 N\n"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail():
        with replacing(path) as partial:
            assert partial.suffix == ".json"
            partial.write_text("half")
            assert path.read_text() == "before"
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/a\.csv: cannot write: ") as error:
        write(tmp_path / "file" / "a.csv", "text")
    assert "\n" not in str(error.value)
    assert not Path(tmp_path / "file" / "a.csv").exists()
