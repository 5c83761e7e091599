"""Trains the checkpoints that ship in npbert/demo, from a folder of texts and labelled sentences.

    python golden/train/train.py DATA fill-mask      a vocabulary, then masked-language modelling
    python golden/train/train.py DATA sentiment      fine-tunes the encoder of fill-mask

train_ner.py trains the third; golden/measure/model_cards.py then measures all, and writes cards.
teacher.py and train_embedding.py make the fourth, golden/measure/embedding.py its card.
DATA holds text/*.md, text/wikitext-2.valid, sst2/sent_train.tsv and sst2/alps_train.tsv.
Needs torch 2.13 and transformers 4.57.  Two CPU cores take about an hour in all.
"""

import argparse
import json
import random
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
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
)

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
SHAPE = {
    "vocab_size": 8000, "max_position_embeddings": 256, "dim": 192, "n_layers": 3, "n_heads": 6,
    "hidden_dim": 768, "pad_token_id": PAD,
}  # fmt: skip
RATES = {"fill-mask": 2e-3, "sentiment": 5e-4}


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


def fit(model: Any, steps: Sequence[Any], rate: float, loss_of: Callable[[Any], Any]) -> None:
    """Warm up over a twentieth of the steps, then lower the rate linearly to zero."""
    optims = optimisers(model, rate)
    model.train()
    began, shown = time.time(), []
    for step, batch in enumerate(steps):
        for optim in optims:
            for group in optim.param_groups:
                done = step / len(steps)
                group["lr"] = rate * min(1, done * 20 + 0.01, (1 - done) / 0.95)
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        shown.append(loss.item())
        if step % 100 == 99:
            seconds = time.time() - began
            print(f"{step + 1}/{len(steps)} loss {np.mean(shown):.3f} {seconds:.0f} s", flush=True)
            shown = []
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

    fit(model, steps, rate, loss_of)


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
    model_language(model, split, tokenizer, EPOCHS["fill-mask"], RATES["fill-mask"], rng, short)
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


def sentiment(data: Path) -> None:
    """Fine-tune the pretrained encoder on review sentences and their phrases."""
    rng = random.Random(SEED)
    train, _ = corpus.reviews(data)
    tokenizer = Tokenizer.from_file(str(DEMO / "fill-mask" / "tokenizer.json"))
    model = DistilBertForSequenceClassification(DistilBertConfig(**SHAPE, **LABELS))
    pretrained = DistilBertForMaskedLM.from_pretrained(DEMO / "fill-mask", dtype=torch.float32)
    model.distilbert.load_state_dict(pretrained.distilbert.state_dict())
    rows = [e.ids for e in tokenizer.encode_batch([text for text, _ in train])]
    lengths = list(map(len, rows))
    steps = [b for _ in range(EPOCHS["sentiment"]) for b in corpus.batches(lengths, rng)]

    def loss_of(batch: list[int]) -> torch.Tensor:
        ids = padded([rows[i] for i in batch])
        logits = model(ids, attention_mask=(ids != PAD).long()).logits
        labels = torch.tensor([train[i][1] for i in batch])
        return cross_entropy(logits, labels, label_smoothing=0.05)

    fit(model, steps, RATES["sentiment"], loss_of)
    save(model, tokenizer, DEMO / "sentiment", **LABELS)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("stage", choices=["fill-mask", "sentiment"])
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    {"fill-mask": fill_mask, "sentiment": sentiment}[args.stage](args.data)


if __name__ == "__main__":
    main()
