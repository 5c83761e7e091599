"""Runs one case of one model in transformers 4.57, and keeps every named activation.

Nothing is recomputed here: every number was an argument or a result of transformers' own modules.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from cases import BLOCKS, HEADS, POSITIONS, VOCAB, Case, generator
from torch.overrides import TorchFunctionMode
from transformers import DistilBertConfig, PreTrainedModel

Arrays = dict[str, np.ndarray]

OPINIONS = {0: "very-bad", 1: "bad", 2: "so-so", 3: "good", 4: "very-good"}
ENTITIES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-DATE-TIME", 4: "I-DATE-TIME"}

# folder: (class, what its configuration adds to the common sizes)
FOLDERS: dict[str, tuple[str, dict[str, object]]] = {
    "DistilBertModel": ("DistilBertModel", {}),
    "DistilBertForMaskedLM": ("DistilBertForMaskedLM", {}),
    "DistilBertForSequenceClassification": (
        "DistilBertForSequenceClassification",
        {"id2label": OPINIONS, "label2id": {v: k for k, v in OPINIONS.items()}},
    ),
    "DistilBertForTokenClassification": (
        "DistilBertForTokenClassification",
        {"id2label": ENTITIES, "label2id": {v: k for k, v in ENTITIES.items()}},
    ),
    "DistilBertForQuestionAnswering": ("DistilBertForQuestionAnswering", {"num_labels": 2}),
    "DistilBertForMultipleChoice": ("DistilBertForMultipleChoice", {"num_labels": 1}),
    "pruned": ("DistilBertModel", {}),
    "sinusoidal": ("DistilBertModel", {"sinusoidal_pos_embds": True}),
}
PRUNED = {0: [1], 2: [0, 2]}

# The standard deviation of a matrix's entries. Soft queries and keys keep attention off 0 and 1;
# lin1 and vocab_transform reach far beyond +-10, where clipped activations part from the others.
SCALES = {"q_lin": 0.35, "k_lin": 0.35, "lin1": 1.5, "lin2": 0.3, "vocab_transform": 1.2}

# What goes into a module is the activation of this name.
NAMES_OF_INPUTS = {
    "embeddings.LayerNorm": "embeddings.sum",
    "attention.out_lin": "attention.context",
    "sa_layer_norm": "attention_residual",
    "ffn.lin2": "ffn.activation",
    "output_layer_norm": "ffn_residual",
    "vocab_layer_norm": "vocab_activation",
}


# ---- models -----------------------------------------------------------------------------------


def drawn(folder: str, name: str, shape: torch.Size) -> torch.Tensor:
    """A parameter, drawn by name: transformers' own zeros and ones would hide most faults."""
    noise = generator(folder, name).standard_normal(tuple(shape))
    module = name.split(".")[-2]
    if len(shape) == 2:
        noise *= SCALES.get(module, 0.6)
    else:
        noise = 0.3 * noise + (module.lower().endswith("norm") and name.endswith("weight"))
    return torch.from_numpy(noise.astype(np.float32))


def save_model(folder: Path) -> None:
    """Write config.json and model.safetensors the way transformers does."""
    class_name, fields = FOLDERS[folder.name]
    config = DistilBertConfig(
        vocab_size=VOCAB, max_position_embeddings=POSITIONS, dim=24, n_layers=BLOCKS, n_heads=HEADS,
        hidden_dim=40, **fields,
    )  # fmt: skip
    model = getattr(transformers, class_name)(config)
    for name, parameter in model.named_parameters():
        parameter.data = drawn(folder.name, name, parameter.shape)
    if folder.name == "pruned":
        model.prune_heads(PRUNED)
    state = model.state_dict()
    if folder.name == "sinusoidal":
        del state["embeddings.position_embeddings.weight"]
    model.save_pretrained(folder, state_dict=state)


def load_model(folder: Path, **overrides: object) -> PreTrainedModel:
    cls = getattr(transformers, FOLDERS[folder.name][0])
    model = cls.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", **overrides
    )
    return model.eval()


# ---- one case ---------------------------------------------------------------------------------


class Watch(TorchFunctionMode):
    """Keeps what attention never hands out: the scores before and after masked_fill."""

    def __init__(self, kept: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.kept = kept
        self.block = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.masked_fill:  # once in a block, nowhere else
            name = f"transformer.layer.{self.block}.attention"
            self.kept[f"{name}.scores"] = args[0].clone()
            self.kept[f"{name}.masked_scores"] = result.clone()
            self.block += 1
        return result


def keep(
    kept: dict[str, torch.Tensor],
    name: str,
    also: str | None,
    _module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> None:
    """A forward hook: keep a module's result, and its argument where that has a name."""
    kept[name] = output.clone()
    if also:
        kept[also] = inputs[0].clone()


def narrow(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A forward hook: of the head mask, give attention the columns of the heads that it still has.

    transformers 4.57 itself fails on such masks, or broadcasts them when a single head is left.
    """
    mask, gone = kwargs["head_mask"], module.pruned_heads
    if mask is not None:
        kwargs["head_mask"] = mask[:, [h for h in range(HEADS) if h not in gone]]
    return args, kwargs


def attach(model: PreTrainedModel, kept: dict[str, torch.Tensor]) -> None:
    """Make matrices, tables and norms report what they return and, where it has a name, receive."""
    pooling = hasattr(model, "pre_classifier")
    for path, module in model.named_modules():
        name = path.removeprefix("distilbert.")
        if name.endswith("attention"):
            module.register_forward_pre_hook(narrow, with_kwargs=True)
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding | torch.nn.LayerNorm):
            also = "pooled" if pooling and name == "classifier" else None
            for end, input_name in NAMES_OF_INPUTS.items():
                if name.endswith(end):
                    also = name.removesuffix(end) + input_name
            module.register_forward_hook(partial(keep, kept, name, also))


def arguments(model: PreTrainedModel, inputs: Arrays) -> dict[str, torch.Tensor]:
    """The case's inputs under transformers' names; positions, which it does not take, go inside."""
    given = {name: torch.from_numpy(x) for name, x in inputs.items()}
    if "position_ids" in given:
        positions = given.pop("position_ids")
        model.base_model.embeddings.position_ids = positions.reshape(-1, positions.shape[-1])
    if "attention_head_mask" in given:
        given["head_mask"] = given.pop("attention_head_mask")
    return given


@contextmanager
def float64_by_default() -> Iterator[None]:
    """Keep the mask value finite.

    Attention makes finfo(float64).min a tensor of torch's default type: in float32 it is -inf, and
    fully masked rows are NaN.
    """
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def record(folder: Path, case: Case) -> Arrays:
    """Run a case and return every named activation."""
    model = load_model(folder, **case.config)
    kept: dict[str, torch.Tensor] = {}
    attach(model, kept)
    given = arguments(model, case.inputs)
    with torch.no_grad(), float64_by_default(), Watch(kept):
        out = model(**given, output_hidden_states=True, output_attentions=True)
    for i, weights in enumerate(out.attentions):
        kept[f"transformer.layer.{i}.attention.weights"] = weights
    kept |= {name: x for name, x in out.items() if name.endswith("logits")}
    positions = "embeddings.position_embeddings"
    kept[positions] = kept[positions].expand_as(kept["embeddings.sum"])
    norms = [f"transformer.layer.{i}.output_layer_norm" for i in range(BLOCKS)]
    for x, name in zip(out.hidden_states, ["embeddings.LayerNorm", *norms], strict=True):
        assert torch.equal(x, kept[name]), f"hidden states have no names of their own: {name}"
    return {name: x.numpy().copy() for name, x in sorted(kept.items())}
