"""pytorch_model.bin without PyTorch: its tensors, and what no file of weights needs refused."""

import os
import pickle
import zipfile
from collections import OrderedDict

import fuzz
import mlx.core as mx
import numpy as np
import pytest

from audiotrain.models.clap.torch_pickle import read_bin
from audiotrain.utils.errors import UserError


class Danger:
    """What a hostile file may hold: a call of any function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_zip(file, content: bytes, records: dict[str, bytes] | None = None) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in (records or {}).items():
            archive.writestr(f"archive/{name}", data)


def test_bin_files_equal_pytorchs(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
    tensors = {
        "whole": base,
        "transposed": base.T,
        "part": base[1:3, 2:5],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Linear(3, 2).state_dict()["weight"],
    } | {str(kind): (base > 3).to(kind) * 2 for kind in types}
    file = tmp_path / "pytorch_model.bin"
    torch.save(OrderedDict(tensors), file)
    found = read_bin(file)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        expected = tensor.to(torch.float32).numpy()
        np.testing.assert_array_equal(np.array(found[name].astype(mx.float32)), expected)
        assert found[name].shape == tuple(tensor.shape)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_bin_file_runs_no_code(tmp_path, wrapped):
    trace = tmp_path / "ran"
    danger = Danger(os.mkdir, str(trace))
    file = tmp_path / "pytorch_model.bin"
    write_zip(file, pickle.dumps({"weight": danger} if wrapped else danger))
    pickle.loads(pickle.dumps(Danger(str, "harmless")))  # Danger does run where pickle is not kept
    with pytest.raises(ValueError, match=r"pytorch_model.bin: .* it names (posix|nt).mkdir"):
        read_bin(file)
    assert not trace.exists()


@pytest.mark.parametrize("function", [eval, getattr, print, os.system])
def test_a_bin_file_names_no_function(tmp_path, function):
    file = tmp_path / "pytorch_model.bin"
    write_zip(file, pickle.dumps(Danger(function, "1")))
    with pytest.raises(ValueError, match=f"it names .*{function.__name__}"):
        read_bin(file)


def test_files_of_other_formats_are_refused(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    for content in (pickle.dumps({"a": 1}), b"", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="saved by PyTorch before 1.6"):
            read_bin(file)
    for content, told in (
        (pickle.dumps([1, 2]), "it holds a list, expected a dict"),
        (pickle.dumps({"a": 1}), "'a' is a int, expected a tensor"),
        (b"garbage", "not read"),
        (b"", "not read"),
    ):
        write_zip(file, content)
        with pytest.raises(ValueError, match=told):
            read_bin(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ValueError, match="0 data.pkl in it"):
        read_bin(file)
    write_zip(file, pickle.dumps({}), {"byteorder": b"big"})
    with pytest.raises(ValueError, match="byte order b'big'"):
        read_bin(file)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"weight": torch.zeros(1).expand(1 << 20, 1 << 14)}, file)
    with pytest.raises(ValueError, match=r"'weight' has shape \(1048576, 16384\), but 1 numbers"):
        read_bin(file)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (4,), (2,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (0, (4,), (-1,))],
)
def test_tensors_beyond_their_numbers_are_refused(tmp_path, offset, shape, strides):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"weight": torch.as_strided(torch.zeros(4), (2, 2), (2, 1), 0)}, file)
    with zipfile.ZipFile(file) as archive:
        root = archive.namelist()[0].split("/")[0]
        records = {name.removeprefix(f"{root}/"): archive.read(name) for name in archive.namelist()}
    from audiotrain.models.clap import torch_pickle

    content = records.pop("data.pkl")
    rebuild = torch_pickle._rebuild_tensor
    forged = lambda storage, *_: rebuild(storage, offset, shape, strides)  # noqa: E731
    write_zip(file, content, records)
    allowed = torch_pickle.ALLOWED | {("torch._utils", "_rebuild_tensor_v2"): forged}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_pickle, "ALLOWED", allowed)
        with pytest.raises(ValueError, match="'weight' reaches beyond its 4 numbers"):
            read_bin(file)


def a_bin(file, *changes, **records) -> bytearray:
    """A file of weights of two numbers, written without PyTorch, after changes of its pickle."""
    content = (
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQK\0K\x02\x85K\x01\x85tRs."
    )
    for old, new in changes:
        assert old in content
        content = content.replace(old, new)
    write_zip(file, content, {"data/0": np.array([1, 2], "<f4").tobytes()} | records)
    return bytearray(file.read_bytes())


def test_a_file_written_by_hand_is_read(tmp_path):
    a_bin(tmp_path / "x.bin")
    assert read_bin(tmp_path / "x.bin")["w"].tolist() == [1, 2]


MANY_DISKS = b"PK\x06\x07" + bytes(4) + bytes(8) + b"\x02\0\0\0"
DIRECTORY, MEMBER, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


@pytest.mark.parametrize(
    ("mark", "at", "new", "message"),
    [
        (END, 0, MANY_DISKS, "span multiple disks"),  # was a traceback by is_zipfile
        (END, 0, b"xx", "no zip file"),
        (END, 16, b"\xff\xff\xff\x7f", "not read"),  # where the directory is
        (END, 12, b"\xff\xff\xff\x7f", "no zip file"),  # its size
        (DIRECTORY, 0, b"xx", "no zip file"),
        (DIRECTORY, 6, b"\xff", "zip file version 25.5"),
        (DIRECTORY, 8, b"\x01", "encrypted"),
        (DIRECTORY, 8, b"\x20", "compressed patched data"),
        (DIRECTORY, 8, b"\x40", "strong encryption"),
        (DIRECTORY, 10, b"\x08", "data.pkl is compressed"),
        (DIRECTORY, 10, b"\x0e", "data.pkl is compressed"),  # LZMA, whose errors are its own
        (DIRECTORY, 10, b"\x63", "data.pkl is compressed"),
        (DIRECTORY, 16, b"abcd", "Bad CRC-32"),
        (DIRECTORY, 20, b"\xff\xff\xff\x7f", "has .* bytes, more than the file"),
        (DIRECTORY, 24, b"\xff\xff\xff\x7f", "has .* bytes, more than the file"),
        (DIRECTORY, 30, b"\x10\0", "no zip file"),  # an extra field that is not there
        (DIRECTORY, 42, b"\xff\xff\xff\x7f", "not read"),  # where the member is
        (DIRECTORY, 46, b"\xff\xfe", "differ"),
        (MEMBER, 0, b"xx", "Bad magic number"),
        (MEMBER, 26, b"\xff\xff", "not read"),
        (MEMBER, 30, b"y", "differ"),
    ],
)
def test_a_damaged_archive_is_one_line(tmp_path, mark, at, new, message):
    file = tmp_path / "pytorch_model.bin"
    data = a_bin(file)
    place = data.index(mark) + at
    data[place : place + (0 if new is MANY_DISKS else len(new))] = new
    file.write_bytes(data)
    with pytest.raises(UserError, match=f"pytorch_model.bin: .*{message}") as caught:
        read_bin(file)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"}X", b"r\xff\xff\xff\x7f}X", "damaged"),  # would take 32 GB
        (b"}X", b"}r\xff\xff\xff\x7fX", "a value at 2147483647, of"),
        (b"X\x01\0\0\0w", b"K\x01", "name is a int, expected text"),
        (b"X\x01\0\0\0w", b"X\x01\0\0\0\xff", "damaged, or not of tensors"),
        (b"X\x01\0\0\0w", b"X\xff\xff\xff\x7fw", "damaged, or not of tensors"),
        (b"X\x01\0\0\0w", b"\x96" + b"\xff" * 7 + b"\x7fw", "damaged, or not of tensors"),
        (b"K\x01\x85tR", b"K\x01K\x01\x86tR", "1 axes and 2 strides"),
        (b"K\x01\x85tR", b"K\x01\x85tRK\x05b", "damaged, or not of tensors"),
        (b"K\x02\x85", b"J\0\0\0\x40\x85", "has shape .1073741824,., but 2 numbers"),
        (b"K\x02\x85", b"N\x85", "reaches beyond"),
        (b"X\x01\0\0\x000", b"X\x01\0\0\x001", "data/1"),
        (b"}X\x01\0\0\0w", b"S'\\d'\n", "damaged, or not of tensors"),
        (b"_rebuild_tensor_v2", b"x" * 5000, "it names torch._utils.xxx"),
    ],
)
def test_a_damaged_pickle_with_the_right_checksum_is_one_line(tmp_path, old, new, message):
    file = tmp_path / "pytorch_model.bin"
    a_bin(file, (old, new))
    with pytest.raises(UserError, match=f"pytorch_model.bin: not read: .*{message}") as caught:
        read_bin(file)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_sizes_of_axes_without_an_effect(tmp_path):
    huge = b"\x8a\x09" + b"\xff" * 8 + b"\0"  # as a stride
    a_bin(tmp_path / "x.bin", (b"K\x02\x85K\x01\x85", b"K\x01\x85" + huge + b"\x85"))
    assert read_bin(tmp_path / "x.bin")["w"].tolist() == [1]
    a_bin(tmp_path / "x.bin", (b"K\x02\x85K\x01\x85", b"K\x00K\x03\x86K\x03" + huge + b"\x86"))
    assert read_bin(tmp_path / "x.bin")["w"].shape == (0, 3)


def test_mutated_pickles_with_the_right_checksum_are_refused_or_read(tmp_path):
    """What the checksum of the archive refuses in files that are merely damaged."""
    file, rng = tmp_path / "pytorch_model.bin", np.random.default_rng(0)
    a_bin(file)
    with zipfile.ZipFile(file) as archive:
        content = archive.read("archive/data.pkl")
    refused = 0
    for _ in range(400):
        write_zip(file, fuzz.mutated(content, rng, is_text=False), {"data/0": bytes(8)})
        try:
            assert all(array.size < 10 for array in read_bin(file).values())
        except UserError:
            refused += 1
    assert refused > 200
