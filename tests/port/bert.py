"""BERT, as somebody would port it from PyTorch's source, and the mistakes that only BERT can have.

It shares no line with npbert, nor with the port of DistilBERT beside it: it reads the file's own
names, lays rows outside, and tells every value under the name that a forward hook hears it by.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NSP, MLM, CLASSES, BASE = (
    "BertForNextSentencePrediction",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertModel",
)
ALL = (NSP, MLM, CLASSES, BASE)
POOLED = (NSP, CLASSES, BASE)
# A mistake: what it is called when it is found, and in which classes it can be made.
FAULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    # token types
    "types are 0": ("the token types are ignored: all are 0", ALL),
    "types are 1": ("all token types are 1", ALL),
    "types swapped": ("token types 0 and 1 have changed places", ALL),
    "types from 1": ("token types count from 1", ALL),
    "types missing": ("the token type embeddings are missing", ALL),
    "types twice": ("the token type embeddings are added twice", ALL),
    "types behind the norm": (
        "the token type embeddings are added behind the norm, not before it", ALL,
    ),
    "positions missing": ("the position embeddings are missing", ALL),
    # the epsilon, which is the config's
    "epsilon 1e-12": ("epsilon 1e-12, in every norm", ALL),
    "epsilon 1e-5": ("epsilon 1e-05, in every norm", ALL),
    "epsilon 1e-12 in embeddings": ("embeddings.LayerNorm: epsilon 1e-12", ALL),
    "epsilon 1e-12 in the head": ("cls.predictions.transform.LayerNorm: epsilon 1e-12", (MLM,)),
    "norms swapped": (
        "attention.output.LayerNorm and output.LayerNorm have changed places", (CLASSES,),
    ),
    # the pooler
    "pooler of relu": ("the pooler's function is relu, not tanh", POOLED),
    "pooler of gelu": ("the pooler's function is gelu, not tanh", POOLED),
    "pooler of nothing": ("the pooler's function is no function at all, not tanh", POOLED),
    "pooler on the last token": ("the last token is pooled, not the first", POOLED),
    "pooler on the second token": ("the second token is pooled, not the first", POOLED),
    "pooler on the mean": ("the mean of all tokens is pooled, not the first", POOLED),
    "pooler bias dropped": ("pooler.dense: bias missing", POOLED),
    "pooler transposed": ("pooler.dense: weights transposed", POOLED),
    "pooler skipped": (
        "the classifier reads the first token without pooler.dense", (NSP, CLASSES),
    ),
    # the heads
    "vocabulary bias dropped": ("cls.predictions.decoder: bias missing", (MLM,)),
    "next sentence swapped": (
        "the logits of the next sentence have changed places: the first says that it follows",
        (NSP,),
    ),
    "next sentence swapped at last": (
        "the logits of the next sentence have changed places: the first says that it follows",
        (NSP,),
    ),
    "next sentence bias dropped": ("cls.seq_relationship: bias missing", (NSP,)),
}  # fmt: skip


class BertPort:
    """One forward pass, and what hooks would have heard on the way."""

    def __init__(self, tensors: Mapping[str, Array], config: Mapping[str, Any], fault: str) -> None:
        self.tensors = {name.removeprefix("bert."): w.astype(float) for name, w in tensors.items()}
        self.config, self.fault = config, fault
        self.heard: dict[str, Array] = {}

    def __call__(self, architecture: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        ids = inputs["input_ids"]
        x = self.embed(ids, inputs.get("token_type_ids", np.zeros_like(ids)))
        keep = inputs.get("attention_mask", np.ones_like(ids))[:, None, None, :] != 0
        for i in range(self.config["num_hidden_layers"]):
            x = self.layer(f"encoder.layer.{i}", x, keep)
        prefix = "" if architecture == BASE else "bert."
        self.heard = {prefix + name: value for name, value in self.heard.items()}
        if architecture == MLM:
            self.predict(x)
            return self.heard
        pooled = self.pool(x, prefix)
        if architecture == BASE:
            self.heard["pooler_output"] = pooled
            return self.heard
        name = "cls.seq_relationship" if architecture == NSP else "classifier"
        logits = self.dense(name, pooled)
        if self.fault == "next sentence swapped":
            logits = self.hear(name, logits[:, ::-1])
        at_last = self.fault == "next sentence swapped at last"
        self.hear("logits", logits[:, ::-1] if at_last else logits)
        return self.heard

    def hear(self, name: str, x: Array) -> Array:
        self.heard[name] = x
        return x

    def embed(self, ids: Array, types: Array) -> Array:
        words = self.tensors["embeddings.word_embeddings.weight"][ids]
        places = self.tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
        places = np.broadcast_to(places, words.shape)
        table = self.tensors["embeddings.token_type_embeddings.weight"]
        match self.fault:
            case "types are 0":
                types = np.zeros_like(types)
            case "types are 1":
                types = np.ones_like(types)
            case "types swapped":
                types = np.array([1, 0, *range(2, len(table))])[types]
            case "types from 1":
                types = (types + 1) % len(table)
        kinds = self.hear("embeddings.token_type_embeddings", table[types])
        self.hear("embeddings.word_embeddings", words)
        self.hear("embeddings.position_embeddings", places)
        times = {"types missing": 0, "types twice": 2, "types behind the norm": 0}
        total = words + times.get(self.fault, 1) * kinds
        total = total if self.fault == "positions missing" else total + places
        x = self.norm("embeddings.LayerNorm", self.hear("embeddings.sum", total))
        if self.fault == "types behind the norm":
            x = self.hear("embeddings.LayerNorm", x + kinds)
        return x

    def layer(self, name: str, x: Array, keep: Array) -> Array:
        own = f"{name}.attention.self"
        batch, length, _ = x.shape
        heads = self.config["num_attention_heads"]

        def split(part: str) -> Array:
            return self.dense(f"{own}.{part}", x).reshape(batch, length, heads, -1).swapaxes(1, 2)

        q, k, v = map(split, ("query", "key", "value"))
        scores = np.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
        scores = np.where(keep, scores, np.finfo(np.float32).min)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = self.hear(f"{own}.weights", weights / weights.sum(-1, keepdims=True))
        context = np.einsum("bhqk,bhkd->bqhd", weights, v).reshape(batch, length, -1)
        self.hear(f"{own}.context", context)
        y = self.dense(f"{name}.attention.output.dense", context)
        x = self.norm(f"{name}.attention.output.LayerNorm", x + y)
        h = self.activation(self.dense(f"{name}.intermediate.dense", x))
        self.hear(f"{name}.intermediate.intermediate_act_fn", h)
        y = self.dense(f"{name}.output.dense", h)
        return self.norm(f"{name}.output.LayerNorm", x + y)

    def pool(self, x: Array, prefix: str) -> Array:
        first = {
            "pooler on the last token": x[:, -1],
            "pooler on the second token": x[:, min(1, x.shape[1] - 1)],
            "pooler on the mean": x.mean(1),
        }.get(self.fault, x[:, 0])
        if self.fault == "pooler skipped":
            return first
        h = first @ self.weight("pooler.dense").T + self.bias("pooler.dense")
        self.hear(f"{prefix}pooler.dense", h)
        match self.fault:
            case "pooler of relu":
                made = np.maximum(h, 0)
            case "pooler of gelu":
                made = self.activation(h)
            case "pooler of nothing":
                made = h
            case _:
                made = np.tanh(h)
        return self.hear(f"{prefix}pooler.activation", made)

    def predict(self, x: Array) -> None:
        h = self.activation(self.dense("cls.predictions.transform.dense", x))
        self.hear("cls.predictions.transform.transform_act_fn", h)
        h = self.norm("cls.predictions.transform.LayerNorm", h)
        logits = h @ self.tensors["embeddings.word_embeddings.weight"].T
        if self.fault != "vocabulary bias dropped":
            logits = logits + self.tensors["cls.predictions.bias"]
        self.hear("cls.predictions.decoder", logits)
        self.hear("logits", logits)

    # the parts

    def weight(self, name: str) -> Array:
        w = self.tensors[f"{name}.weight"]
        return w.T if self.fault == "pooler transposed" and name.startswith("pooler") else w

    def bias(self, name: str) -> Array:
        dropped = {"pooler bias dropped": "pooler.dense"}
        dropped["next sentence bias dropped"] = "cls.seq_relationship"
        return self.tensors[f"{name}.bias"] * (dropped.get(self.fault) != name)

    def dense(self, name: str, x: Array) -> Array:
        return self.hear(name, x @ self.weight(name).T + self.bias(name))

    def norm(self, name: str, x: Array) -> Array:
        epsilon = self.config["layer_norm_eps"]
        wanted, _, where = self.fault.removeprefix("epsilon ").partition(" in ")
        if self.fault.startswith("epsilon ") and where.removeprefix("the ") in {
            "", "head" if name.startswith("cls") else name.partition(".")[0],
        }:  # fmt: skip
            epsilon = float(wanted)
        weights = name
        if self.fault == "norms swapped" and name.startswith("encoder"):
            one, other = ".attention.output.", ".output."
            weights = name.replace(one, other) if one in name else name.replace(other, one)
        mean = x.mean(-1, keepdims=True)
        spread = np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + epsilon)
        gain, bias = self.tensors[f"{weights}.weight"], self.tensors[f"{weights}.bias"]
        return self.hear(name, gain * (x - mean) / spread + bias)

    def activation(self, x: Array) -> Array:
        return x / 2 * (1 + erf(x / math.sqrt(2)))


erf = np.vectorize(math.erf, otypes=[np.float64])
