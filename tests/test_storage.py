"""Files are whole or not there, and strangers' files get sentences."""

import os

import pytest
import torch
from torch import nn

from diffusion_edu import BetaSchedule, DiffusionModel, load_weights, save_weights
from diffusion_edu.storage import each_its_own, load_tensors, save_tensors, write_atomically


def test_weights_come_back_exactly_and_halves_leave_the_table_alone(tmp_path):
    make = lambda: DiffusionModel(nn.Linear(3, 3), BetaSchedule.linear(10))  # noqa: E731
    model, other, third = make(), make(), make()
    save_weights(model, tmp_path / "a.safetensors")
    load_weights(other, tmp_path / "a.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    save_weights(model, tmp_path / "half.safetensors", torch.float16)
    load_weights(third, tmp_path / "half.safetensors")
    assert torch.equal(third.schedule.betas, model.schedule.betas)
    assert torch.equal(third.network.weight, model.network.weight.half().float())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_file_gets_a_sentence(tmp_path, share):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.randn(100)})
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_tensors(path)


def test_a_missing_file_and_another_models_weights_get_sentences(tmp_path):
    model = nn.Linear(2, 2)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_weights(model, tmp_path / "none")
    save_weights(nn.Linear(2, 3), tmp_path / "other")
    before = model.weight.clone()
    with pytest.raises(ValueError, match=r"has shape \(3, 2\) there and \(2, 2\) here"):
        load_weights(model, tmp_path / "other")
    save_weights(nn.Linear(2, 2, bias=False), tmp_path / "fewer")
    with pytest.raises(ValueError, match="1 tensors are missing"):
        load_weights(model, tmp_path / "fewer")
    assert torch.equal(model.weight, before)


class Tied(nn.Module):
    """Two names for one weight, and buffers of types that checkpoints of others do not have."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.register_buffer("index", torch.arange(3, dtype=torch.int8))
        self.register_buffer("phase", torch.ones(2, dtype=torch.complex64))


def test_tied_weights_and_rare_types_are_written_and_read(tmp_path):
    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "tied.safetensors")
    load_weights(other, tmp_path / "tied.safetensors")
    assert torch.equal(other.a.weight, model.a.weight) and other.b.weight is other.a.weight
    save_tensors(tmp_path / "int.safetensors", {**model.state_dict(), "index": torch.arange(3, dtype=torch.int16)})
    with pytest.raises(ValueError, match=r"hold index as torch\.int16; it is torch\.int8 here"):
        load_weights(other, tmp_path / "int.safetensors")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_a_file_has_the_rights_that_the_users_files_have(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_table_keeps_its_digits_where_the_file_has_it_in_fewer(tmp_path):
    path, table = tmp_path / "w.safetensors", BetaSchedule.linear(10)
    save_tensors(path, {name: value.float() for name, value in table.state_dict().items()})
    load_weights(table, path)
    assert torch.equal(table.betas, BetaSchedule.linear(10).betas)
    other = BetaSchedule.cosine(10)
    load_weights(other, path)
    assert torch.equal(other.betas, table.betas.float().double()), "another table is taken as it is"


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.zeros(1)})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("safetensors.safe_open", refuse)
    with pytest.raises(PermissionError, match=r"w\.safetensors may not be read by this user"):
        load_tensors(path)


def test_weights_are_not_loaded_into_a_model_that_holds_no_numbers(tmp_path):
    save_weights(nn.Linear(2, 2), tmp_path / "w")
    with pytest.raises(ValueError, match="on the meta device, which holds no numbers"):
        load_weights(nn.Linear(2, 2, device="meta"), tmp_path / "w")


def test_the_first_caller_does_not_decide_the_device_of_the_others():
    own = each_its_own(lambda: nn.Linear(2, 2))
    with torch.device("meta"):
        own()
    assert own().weight.device.type == "cpu"


def test_a_conjugate_is_written_as_it_reads(tmp_path):
    x = torch.tensor([[1 + 2j, 3 + 4j]]).mH
    save_tensors(tmp_path / "x", {"x": x})
    assert torch.equal(load_tensors(tmp_path / "x")[0]["x"], x)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_what_is_no_plain_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe could not be written \(it is no plain file\)"):
        write_atomically(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()


def test_weights_are_not_kept_as_what_cannot_be_loaded(tmp_path):
    with pytest.raises(TypeError, match="float8_e4m3fn; weights are floats"):
        save_weights(nn.Linear(2, 2), tmp_path / "w", torch.float8_e4m3fn)


def test_halves_are_made_of_tied_weights_under_each_name_and_not_of_whole_numbers(tmp_path):
    model = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    model[1].weight = model[0].weight
    model.count = nn.Parameter(torch.arange(3), requires_grad=False)
    save_weights(model, tmp_path / "w", torch.float16)
    kinds = {name: value.dtype for name, value in load_tensors(tmp_path / "w")[0].items()}
    assert kinds == {"0.weight": torch.float16, "1.weight": torch.float16, "count": torch.int64}
    load_weights(model, tmp_path / "w")
