"""Records what a teacher says of the sentences of sentences.py, once, for training students.

    python golden/train/teacher.py DATA TEACHER RECORDED [--texts 65536] [--captions 49152]

TEACHER is the folder of sentence-transformers/all-MiniLM-L6-v2.  RECORDED/00000.npy is the first
4,096 texts' embeddings (4096, 384) float16, 00000.txt those texts, one a line, 00001.npy the next,
and so on, and those of captions in c00000.npy; a second call goes on where the first ended.  Needs
torch and transformers; a CPU core does 100 to 200 texts a second.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from sentences import captions, texts
from transformers import AutoModel, AutoTokenizer

CHUNK = 4096
BATCH = 64
LENGTH = 256


class Teacher:
    """The mean of all pieces, made 1 long."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(self, given: list[str]) -> np.ndarray:
        """Return embeddings (texts, width) float32."""
        ids = self.tokenizer(given, truncation=True, max_length=LENGTH)["input_ids"]
        return self.embed_ids(ids)

    @torch.inference_mode()
    def embed_ids(self, ids: list[list[int]]) -> np.ndarray:
        """Return embeddings (texts, width) float32 of pieces."""
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.empty((len(ids), self.model.config.hidden_size), np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            width = max(len(ids[i]) for i in rows)
            padded = torch.tensor([ids[i] + [0] * (width - len(ids[i])) for i in rows])
            mask = torch.tensor([[1] * len(ids[i]) + [0] * (width - len(ids[i])) for i in rows])
            hidden = self.model(padded, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[rows] = torch.nn.functional.normalize(mean).numpy()
        return out


def recorded(folder: Path, pattern: str = "*.npy") -> tuple[list[str], np.ndarray]:
    """Return the texts that are done, and their embeddings (texts, width) float16."""
    paths = sorted(folder.glob(pattern))
    lines = [path.with_suffix(".txt").read_text("utf-8").splitlines() for path in paths]
    return [text for chunk in lines for text in chunk], np.concatenate([*map(np.load, paths)])


def main() -> None:
    """Record chunk after chunk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("recorded", type=Path)
    parser.add_argument("--texts", type=int, default=65_536)
    parser.add_argument("--captions", type=int, default=49_152)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.recorded.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(args.teacher)
    for mark, made, count in (("", texts, args.texts), ("c", captions, args.captions)):
        given = made(args.data)
        for number in range(count // CHUNK):
            chunk = list(islice(given, CHUNK))
            path = args.recorded / f"{mark}{number:05}.npy"
            if path.exists():
                continue
            path.with_suffix(".txt").write_text("".join(f"{text}\n" for text in chunk), "utf-8")
            draft = path.with_suffix(".draft")
            with draft.open("wb") as file:
                np.save(file, teacher.embed(chunk).astype(np.float16))
            draft.rename(path)
            print(f"{path.name}: {len(chunk):,} texts", flush=True)


if __name__ == "__main__":
    main()
