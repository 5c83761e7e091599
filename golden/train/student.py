"""What the students have in common: a shape, pieces of the teacher, and a table to start from."""

import numpy as np
import torch
from corpus import PAD
from tokenizers import Tokenizer
from train_embedding import choose_pieces, make_tokenizer
from transformers import DistilBertModel

PIECES = 5000
SHAPE = {
    "vocab_size": PIECES, "max_position_embeddings": 256, "dim": 192, "n_layers": 2, "n_heads": 6,
    "hidden_dim": 512, "pad_token_id": PAD,
}  # fmt: skip
TABLE_SPREAD, POSITION_SPREAD = 0.3, 0.05  # LayerNorm makes them 1; the rates see them as they are


def start_tokenizer(texts: list[str], teacher: Tokenizer) -> Tokenizer:
    """Return the teacher's tokenizer with those PIECES that the texts need most."""
    teacher.no_truncation()
    teacher.no_padding()
    pieces, _ = choose_pieces(texts, teacher, PIECES)
    return make_tokenizer(teacher, pieces)


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
