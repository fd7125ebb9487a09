"""pytorch_model.bin without PyTorch: its tensors, and what no file of weights needs refused."""

import os
import pickle
import zipfile
from collections import OrderedDict

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.models.clap.torch_pickle import read_bin


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
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (0, (4,), (-1,))],
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
