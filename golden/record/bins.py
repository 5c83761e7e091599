"""Records small files of torch.save, in every form that a DistilBERT comes in, and their twins.

Called by golden/record/make.py, for bins.  A .bin and its twin hold the same tensors: the twin was
written by safetensors.  All but every.bin are the same masked language model, of which
shards/config.json tells.
"""

import shutil
import tempfile
from pathlib import Path
from unittest import mock

import torch
from recording import drawn
from safetensors.torch import save_file
from transformers import DistilBertConfig, DistilBertForMaskedLM

Tensors = dict[str, torch.Tensor]


def small() -> DistilBertForMaskedLM:
    """A model of one block, every size of which differs, every parameter drawn."""
    config = DistilBertConfig(
        vocab_size=29, max_position_embeddings=7, dim=8, n_layers=1, n_heads=2, hidden_dim=12
    )
    model = DistilBertForMaskedLM(config)
    for name, parameter in model.named_parameters():
        parameter.data = drawn("bins", name, parameter.shape)
    return model


def save_twin(tensors: Tensors, path: Path) -> None:
    """Write every tensor whole, those that share numbers too."""
    save_file({n: x.detach().clone().contiguous() for n, x in tensors.items()}, path)


def save_legacy(tensors: Tensors, path: Path) -> None:
    """Save as torch did before 1.6.

    It calls storages by their addresses, here by their turn, so that equal runs give equal bytes.
    """
    address = torch._C.StorageBase._cdata.__get__
    turns: dict[int, int] = {}
    told = property(lambda storage: turns.setdefault(address(storage), 10**14 + len(turns)))
    with mock.patch.object(torch.UntypedStorage, "_cdata", told, create=True):
        torch.save(tensors, path, _use_new_zipfile_serialization=False)


def every() -> Tensors:
    """Every dtype, and every way in which a tensor lies in its storage."""
    table = torch.arange(40, dtype=torch.float32).reshape(8, 5) / 7
    tensors = {
        str(dtype).removeprefix("torch."): (table[:2, :3] * 9).to(dtype)
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
            torch.int16, torch.int8, torch.uint8, torch.bool,
        )
    }  # fmt: skip
    return tensors | {
        "a corner": table[5:, 2:],
        "a number": torch.tensor(0.1),
        "an axis of one": table[3:4].t(),
        "expanded": torch.tensor([[0.5], [2.5]]).expand(2, 4),
        "four axes": torch.arange(24.0).reshape(1, 2, 3, 4).permute(3, 0, 2, 1),
        "nothing": torch.zeros(0, 3),
        "transposed": table.t(),
        "transposed bfloat16": table.t().bfloat16(),
        "transposed int64": (table.t() * 9).long(),
        "whole": table,
    }


def record_bins(out: Path) -> None:
    """Write bins."""
    folder, model = out / "bins", small()
    (folder / "twins").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, safe_serialization=False)
        shutil.copy(Path(temporary) / "pytorch_model.bin", folder / "zip.bin")
    model.save_pretrained(folder / "shards", safe_serialization=False, max_shard_size="2KB")
    state = model.state_dict()
    save_twin(state, folder / "twins" / "float32.safetensors")
    save_legacy(state, folder / "legacy.bin")
    turned = {n: x.t().contiguous().t() if x.ndim == 2 else x for n, x in state.items()}
    torch.save(turned, folder / "transposed.bin")
    torch.save(dict(model.named_parameters(remove_duplicate=False)), folder / "parameters.bin")
    for dtype in (torch.float16, torch.bfloat16):
        name, halves = str(dtype).removeprefix("torch."), model.to(dtype).state_dict()
        torch.save(halves, folder / f"{name}.bin")
        save_twin(halves, folder / "twins" / f"{name}.safetensors")
    torch.save(every(), folder / "every.bin")
    save_legacy(every(), folder / "every-legacy.bin")
    save_twin(every(), folder / "twins" / "every.safetensors")
