"""What trainings have in common: batches, optimisers, steps, and the folder that is written.

The built-in models are made in this order, and each script says what it needs:
train_fill_mask.py, teach.py, train_sentiment.py, train_ner.py; golden/measure/model_cards.py then
measures the three, and writes cards.  teacher.py and train_embedding.py make the fourth,
golden/measure/embedding.py its card.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import PAD
from safetensors.torch import save_file
from tokenizers import Tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def padded(rows: list[list[int]], value: int = PAD) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal by five Newton-Schulz iterations (Jordan 2024).

    torch.optim.Muon iterates in bfloat16, which is ten times slower than float32 on most CPUs.
    """

    def __init__(self, matrices, lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                x = p.grad.lerp(momentum, 0.95)
                x = (x.T if len(x) > len(x.T) else x) / (x.norm() + 1e-7)
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
                x = x.T if len(p) > len(p.T) else x
                p.mul_(1 - 0.02 * group["lr"]).add_(
                    x, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5
                )


def optimisers(model: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else."""
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and "transformer.layer" in n]
    others = [p for n, p in named if not (p.ndim == 2 and "transformer.layer" in n)]
    return [
        Muon(matrices, lr),
        torch.optim.AdamW(others, lr=lr, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def fit(
    model: Any, steps: Sequence[Any], optims: list[torch.optim.Optimizer],
    loss_of: Callable[[Any], Any], kept: Path | None = None,
) -> None:  # fmt: skip
    """Warm up over a twentieth of the steps, then lower the rates linearly to zero.

    Where training stands is written to kept every 100 steps, and gone on from.
    """
    done = 0
    if kept and kept.exists():
        state = torch.load(kept)
        done = state["done"]
        model.load_state_dict(state["model"])
        torch.set_rng_state(state["random"])
        for optim, saved in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
    model.train()
    began, shown = time.time(), []
    for step in range(done, len(steps)):
        for optim in optims:
            for group in optim.param_groups:
                part = step / len(steps)
                group["lr"] = optim.defaults["lr"] * min(1, part * 20 + 0.01, (1 - part) / 0.95)
        loss = loss_of(steps[step])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        shown.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == len(steps):
            seconds = time.time() - began
            print(f"{step + 1}/{len(steps)} loss {np.mean(shown):.3f} {seconds:.0f} s", flush=True)
            shown = []
            if kept:
                state = {"done": step + 1, "model": model.state_dict()}
                state |= {"random": torch.get_rng_state()}
                torch.save(state | {"optims": [optim.state_dict() for optim in optims]}, kept)
    model.eval()


def save(model: Any, tokenizer: Tokenizer, folder: Path, **config: Any) -> None:
    """Write a folder as transformers lays it out, weights in float16, tied weights once."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.to(torch.float16).contiguous()
        for name, value in sorted(model.state_dict().items())
        if name != "vocab_projector.weight"
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors hides what it writes
    fields = {
        "architectures": [type(model).__name__], "model_type": "distilbert",
        "activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1, "seq_classif_dropout": 0.1,
        "initializer_range": 0.02, "torch_dtype": "float16", "tie_weights_": True, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "model_max_length": 256,
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
