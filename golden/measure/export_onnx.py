"""Exports a model to ONNX, for `npbert bench --against onnxruntime --onnx FILE`.

    python golden/measure/export_onnx.py FOLDER OUT.onnx

FOLDER is what npbert's model.save or transformers' save_pretrained wrote: a base model, one for
sequence classification or one for masked words.  Numbers stay float32; batch and length are free,
and all token types are 0.
Needs `torch==2.13.0 transformers==4.57.* onnx onnxscript`; then asks onnxruntime, if it is there,
whether the export answers as torch does.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers

KINDS = ("Model", "ForSequenceClassification", "ForMaskedLM")
EXPORTED = [family + kind for family in ("DistilBert", "Bert") for kind in KINDS]
INPUTS = ("input_ids", "attention_mask")


class Plain(torch.nn.Module):
    """A model that takes arrays and returns one: logits, or the last hidden state."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]


def example(batch: int, length: int, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random ids and a mask that hides the end of the last sequence."""
    ids = torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[-1, length // 2 :] = 0
    return ids, mask


def export(folder: Path, out: Path) -> Plain:
    config = transformers.AutoConfig.from_pretrained(folder)
    (name,) = config.architectures
    if name not in EXPORTED:
        raise SystemExit(f"{folder}: is a {name}, expected one of {', '.join(EXPORTED)}")
    kind = getattr(transformers, name)
    plain = Plain(kind.from_pretrained(folder, attn_implementation="eager")).eval()
    free = {0: "batch", 1: "length"}
    with torch.inference_mode():
        torch.onnx.export(
            plain,
            example(2, min(16, config.max_position_embeddings - 1), config.vocab_size),
            out,
            input_names=INPUTS,
            output_names=["last_hidden_state" if name.endswith(KINDS[0]) else "logits"],
            dynamic_shapes=dict.fromkeys(INPUTS, free),
            dynamo=True,
            verbose=False,
            external_data=False,  # one file: all these weights fit under protobuf's 2 GB
        )
    return plain


def check(plain: Plain, out: Path, config: transformers.PretrainedConfig) -> float:
    """Return how far the export is from torch, relative to the greatest number, at worst."""
    import onnxruntime

    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch, length in ((1, 5), (3, config.max_position_embeddings)):
        given = example(batch, length, config.vocab_size)
        feeds = {name: x.numpy() for name, x in zip(INPUTS, given, strict=True)}
        (answer,) = session.run(None, feeds)
        with torch.inference_mode():
            expected = plain(*given)
        far = (torch.from_numpy(answer) - expected).abs().max() / expected.abs().max()
        worst = max(worst, far.item())
    return worst


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    folder, out = map(Path, sys.argv[1:])
    plain = export(folder, out)
    print(f"{out}: {out.stat().st_size / 1e6:,.0f} MB")
    if find_spec("onnxruntime"):
        worst = check(plain, out, plain.model.config)
        print(f"onnxruntime is within {worst:.1e} of torch")
        if worst > 1e-4:
            raise SystemExit(f"{out}: this is not the same model")
