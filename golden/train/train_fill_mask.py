"""Trains npbert/demo/fill-mask by masked-language modelling.

    python golden/train/train_fill_mask.py DATA MINILM KEPT

It starts with the embeddings of those pieces of sentence-transformers/all-MiniLM-L6-v2 (folder
MINILM) that its texts need most, reduced to 192 directions, and with random blocks.  A fifth of the
words is hidden, all pieces of a word at once, since whole words are what people ask for.
KEPT/fill-mask.pt is written every 100 steps and gone on from.  golden/measure/model_cards.py then
measures the model and writes its card.  Needs torch 2.13 and transformers 4.57.  A core takes two
hours.
"""

import argparse
import json
import random
from pathlib import Path

import corpus
import numpy as np
import torch
from corpus import BESIDE, DEMO, EPOCHS, MASK, PAD, SEED, UNK
from student import SHAPE, start_table, start_tokenizer
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from train import fit, optimisers, padded, save
from transformers import AutoModel, DistilBertConfig, DistilBertForMaskedLM

PIECES = 6500
SHAPE = SHAPE | {"vocab_size": PIECES, "hidden_dim": 768}
RATE = 2e-3
TOKENS = 4096  # in a batch
HIDDEN = 0.2  # of the words


def hide(rows: list[list[int]], goes_on: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids (rows, tokens) and which of them to hide: whole words, HIDDEN of them.

    goes_on tells of each piece whether it continues a word.
    """
    ids = padded(rows)
    numbers = ids.numpy()
    first = ~goes_on[numbers]
    word = np.cumsum(first.ravel()) - 1
    hidden = torch.rand(int(word[-1]) + 1).numpy() < HIDDEN
    chosen = hidden[word].reshape(numbers.shape) & (numbers > MASK)
    return ids, torch.from_numpy(chosen)


def predict(model: DistilBertForMaskedLM, ids: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return logits (hidden pieces, vocabulary); nine of ten hidden pieces are seen as [MASK]."""
    dice = torch.rand(ids.shape)
    seen = torch.where(chosen & (dice < 0.9), MASK, ids)
    hidden = model.distilbert(seen, attention_mask=(ids != PAD).long())[0][chosen]
    return model.vocab_projector(
        model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
    )


def other_texts(data: Path) -> dict[str, list[str]]:
    """Return the sentences of the files of BESIDE that share no six words with what is held out."""
    held = [s for paragraph in corpus.prose(data)[1] for s in corpus.sentences_of(paragraph)]
    held += [text for text, _ in corpus.reviews(data)[1]]
    allowed = corpus.apart_from(held)
    rng = random.Random(SEED)
    epochs = EPOCHS["fill-mask"][0]
    found = {}
    for name, count in BESIDE.items():
        given = corpus.sentences_in(data / "corpus" / f"{name}.txt.gz", 5, 40)
        some = rng.sample(given, min(len(given), count * epochs))
        found[name] = [text for text in some if allowed(text)]
        print(f"{name}: {len(found[name]):,} sentences", flush=True)
    return found


def train(data: Path, minilm: Path, kept: Path) -> tuple[DistilBertForMaskedLM, Tokenizer]:
    """Return the trained model and its tokenizer."""
    rng = random.Random(SEED)
    prose, _ = corpus.prose(data)
    known = [text for text, _ in corpus.reviews(data)[0] if len(text.split()) >= 6]
    others = other_texts(data)
    origin = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer = start_tokenizer(prose + 2 * known, origin, PIECES)
    model = DistilBertForMaskedLM(DistilBertConfig(**SHAPE, dropout=0.0, attention_dropout=0.0))
    teacher = AutoModel.from_pretrained(minilm)
    start_table(model.distilbert, tokenizer, teacher, origin.get_vocab())
    split = [corpus.sentences_of(paragraph) for paragraph in prose]
    pieces = iter(corpus.in_pieces([s for sentences in split for s in sentences], tokenizer))
    cut = [[next(pieces) for _ in sentences] for sentences in split]
    short = corpus.alone(corpus.in_pieces(known, tokenizer))
    added = {n: corpus.alone(corpus.in_pieces(t, tokenizer)) for n, t in others.items()}
    steps = []
    for epoch in range(sum(EPOCHS["fill-mask"])):
        rows = corpus.chunks(cut, rng) + short
        if epoch < EPOCHS["fill-mask"][0]:
            for some in added.values():
                rows += some[epoch :: EPOCHS["fill-mask"][0]]
        rows = [row for row in rows if row.count(UNK) < 3]
        made = corpus.batches(list(map(len, rows)), rng, TOKENS)
        steps += [[rows[i] for i in batch] for batch in made]
    print(f"{sum(len(r) for s in steps for r in s):,} tokens", flush=True)
    names = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    goes_on = np.array([piece.startswith("##") for piece, _ in names])

    def loss_of(rows: list[list[int]]) -> torch.Tensor:
        ids, chosen = hide(rows, goes_on)
        return cross_entropy(predict(model, ids, chosen), ids[chosen])

    fit(model, steps, optimisers(model, RATE), loss_of, kept / "fill-mask.pt")
    return model, tokenizer


def main() -> None:
    """Train and write the folder, which serves for embeddings too."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data", "minilm", "kept"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--out", type=Path, default=DEMO / "fill-mask")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    args.kept.mkdir(parents=True, exist_ok=True)
    model, tokenizer = train(args.data, args.minilm, args.kept)
    save(model, tokenizer, args.out, **SHAPE)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": under, "type": f"sentence_transformers.models.{kind}"}
        for i, (under, kind) in enumerate(kinds.items())
    ]
    pooling = {"word_embedding_dimension": SHAPE["dim"], "pooling_mode_mean_tokens": True}
    (args.out / "1_Pooling").mkdir(exist_ok=True)
    for name, content in (("modules.json", modules), ("1_Pooling/config.json", pooling)):
        (args.out / name).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
