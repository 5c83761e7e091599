"""Distils the built-in embedding model from what teacher.py has recorded.

    python golden/train/train_embedding.py TEACHER RECORDED [--epochs 2 0]

The student starts as a table: each of its pieces is what the teacher says of that piece alone,
reduced to the student's width, and weighted by how rare it is.  The table learns, without any
block, the teacher's embeddings, and how alike the teacher finds the texts of a batch; that takes a
few minutes of one core.  Then all of the student learns the same, for as many epochs as the second
number says.  What ships has none of those: one or two, of five minutes each, made it no better.
RECORDED/student.pt is written after every epoch and gone on from; the folder npbert/demo/embedding
at the end.  Needs torch and transformers.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from corpus import DEMO, PAD, SEED
from safetensors.torch import save_file
from teacher import Teacher, recorded
from tokenizers import Tokenizer
from torch.nn import functional
from train import SPECIALS, Muon
from transformers import DistilBertConfig, DistilBertModel

PIECES = 7500
SHAPE = {
    "vocab_size": PIECES, "max_position_embeddings": 256, "dim": 192, "n_layers": 2, "n_heads": 6,
    "hidden_dim": 32, "pad_token_id": PAD,
}  # fmt: skip
CONTENT = 190  # features that mean something; two are constant, see start_of
TOGETHER = 32  # texts of about equal length
SPREAD = 0.15  # of weights, so that scores and what GELU sees are about 1
GROUP, GROUPS = 8, 24  # texts that are neighbours, and how many of such groups a batch has
WINDOW = 8192  # texts among which neighbours are looked for
LONG = 48  # pieces; longer texts have batches of their own, which are smaller
HELD_OUT = 2048  # texts at the start that are only measured on
RATE, TABLE_RATE = 2e-3, 3e-3


# ---- the start: pieces, and a table of them ------------------------------------------------------


def choose_pieces(given: list[str], teacher: Tokenizer, count: int) -> tuple[list[str], list[int]]:
    """Return the pieces of the teacher that the texts need most, and how often they are used."""
    counts: Counter[int] = Counter()
    for encoding in teacher.encode_batch_fast(given, add_special_tokens=False):
        counts.update(encoding.ids)
    number = {teacher.id_to_token(i): n for i, n in counts.items()}
    letters = {p: n for p, n in number.items() if len(p.removeprefix("##")) == 1 and p.isascii()}
    for piece in SPECIALS:
        letters.pop(piece, None)
        number.pop(piece, None)
    kept = dict(letters)
    for piece, n in sorted(number.items(), key=lambda item: -item[1]):
        if len(kept) < count - len(SPECIALS):
            kept.setdefault(piece, n)
    ordered = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
    return SPECIALS + [p for p, _ in ordered], [0] * len(SPECIALS) + [n for _, n in ordered]


def make_tokenizer(teacher: Tokenizer, pieces: list[str]) -> Tokenizer:
    """Return the teacher's tokenizer with fewer pieces."""
    description = json.loads(teacher.to_str())
    description["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    ids = {token: pieces.index(token) for token in SPECIALS}
    for token in description["added_tokens"]:
        token["id"] = ids[token["content"]]
    for token, entry in description["post_processor"].get("special_tokens", {}).items():
        entry["ids"] = [ids[token]]
    for name in ("cls", "sep"):
        if name in description["post_processor"]:
            token = description["post_processor"][name][0]
            description["post_processor"][name] = [token, ids[token]]
    return Tokenizer.from_str(json.dumps(description))


def project(embeddings: np.ndarray) -> np.ndarray:
    """Return (teacher's width, CONTENT): the directions that keep most, turned at random.

    Nothing is centred, as cosines shall stay what they are.
    """
    sample = embeddings[:100_000].astype(np.float32)
    _, vectors = np.linalg.eigh(sample.T @ sample)
    turned, _ = np.linalg.qr(np.random.default_rng(SEED).normal(size=(CONTENT, CONTENT)))
    return (vectors[:, -CONTENT:] @ turned).astype(np.float32)


def start_of(
    teacher: Teacher, pieces: list[str], counts: list[int], projection: np.ndarray
) -> DistilBertModel:
    """Return a student that is a table of pieces.

    LayerNorm would make all pieces equally long, whatever their weight; two features of +1 and -1
    keep its divisor nearly constant, and the last LayerNorm drops them.  Blocks add almost nothing,
    but what they are about to add is far from linear: were it linear, a table could do it as well.
    """
    model = DistilBertModel(DistilBertConfig(**SHAPE, dropout=0.0, attention_dropout=0.0))
    vocabulary = teacher.tokenizer.get_vocab()
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    alone = teacher.embed_ids([[cls, vocabulary[p], sep] for p in pieces]) @ projection
    share = np.array(counts) / sum(counts)
    table = np.zeros((len(pieces), SHAPE["dim"]), np.float32)
    table[:, :CONTENT] = alone * (1e-3 / (1e-3 + share))[:, None]
    table[: len(SPECIALS), :CONTENT] = 0
    table[:, CONTENT:] = 1, -1
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(torch.from_numpy(table))
        model.embeddings.position_embeddings.weight.zero_()
        for block in model.transformer.layer:
            attention, ffn = block.attention, block.ffn
            for linear in (attention.q_lin, attention.k_lin, attention.v_lin, ffn.lin1):
                linear.weight.normal_(0, SPREAD)
                linear.weight[:, CONTENT:] = 0
            for linear in (attention.out_lin, ffn.lin2):
                linear.weight.mul_(0.05)
                linear.weight[CONTENT:] = 0
        block.output_layer_norm.weight[CONTENT:] = 0
    return model


# ---- learning ------------------------------------------------------------------------------------


def embed(model: DistilBertModel, rows: list[np.ndarray], blocks: bool = True) -> torch.Tensor:
    """Return embeddings (rows, width) of length 1, computed for rows of about equal length at once.

    Without blocks the student is its table, and what comes of it a mean.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = [order[i : i + TOGETHER] for i in range(0, len(order), TOGETHER)]
    found = torch.cat([embed_equal(model, [rows[i] for i in part], blocks) for part in parts])
    return functional.normalize(found)[torch.tensor(order).argsort()]


def embed_equal(model: DistilBertModel, rows: list[np.ndarray], blocks: bool) -> torch.Tensor:
    """Return the sums (rows, width) of the last hidden states; DistilBertModel's, but quicker."""
    ids = np.full((len(rows), len(rows[-1])), PAD, np.int64)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)] = row
    there = torch.from_numpy(ids != PAD)
    table, heads = model.embeddings, SHAPE["n_heads"]
    x = table.word_embeddings(torch.from_numpy(ids))
    x = table.LayerNorm(x + table.position_embeddings.weight[: ids.shape[1]])
    if not blocks:
        x = x * model.transformer.layer[-1].output_layer_norm.weight
    away = (~there).float()[:, None, None] * -1e9
    for block in model.transformer.layer if blocks else ():
        linears = block.attention.q_lin, block.attention.k_lin, block.attention.v_lin
        weight = torch.cat([linear.weight for linear in linears])
        both = functional.linear(x, weight, torch.cat([linear.bias for linear in linears]))
        q, k, v = both.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) * (SHAPE["dim"] // heads) ** -0.5
        context = (scores + away).softmax(3) @ v
        context = block.attention.out_lin(context.transpose(1, 2).flatten(2))
        x = block.sa_layer_norm(x + context)
        x = block.output_layer_norm(x + block.ffn.lin2(functional.gelu(block.ffn.lin1(x))))
    return (x * there[..., None]).sum(1)


def batches(
    rows: list[np.ndarray], targets: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the texts of one epoch, in batches that hold groups of neighbours.

    Of texts drawn at random nearly all are unlike; what tells a good student is how it ranks those
    that are alike.  Two that follow each other, a caption and its change, stay together.
    """
    lengths = np.array([len(row) for row in rows])
    order = (rng.permutation(len(rows) // 2)[:, None] * 2 + [0, 1]).ravel()
    windows = []
    for size, some in ((GROUPS, lengths <= LONG), (GROUPS // 4, lengths > LONG)):
        kept = order[some[order]]
        windows += [(size, kept[i : i + WINDOW]) for i in range(0, len(kept), WINDOW)]
    for number in rng.permutation(len(windows)):
        size, window = windows[number]
        groups = neighbours(window, targets[window].astype(np.float32), rng)
        for first in range(0, len(groups), size):
            yield np.concatenate(groups[first : first + size])


def neighbours(
    texts: np.ndarray, targets: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return the texts in groups of GROUP: one drawn at random, and those nearest to it."""
    likeness = targets @ targets.T
    free, groups = np.ones(len(texts), bool), []
    for i in rng.permutation(len(texts)):
        if free[i]:
            row = np.where(free, likeness[i], -2)
            near = np.argpartition(-row, min(GROUP, len(row)) - 1)[:GROUP]
            near = near[free[near]]
            free[near] = False
            groups.append(texts[near])
    return [groups[i] for i in rng.permutation(len(groups))]


def loss_of(student: torch.Tensor, teacher: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    """How far from the teacher's embeddings, and from how alike it finds two texts."""
    wanted = functional.normalize(teacher @ projection)
    straight = 1 - (student[:, :CONTENT] * wanted).sum(1).mean()
    likeness = teacher @ teacher.T
    wrong = (student @ student.T - likeness).square()
    return straight + 10 * (wrong * (1 + 30 * likeness.square())).mean()


def optimisers(model: DistilBertModel, stage: int) -> list[torch.optim.Optimizer]:
    """Return what moves the table in the first stage, and all in the second."""
    table = [*model.embeddings.parameters()]
    if not stage:
        return [torch.optim.Adam(table, TABLE_RATE, (0.9, 0.98))]
    blocks = [*model.transformer.parameters()]
    return [
        Muon([p for p in blocks if p.ndim == 2], RATE),
        torch.optim.Adam(table + [p for p in blocks if p.ndim < 2], RATE / 4, (0.9, 0.98)),
    ]


def set_rates(optims: list[torch.optim.Optimizer], done: float) -> None:
    """Warm up over a fiftieth of a stage, and go down to zero over its last four fifths."""
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = optim.defaults["lr"] * min(1, 0.01 + done * 50, max(0, 1 - done) / 0.8)


def measured(
    model: DistilBertModel, rows: list[np.ndarray], targets: np.ndarray, blocks: bool = True
) -> float:
    """Return 100 times the rank correlation of student's and teacher's likeness of neighbours."""
    with torch.no_grad():
        mine = embed(model, rows, blocks)
    mine, theirs = mine.numpy(), targets.astype(np.float32)
    likeness = theirs @ theirs.T
    np.fill_diagonal(likeness, -2)
    near = np.argsort(-likeness, axis=1)[:, :20:4]
    a = np.arange(len(rows)).repeat(near.shape[1])
    pairs = (mine[a] * mine[near.ravel()]).sum(1), likeness[a, near.ravel()]
    ranks = [np.argsort(np.argsort(p)) for p in pairs]
    return float(np.corrcoef(*ranks)[0, 1]) * 100


def save(model: DistilBertModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder of sentence-transformers, with weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: p.half().contiguous() for n, p in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {"architectures": ["DistilBertModel"], "model_type": "distilbert", **SHAPE}
    config |= {"activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1}
    config |= {"initializer_range": 0.02, "torch_dtype": "float16"}
    tokens = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")}
    tokens = {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True} | tokens
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": f"{i}", "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    written = {
        "config.json": config, "modules.json": modules,
        "tokenizer_config.json": tokens | {"model_max_length": 256},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": SHAPE["dim"], "pooling_mode_mean_tokens": True
        },
    }  # fmt: skip
    for name, content in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def main() -> None:
    """Start or go on, and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher", type=Path)
    parser.add_argument("recorded", type=Path)
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 0), help="table, all")
    parser.add_argument("--out", type=Path, default=DEMO / "embedding")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    given, targets = recorded(args.recorded)
    projection = project(targets)
    kept, teacher = args.recorded / "student.pt", Teacher(args.teacher)
    origin = Tokenizer.from_file(str(args.teacher / "tokenizer.json"))
    origin.no_truncation()
    origin.no_padding()
    pieces, counts = choose_pieces(recorded(args.recorded, "[0-9]*.npy")[0], origin, PIECES)
    tokenizer = make_tokenizer(origin, pieces)
    model = start_of(teacher, pieces, counts, projection)
    encoded = tokenizer.encode_batch_fast(given)
    rows = [np.array(e.ids[:256], np.uint16) for e in encoded]
    held = rows[:HELD_OUT], targets[:HELD_OUT]
    rows, targets = rows[HELD_OUT:], targets[HELD_OUT:]
    print(f"{len(rows):,} texts, {np.mean([len(r) for r in rows]):.1f} pieces", flush=True)
    state = {"model": model.state_dict(), "done": [0, 0]}
    if kept.exists():
        state = torch.load(kept)
        model.load_state_dict(state["model"])
    turned = torch.from_numpy(projection)
    print(f"held out: {measured(model, *held):.2f}", flush=True)
    for stage, epochs in enumerate(args.epochs):
        optims = optimisers(model, stage)
        for epoch in range(state["done"][stage], epochs):
            for optim, saved in zip(optims, state["optims"] if epoch else (), strict=bool(epoch)):
                optim.load_state_dict(saved)
            began, seen, losses = time.time(), 0, []
            for batch in batches(rows, targets, np.random.default_rng([SEED, stage, epoch])):
                set_rates(optims, (epoch + seen / len(rows)) / epochs)
                wanted = torch.from_numpy(targets[batch].astype(np.float32))
                student = embed(model, [rows[i] for i in batch], bool(stage))
                loss = loss_of(student, wanted, turned)
                loss.backward()
                for optim in optims:
                    optim.step()
                    optim.zero_grad(set_to_none=True)
                losses.append(loss.item())
                seen += len(batch)
            state["done"][stage] = epoch + 1
            state |= {"model": model.state_dict(), "optims": [o.state_dict() for o in optims]}
            torch.save(state, kept)
            print(
                f"stage {stage}, epoch {epoch + 1}: {time.time() - began:.0f} s, loss "
                f"{np.mean(losses):.4f}, held out {measured(model, *held, bool(stage)):.2f}",
                flush=True,
            )
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
