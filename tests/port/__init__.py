"""DistilBERT once more, as somebody would port it from PyTorch, and the mistakes they could make.

It shares no line with npbert, and its layout is the other one: (batch, length, features).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FAULTS = {
    # the checkpoint is read wrongly
    "biases dropped": "no linear map and no norm adds its bias",
    "out_lin bias dropped": "the attention's output projection adds no bias",
    "k_lin bias dropped": "the keys get no bias, which no later number shows",
    "norm gains ignored": "every norm takes 1 for its gain",
    "norm biases ignored": "every norm takes 0 for its bias",
    "q and k swapped": "the query weights make keys, the key weights queries",
    "norms swapped": "sa_layer_norm and output_layer_norm change places",
    "out_lin transposed": "a square matrix is laid the other way, and still fits",
    "first block repeated": "all blocks take the weights of the first",
    "last block skipped": "the last block hands on what the one before it gave",
    # embeddings
    "positions shifted by 2": "positions count from 2, as RoBERTa's do",
    "position ids ignored": "positions are 0, 1, 2 ... whatever the caller says",
    "embedding norm missing": "the sum of the embeddings goes unnormed into the first block",
    "word embeddings scaled": "word vectors are multiplied by the root of the width",
    # norms and residuals
    "epsilon 1e-5": "norms add PyTorch's usual 1e-5 rather than 1e-12",
    "unbiased variance": "norms divide the squares by n - 1",
    "residual missing": "the attention's input is not added to its output",
    "residual doubled": "the attention's input is added twice",
    "norm before residual": "the output is normed first, and the input added then",
    # attention
    "scale missing": "scores are not divided by the root of the head's width",
    "scale of the model": "scores are divided by the root of the model's width",
    "softmax over queries": "each key's weights sum to 1, rather than each query's",
    "heads split as (K, H)": "the features of the heads are taken to be interleaved",
    "heads merged untransposed": "(heads, length) is reshaped as if it were (length, heads)",
    "mask ignored": "every key takes part",
    "mask inverted": "the keys that should take part do not",
    "mask added as 0 and 1": "the mask is added to the scores as it is",
    "mask of -1e4": "masked scores have 10000 subtracted: a fully masked row keeps its order",
    "mask of minus infinity": "a fully masked row has no numbers",
    "mask on queries": "masked tokens do not ask, but are asked",
    "head mask ignored": "every head takes part",
    "head mask before softmax": "scores are multiplied by the head mask, weights are not",
    # activations and heads
    "gelu by tanh": "the approximation that GPT-2 uses",
    "gelu by sigmoid": "the quick approximation, x sigmoid(1.702 x)",
    "relu for gelu": "the original Transformer's activation",
    "pooler of tanh": "the pooled state is a tanh, as BERT's is",
    "pooler on the last token": "the last token stands for the sequence, rather than the first",
    "vocab activation missing": "masked language modelling goes from transform to norm",
    "vocab norm missing": "masked language modelling goes from activation to projection",
    "start and end swapped": "the first column is taken for the ends of the answers",
    "choices flattened first": "sequences are sorted by choice, then by example",
    "choices gathered first": "logits are gathered as if sequences were sorted by choice",
}

ARCHITECTURES = (
    "DistilBertModel",
    "DistilBertForMaskedLM",
    "DistilBertForSequenceClassification",
    "DistilBertForTokenClassification",
    "DistilBertForQuestionAnswering",
    "DistilBertForMultipleChoice",
)


def run(
    weights: Mapping[str, Array],
    config: Mapping[str, Any],
    architecture: str,
    inputs: Mapping[str, Array],
    fault: str | None = None,
) -> dict[str, Array]:
    """Every named activation in float64, rows outside, with one of the FAULTS if asked."""
    if architecture not in ARCHITECTURES or config["activation"] != "gelu":
        raise ValueError(f"this port knows no {architecture} of {config['activation']}")
    if fault not in (None, *FAULTS):
        raise ValueError(f"unknown fault {fault!r}")
    return Port(weights, config, fault or "")(architecture, inputs)


class Port:
    """One forward pass, and what it kept on the way."""

    def __init__(self, weights: Mapping[str, Array], config: Mapping[str, Any], fault: str) -> None:
        self.weights = {n.removeprefix("distilbert."): w.astype(float) for n, w in weights.items()}
        self.blocks, self.heads = config["n_layers"], config["n_heads"]
        self.fault = fault
        self.kept: dict[str, Array] = {}

    def __call__(self, architecture: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        leading = inputs["input_ids"].shape[:-1]  # (batch,) or (batch, choices)
        ids = self.flat(inputs["input_ids"])
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        if "position_ids" in inputs and self.fault != "position ids ignored":
            positions = np.broadcast_to(self.flat(inputs["position_ids"]), ids.shape)
        mask = self.flat(inputs["attention_mask"]) if "attention_mask" in inputs else ids * 0 + 1
        head_mask = inputs.get("attention_head_mask", np.ones((self.blocks, self.heads)))

        x = self.embeddings(ids, positions)
        for i in range(self.blocks):
            if self.fault == "last block skipped" and 0 < i == self.blocks - 1:
                self.repeat_block(i - 1)
            else:
                x = self.block(f"transformer.layer.{i}", x, mask, head_mask[i])

        match architecture:
            case "DistilBertForMaskedLM":
                self.keep("logits", self.masked_language(x))
            case "DistilBertForSequenceClassification":
                self.keep("logits", self.classify_sequence(x))
            case "DistilBertForMultipleChoice":
                self.keep("logits", self.gathered(self.classify_sequence(x), leading))
            case "DistilBertForTokenClassification":
                self.keep("logits", self.linear("classifier", x))
            case "DistilBertForQuestionAnswering":
                columns = self.linear("qa_outputs", x)
                start, end = (1, 0) if self.fault == "start and end swapped" else (0, 1)
                self.keep("start_logits", columns[..., start])
                self.keep("end_logits", columns[..., end])
        return self.kept

    def keep(self, name: str, x: Array) -> Array:
        self.kept[name] = x
        return x

    # the encoder

    def embeddings(self, ids: Array, positions: Array) -> Array:
        words = self.weight("embeddings.word_embeddings.weight")[ids]
        if self.fault == "word embeddings scaled":
            words = words * math.sqrt(words.shape[-1])
        places = self.weight("embeddings.position_embeddings.weight")
        if self.fault == "positions shifted by 2":
            positions = (positions + 2) % len(places)
        word = self.keep("embeddings.word_embeddings", words)
        place = self.keep("embeddings.position_embeddings", places[positions])
        return self.layer_norm("embeddings.LayerNorm", self.keep("embeddings.sum", word + place))

    def block(self, name: str, x: Array, mask: Array, head_mask: Array) -> Array:
        y = self.attention(f"{name}.attention", x, mask, head_mask)
        residual = {"residual missing": 0, "residual doubled": 2}.get(self.fault, 1) * x
        x = self.add_norm(f"{name}.attention_residual", f"{name}.sa_layer_norm", y, residual)
        h = self.linear(f"{name}.ffn.lin1", x)
        y = self.linear(f"{name}.ffn.lin2", self.keep(f"{name}.ffn.activation", self.gelu(h)))
        return self.add_norm(f"{name}.ffn_residual", f"{name}.output_layer_norm", y, x)

    def repeat_block(self, i: int) -> None:
        """Keep the numbers of block i for block i + 1 too."""
        before, after = f"transformer.layer.{i}.", f"transformer.layer.{i + 1}."
        self.kept |= {n.replace(before, after): x for n, x in self.kept.items() if before in n}

    def attention(self, name: str, x: Array, mask: Array, head_mask: Array) -> Array:
        q, k, v = (self.split(self.linear(f"{name}.{part}_lin", x)) for part in "qkv")
        widths = {"scale missing": 1, "scale of the model": x.shape[-1]}
        width = widths[self.fault] if self.fault in widths else q.shape[-1]
        scores = self.keep(f"{name}.scores", q / math.sqrt(width) @ k.transpose(0, 1, 3, 2))
        if self.fault == "head mask before softmax":
            scores = scores * head_mask[:, None, None]
        scores = self.keep(f"{name}.masked_scores", self.masked(scores, mask))
        weights = softmax(scores, axis=-2 if self.fault == "softmax over queries" else -1)
        if self.fault not in ("head mask ignored", "head mask before softmax"):
            weights = weights * head_mask[:, None, None]
        weights = self.keep(f"{name}.weights", weights)
        context = self.keep(f"{name}.context", self.merge(weights @ v))
        return self.linear(f"{name}.out_lin", context)

    def split(self, x: Array) -> Array:
        """(batch, length, heads * width) -> (batch, heads, length, width)."""
        if self.fault == "heads split as (K, H)":
            return x.reshape(*x.shape[:2], -1, self.heads).transpose(0, 3, 1, 2)
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def merge(self, x: Array) -> Array:
        """(batch, heads, length, width) -> (batch, length, heads * width)."""
        batch, _, length, _ = x.shape
        if self.fault != "heads merged untransposed":
            x = x.transpose(0, 2, 1, 3)
        return x.reshape(batch, length, -1)

    def masked(self, scores: Array, mask: Array) -> Array:
        """The scores of the keys that take part, and the smallest number for the others."""
        keys, queries = mask[:, None, None, :], mask[:, None, :, None]
        least = np.finfo(scores.dtype).min
        mistakes = {
            "mask ignored": scores,
            "mask inverted": np.where(keys == 0, scores, least),
            "mask added as 0 and 1": scores + keys,
            "mask of -1e4": np.where(keys != 0, scores, scores - 1e4),
            "mask of minus infinity": np.where(keys != 0, scores, -np.inf),
            "mask on queries": np.where(queries != 0, scores, least),
        }
        return mistakes.get(self.fault, np.where(keys != 0, scores, least))

    # the heads

    def masked_language(self, x: Array) -> Array:
        x = self.linear("vocab_transform", x)
        if self.fault != "vocab activation missing":
            x = self.gelu(x)
        x = self.layer_norm("vocab_layer_norm", self.keep("vocab_activation", x))
        return self.linear("vocab_projector", x)

    def classify_sequence(self, x: Array) -> Array:
        x = x[:, -1 if self.fault == "pooler on the last token" else 0]
        x = self.linear("pre_classifier", x)
        pooled = np.tanh(x) if self.fault == "pooler of tanh" else np.maximum(x, 0)
        return self.linear("classifier", self.keep("pooled", pooled))

    def flat(self, x: Array) -> Array:
        """(batch, choices, length) -> (batch * choices, length); (batch, length) stays."""
        if x.ndim == 3 and self.fault == "choices flattened first":
            x = x.transpose(1, 0, 2)
        return x.reshape(-1, x.shape[-1])

    def gathered(self, logits: Array, leading: tuple[int, ...]) -> Array:
        """(batch * choices, 1) -> (batch, choices)."""
        is_wrong = self.fault == "choices gathered first"
        return logits.reshape(leading[::-1]).T if is_wrong else logits.reshape(leading)

    # the parts

    def weight(self, name: str) -> Array:
        """One tensor of the checkpoint, or what was mistaken for it."""
        swaps = {
            "q and k swapped": ("q_lin", "k_lin"),
            "norms swapped": ("sa_layer_norm", "output_layer_norm"),
        }
        one, other = swaps.get(self.fault, ("", ""))
        parts = [{one: other, other: one}.get(part, part) for part in name.split(".")]
        if self.fault == "first block repeated" and parts[0] == "transformer":
            parts[2] = "0"
        name = ".".join(parts)
        if name == "vocab_projector.weight" and name not in self.weights:
            name = "embeddings.word_embeddings.weight"
        w = self.weights[name]
        is_bias, is_norm = name.endswith(".bias"), "norm." in name.lower()
        is_zero = {
            "biases dropped": is_bias,
            "out_lin bias dropped": name.endswith("out_lin.bias"),
            "k_lin bias dropped": name.endswith("k_lin.bias"),
            "norm biases ignored": is_norm and is_bias,
        }
        if is_zero.get(self.fault, False):
            return np.zeros_like(w)
        if self.fault == "norm gains ignored" and is_norm and not is_bias:
            return np.ones_like(w)
        if self.fault == "out_lin transposed" and name.endswith("out_lin.weight"):
            return w.T
        return w

    def linear(self, name: str, x: Array) -> Array:
        return self.keep(name, x @ self.weight(f"{name}.weight").T + self.weight(f"{name}.bias"))

    def layer_norm(self, name: str, x: Array) -> Array:
        missing = {
            "embedding norm missing": "embeddings.LayerNorm",
            "vocab norm missing": "vocab_layer_norm",
        }
        if missing.get(self.fault) == name:
            return self.keep(name, x)
        epsilon = 1e-5 if self.fault == "epsilon 1e-5" else 1e-12
        n_less = 1 if self.fault == "unbiased variance" else 0
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, ddof=n_less, keepdims=True)
        x = (x - mean) / np.sqrt(variance + epsilon)
        return self.keep(name, x * self.weight(f"{name}.weight") + self.weight(f"{name}.bias"))

    def add_norm(self, sum_name: str, norm_name: str, y: Array, x: Array) -> Array:
        if self.fault == "norm before residual":
            return self.keep(norm_name, self.keep(sum_name, self.layer_norm(norm_name, y) + x))
        return self.layer_norm(norm_name, self.keep(sum_name, y + x))

    def gelu(self, x: Array) -> Array:
        match self.fault:
            case "gelu by tanh":
                return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            case "gelu by sigmoid":
                return x / (1 + np.exp(-1.702 * x))
            case "relu for gelu":
                return np.maximum(x, 0)
            case _:
                return 0.5 * x * (1 + erf(x / math.sqrt(2)))


erf = np.vectorize(math.erf, otypes=[np.float64])


def softmax(scores: Array, axis: int) -> Array:
    with np.errstate(invalid="ignore"):  # minus infinity less itself, where a fault wants it
        powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)
