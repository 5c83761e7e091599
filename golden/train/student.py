"""What the students have in common: a shape, pieces of the teacher, and something to start from.

fill-mask starts with its teacher's table of pieces, sentiment and ner start with fill-mask.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import DEMO, PAD, SEED
from tokenizers import Tokenizer
from train import fit, optimisers, save
from train_embedding import choose_pieces, make_tokenizer
from transformers import DistilBertModel

SHAPE = {
    "max_position_embeddings": 256, "dim": 192, "n_layers": 2, "n_heads": 6,
    "hidden_dim": 512, "pad_token_id": PAD,
}  # fmt: skip
RATE = 1e-3
TABLE_SPREAD, POSITION_SPREAD = 0.3, 0.05  # LayerNorm makes them 1; the rates see them as they are


def start_tokenizer(
    texts: list[str], origin: Tokenizer, count: int, marks: Sequence[str] = ()
) -> Tokenizer:
    """Return a tokenizer with so many of its pieces, those that texts need most, and with marks."""
    origin.no_truncation()
    origin.no_padding()
    pieces, _ = choose_pieces(texts, origin, count - len(marks))
    return make_tokenizer(origin, [*pieces, *marks])


@torch.no_grad()
def start_table(
    encoder: DistilBertModel, tokenizer: Tokenizer, teacher: torch.nn.Module, pieces: dict[str, int]
) -> None:
    """Give an encoder the strongest directions of its teacher's embeddings of its pieces.

    pieces are those of the teacher.  What is left is scaled; positions start near zero.
    """
    embeddings = teacher.embeddings
    known = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    rows = torch.tensor([pieces[piece] for piece, _ in known])
    table = embeddings.word_embeddings.weight[rows] + embeddings.token_type_embeddings.weight[0]
    table = embeddings.LayerNorm(table + embeddings.position_embeddings.weight[:64].mean(0)).numpy()
    table = table - table.mean(0)
    _, values, directions = np.linalg.svd(table, full_matrices=False)
    width = SHAPE["dim"]
    print(f"table keeps {(values[:width] ** 2).sum() / (values**2).sum():.0%} of the teacher's")
    random = np.random.default_rng(width).normal(size=(width, width))
    table = table @ directions[:width].T @ np.linalg.qr(random)[0]
    table *= TABLE_SPREAD / table.std()
    encoder.embeddings.word_embeddings.weight.copy_(torch.from_numpy(table))
    encoder.embeddings.position_embeddings.weight.normal_(0, POSITION_SPREAD)


@torch.no_grad()
def start_from(encoder: DistilBertModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Give an encoder a pretrained one's rows of its pieces, and those units that count.

    A unit of a block's ffn counts as much as its weights are long.  A piece that the pretrained
    encoder has not stays as it is.
    """
    pretrained = DistilBertModel.from_pretrained(folder, dtype=torch.float32)
    known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    found = {row: known[piece] for piece, row in tokenizer.get_vocab().items() if piece in known}
    mine, theirs = encoder.embeddings, pretrained.embeddings
    table = mine.word_embeddings.weight
    table.mul_(theirs.word_embeddings.weight.std() / table.std())
    table[list(found)] = theirs.word_embeddings.weight[list(found.values())]
    mine.position_embeddings.load_state_dict(theirs.position_embeddings.state_dict())
    mine.LayerNorm.load_state_dict(theirs.LayerNorm.state_dict())
    for block, other in zip(encoder.transformer.layer, pretrained.transformer.layer, strict=True):
        enters, leaves = other.ffn.lin1, other.ffn.lin2
        length = enters.weight.norm(dim=1) * leaves.weight.norm(dim=0)
        kept = length.topk(len(block.ffn.lin1.weight)).indices.sort().values
        state = other.state_dict()
        state |= {"ffn.lin1.weight": enters.weight[kept], "ffn.lin1.bias": enters.bias[kept]}
        block.load_state_dict(state | {"ffn.lin2.weight": leaves.weight[:, kept]})


def distil(
    model: Any, matrix: torch.nn.Linear, steps: list[Any], loss_of: Callable[[Any], torch.Tensor],
    kept: Path,
) -> None:  # fmt: skip
    """Train a student, and the matrix that takes its hidden states to the teacher's."""
    optims = optimisers(model, RATE)
    optims[1].add_param_group({"params": list(matrix.parameters())})
    fit(torch.nn.ModuleList([model, matrix]), steps, optims, loss_of, kept)


def run(
    train: Callable[[Path, Path], tuple[Any, Tokenizer]], description: str, name: str, **config: Any
) -> None:
    """Train a student as the command line asks, and write its folder."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for each in ("data", "kept"):
        parser.add_argument(each, type=Path)
    parser.add_argument("--out", type=Path, default=DEMO / name)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model, tokenizer = train(args.data, args.kept)
    save(model, tokenizer, args.out, **config)
