"""Runs one case of one model in transformers 4.57, and keeps every named activation.

Nothing is recomputed here: every number was an argument or a result of transformers' own modules.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from cases import BLOCKS, HEADS, POSITIONS, TYPES, VOCAB, Case, generator
from torch.overrides import TorchFunctionMode
from transformers import BertConfig, DistilBertConfig, PretrainedConfig, PreTrainedModel

Arrays = dict[str, np.ndarray]

OPINIONS = {0: "very-bad", 1: "bad", 2: "so-so", 3: "good", 4: "very-good"}
ENTITIES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-DATE-TIME", 4: "I-DATE-TIME"}

OPINION_NAMES = {"id2label": OPINIONS, "label2id": {v: k for k, v in OPINIONS.items()}}
ENTITY_NAMES = {"id2label": ENTITIES, "label2id": {v: k for k, v in ENTITIES.items()}}

# folder: (class, what its configuration adds to the common sizes)
FOLDERS: dict[str, tuple[str, dict[str, object]]] = {
    "DistilBertModel": ("DistilBertModel", {}),
    "DistilBertForMaskedLM": ("DistilBertForMaskedLM", {}),
    "DistilBertForSequenceClassification": ("DistilBertForSequenceClassification", OPINION_NAMES),
    "DistilBertForTokenClassification": ("DistilBertForTokenClassification", ENTITY_NAMES),
    "DistilBertForQuestionAnswering": ("DistilBertForQuestionAnswering", {"num_labels": 2}),
    "DistilBertForMultipleChoice": ("DistilBertForMultipleChoice", {"num_labels": 1}),
    "pruned": ("DistilBertModel", {}),
    "sinusoidal": ("DistilBertModel", {"sinusoidal_pos_embds": True}),
    "BertModel": ("BertModel", {}),
    "BertForMaskedLM": ("BertForMaskedLM", {}),
    "BertForSequenceClassification": ("BertForSequenceClassification", OPINION_NAMES),
    "BertForTokenClassification": ("BertForTokenClassification", ENTITY_NAMES),
    "BertForQuestionAnswering": ("BertForQuestionAnswering", {"num_labels": 2}),
    "BertForMultipleChoice": ("BertForMultipleChoice", {"num_labels": 1}),
    "BertForNextSentencePrediction": ("BertForNextSentencePrediction", {}),
    "BertForPreTraining": ("BertForPreTraining", {}),
    "bert_pruned": ("BertModel", {}),
}
PRUNED = {0: [1], 2: [0, 2]}

# The standard deviation of a matrix's entries. Soft queries and keys keep attention off 0 and 1;
# lin1 and vocab_transform reach far beyond +-10, where clipped activations part from the others.
SCALES = {
    "q_lin": 0.35, "k_lin": 0.35, "lin1": 1.5, "lin2": 0.3, "vocab_transform": 1.2,
    "self.query": 0.35, "self.key": 0.35, "intermediate.dense": 1.5, "output.dense": 0.3,
    "transform.dense": 1.2,
}  # fmt: skip


class Names(NamedTuple):
    """What a family calls what its modules do not return, rows of a batch outside."""

    prefix: str
    attention: str  # the module of a block in which scores are made
    of_inputs: dict[str, str]  # what goes into a module, the longest end first
    pooled: str | None  # what goes into the last layer behind a pooler
    last_norm: str  # of a block
    config: type[PretrainedConfig]
    sizes: tuple[str, ...]  # what config calls the width, the blocks, the heads, the inner width
    more: dict[str, object]


FAMILIES = {
    "DistilBert": Names(
        "distilbert.",
        "transformer.layer.{i}.attention",
        {
            "embeddings.LayerNorm": "embeddings.sum",
            "attention.out_lin": "attention.context",
            "sa_layer_norm": "attention_residual",
            "ffn.lin2": "ffn.activation",
            "output_layer_norm": "ffn_residual",
            "vocab_layer_norm": "vocab_activation",
        },
        "pooled",
        "transformer.layer.{i}.output_layer_norm",
        DistilBertConfig,
        ("dim", "n_layers", "n_heads", "hidden_dim"),
        {},
    ),
    "Bert": Names(
        "bert.",
        "encoder.layer.{i}.attention.self",
        {
            "embeddings.LayerNorm": "embeddings.sum",
            "attention.output.dense": "attention.self.context",
            "attention.output.LayerNorm": "attention.output.residual",
            "output.dense": "intermediate.intermediate_act_fn",
            "output.LayerNorm": "output.residual",
            "transform.LayerNorm": "transform.transform_act_fn",
        },
        None,
        "encoder.layer.{i}.output.LayerNorm",
        BertConfig,
        ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        {"type_vocab_size": TYPES, "layer_norm_eps": 4e-3},
    ),
}


def names_of(folder: Path) -> Names:
    """The names of a folder's family."""
    return FAMILIES["Bert" if FOLDERS[folder.name][0].startswith("Bert") else "DistilBert"]


# ---- models -----------------------------------------------------------------------------------


def drawn(folder: str, name: str, shape: torch.Size) -> torch.Tensor:
    """A parameter, drawn by name: transformers' own zeros and ones would hide most faults."""
    noise = generator(folder, name).standard_normal(tuple(shape))
    path = name.rpartition(".")[0]
    module = path.rpartition(".")[2]
    if len(shape) == 2:
        noise *= next((scale for end, scale in SCALES.items() if path.endswith(end)), 0.6)
    else:
        noise = 0.3 * noise + (module.lower().endswith("norm") and name.endswith("weight"))
    return torch.from_numpy(noise.astype(np.float32))


def save_model(folder: Path) -> None:
    """Write config.json and model.safetensors the way transformers does."""
    class_name, fields = FOLDERS[folder.name]
    names = names_of(folder)
    sizes = dict(zip(names.sizes, (24, BLOCKS, HEADS, 40), strict=True))
    config = names.config(
        vocab_size=VOCAB, max_position_embeddings=POSITIONS, **sizes, **names.more, **fields
    )
    model = getattr(transformers, class_name)(config)
    for name, parameter in model.named_parameters():
        parameter.data = drawn(folder.name, name, parameter.shape)
    if folder.name in ("pruned", "bert_pruned"):
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

    def __init__(self, kept: dict[str, torch.Tensor], names: Names) -> None:
        super().__init__()
        self.kept = kept
        self.names = names
        self.block = 0
        self.quotient = torch.zeros(0)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = self.names.attention.format(i=self.block)
        if func is torch.Tensor.masked_fill:  # once in a block of DistilBERT, nowhere else
            self.kept[f"{name}.scores"] = args[0].clone()
            self.kept[f"{name}.masked_scores"] = result.clone()
            self.block += 1
        elif func in (torch.Tensor.__truediv__, torch.Tensor.div):  # by the root of the width
            self.quotient = result.clone()
        elif func is torch.nn.functional.softmax and self.names.prefix == "bert.":
            self.kept[f"{name}.scores"] = self.quotient
            self.kept[f"{name}.masked_scores"] = args[0].clone()
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
    position = 2  # where BERT's blocks pass it
    mask = kwargs["head_mask"] if "head_mask" in kwargs else args[position]
    if mask is not None:
        kept = mask[:, [h for h in range(HEADS) if h not in module.pruned_heads]]
        if "head_mask" in kwargs:
            kwargs["head_mask"] = kept
        else:
            args = (*args[:position], kept, *args[position + 1 :])
    return args, kwargs


def attach(model: PreTrainedModel, kept: dict[str, torch.Tensor], names: Names) -> None:
    """Make matrices, tables and norms report what they return and, where it has a name, receive."""
    pooling = hasattr(model, "pre_classifier")
    reporting = (torch.nn.Linear, torch.nn.Embedding, torch.nn.LayerNorm, torch.nn.Tanh)
    for path, module in model.named_modules():
        name = path.removeprefix(names.prefix)
        if name.endswith("attention"):
            module.register_forward_pre_hook(narrow, with_kwargs=True)
        if isinstance(module, reporting):
            also = names.pooled if pooling and name == "classifier" else None
            for end, input_name in names.of_inputs.items():
                if also is None and name.endswith(end):
                    also = name.removesuffix(end) + input_name
            module.register_forward_hook(partial(keep, kept, name, also))


def arguments(model: PreTrainedModel, inputs: Arrays) -> dict[str, torch.Tensor]:
    """The case's inputs under transformers' names; positions, which it does not take, go inside."""
    given = {name: torch.from_numpy(x) for name, x in inputs.items()}
    if "position_ids" in given and isinstance(model.config, DistilBertConfig):
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
    model, names = load_model(folder, **case.config), names_of(folder)
    kept: dict[str, torch.Tensor] = {}
    attach(model, kept, names)
    given = arguments(model, case.inputs)
    with torch.no_grad(), float64_by_default(), Watch(kept, names):
        out = model(**given, output_hidden_states=True, output_attentions=True)
    for i, weights in enumerate(out.attentions):
        kept[f"{names.attention.format(i=i)}.weights"] = weights
    kept |= {name: x for name, x in out.items() if name.endswith("logits")}
    positions = "embeddings.position_embeddings"
    kept[positions] = kept[positions].expand_as(kept["embeddings.sum"])
    norms = [names.last_norm.format(i=i) for i in range(BLOCKS)]
    for x, name in zip(out.hidden_states, ["embeddings.LayerNorm", *norms], strict=True):
        assert torch.equal(x, kept[name]), f"hidden states have no names of their own: {name}"
    return {name: x.numpy().copy() for name, x in sorted(kept.items())}
