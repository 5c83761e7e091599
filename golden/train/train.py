"""Trains npbert/demo/fill-mask: a vocabulary, then masked-language modelling.

    python golden/train/train.py DATA

teach.py, train_sentiment.py and train_ner.py make two more of the checkpoints that ship;
golden/measure/model_cards.py then measures the three, and writes cards.
teacher.py and train_embedding.py make the fourth, golden/measure/embedding.py its card.
DATA holds text/*.md, text/wikitext-2.valid, sst2/sent_train.tsv and sst2/alps_train.tsv.
Needs torch 2.13 and transformers 4.57.  Two CPU cores take about an hour.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import torch
from corpus import CLS, DEMO, EPOCHS, MASK, PAD, SEED, SEP
from safetensors.torch import save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch.nn.functional import cross_entropy
from transformers import DistilBertConfig, DistilBertForMaskedLM

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHAPE = {
    "vocab_size": 8000, "max_position_embeddings": 256, "dim": 192, "n_layers": 3, "n_heads": 6,
    "hidden_dim": 768, "pad_token_id": PAD,
}  # fmt: skip
RATE = 2e-3


def padded(rows: list[list[int]], value: int = PAD) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A lower-casing WordPiece of 8,000 pieces, laid out as DistilBERT's own tokenizer is."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=8000, special_tokens=SPECIALS, show_progress=False, limit_alphabet=120
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


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


def masked(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's corruption: of 15 % of the pieces, 80 % become [MASK], 10 % another, 10 % stay."""
    chosen = (torch.rand(ids.shape) < 0.15) & (ids > MASK)
    dice = torch.rand(ids.shape)
    corrupt = torch.where(chosen & (dice < 0.8), MASK, ids)
    corrupt = torch.where(chosen & (dice > 0.9), torch.randint(5, 8000, ids.shape), corrupt)
    return corrupt, chosen


def at_masks(model: DistilBertForMaskedLM, ids: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    hidden = model.distilbert(ids, attention_mask=(ids != PAD).long())[0][chosen]
    return model.vocab_projector(
        model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
    )


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
        "architectures": [type(model).__name__], "model_type": "distilbert", **SHAPE,
        "activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1, "seq_classif_dropout": 0.1,
        "initializer_range": 0.02, "torch_dtype": "float16", "tie_weights_": True, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "model_max_length": 256,
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def model_language(
    model: DistilBertForMaskedLM, paragraphs: list[list[str]], tokenizer: Tokenizer, epochs: int,
    rate: float, rng: random.Random, short: Sequence[list[int]] = (),
) -> None:  # fmt: skip
    """Masked-language modelling on paragraphs, each a list of sentences, and on short rows."""
    pieces = iter(corpus.in_pieces([s for sentences in paragraphs for s in sentences], tokenizer))
    cut = [[next(pieces) for _ in sentences] for sentences in paragraphs]
    steps = []
    for _ in range(epochs):  # each epoch cuts the prose anew
        rows = corpus.chunks(cut, rng) + list(short)
        steps += [[rows[i] for i in batch] for batch in corpus.batches(list(map(len, rows)), rng)]
    print(len(steps), "steps,", sum(len(r) for s in steps for r in s), "tokens", flush=True)

    def loss_of(rows: list[list[int]]) -> torch.Tensor:
        ids = padded(rows)
        corrupt, chosen = masked(ids)
        return cross_entropy(at_masks(model, corrupt, chosen), ids[chosen])

    fit(model, steps, optimisers(model, rate), loss_of)


def fill_mask(data: Path) -> None:
    """Pretrain: a vocabulary of its own, then masked-language modelling."""
    rng = random.Random(SEED)
    train, _ = corpus.prose(data)
    known = [text for text, _ in corpus.reviews(data)[0] if len(text.split()) >= 6]
    tokenizer = train_tokenizer(train + known)
    config = DistilBertConfig(**SHAPE, dropout=0.0, attention_dropout=0.0)
    model = DistilBertForMaskedLM(config)
    split = [corpus.sentences_of(paragraph) for paragraph in train]
    short = [[CLS, *ids[:254], SEP] for ids in corpus.in_pieces(known, tokenizer)]
    model_language(model, split, tokenizer, EPOCHS["fill-mask"], RATE, rng, short)
    save(model, tokenizer, DEMO / "fill-mask")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}  # so that it serves for embeddings too
    modules = [
        {"idx": i, "name": str(i), "path": under, "type": f"sentence_transformers.models.{kind}"}
        for i, (under, kind) in enumerate(kinds.items())
    ]
    pooling = {"word_embedding_dimension": SHAPE["dim"], "pooling_mode_mean_tokens": True}
    (DEMO / "fill-mask" / "1_Pooling").mkdir(exist_ok=True)
    for name, content in (("modules.json", modules), ("1_Pooling/config.json", pooling)):
        (DEMO / "fill-mask" / name).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    fill_mask(Path(sys.argv[1]))
