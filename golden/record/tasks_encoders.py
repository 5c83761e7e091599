"""Asks sentence-transformers what tasks_cases.py lists, in float64, with eager attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import (
    CrossEncoder,
    SentenceTransformer,
    SparseEncoder,
    quantize_embeddings,
)
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tasks_cases import Question
from tasks_pipelines import HOW, MARGIN, Unfit, decided, each


@contextmanager
def limited(model: Any, max_length: int | None) -> Iterator[None]:
    """Let a model read fewer tokens for a while."""
    whole = model.max_seq_length
    model.max_seq_length = max_length or whole
    yield
    model.max_seq_length = whole


@cache
def sentence_model(folder: Path) -> SentenceTransformer:
    if (folder / "modules.json").exists():
        return SentenceTransformer(str(folder), device="cpu", model_kwargs=HOW).double().eval()
    encoder = Transformer(str(folder), model_kwargs=HOW)
    size = encoder.get_embedding_dimension()
    return (
        SentenceTransformer(modules=[encoder, Pooling(size, "mean")], device="cpu").double().eval()
    )


def sentence_embedding(folder: Path, asked: Question) -> Any:
    model, options = sentence_model(folder), dict(asked.options)
    given = asked.input
    if isinstance(given, dict):
        usual = model.similarity_fn_name
        model.similarity_fn_name = options.get("function", usual)
        scores = model.similarity(model.encode(given["a"]), model.encode(given["b"])).tolist()
        model.similarity_fn_name = usual
        return scores
    precision, ranges = options.pop("precision", "float32"), options.pop("ranges", None)
    options["normalize_embeddings"] = options.pop("normalize", False)
    with limited(model, options.pop("max_length", None)):
        vectors = model.encode(given, **options)
    if precision == "float32":
        return vectors.tolist()
    rows = np.atleast_2d(vectors)
    if ranges is None:
        if np.abs(rows).min() < MARGIN:
            raise Unfit("too close to call")
        made = quantize_embeddings(rows, precision)
    else:
        low, high = np.array(ranges)
        steps = (rows - low) / (high - low) * 255
        if np.abs(steps - steps.round()).min() < 1e-3:
            raise Unfit("too close to call")
        made = quantize_embeddings(rows, precision, ranges=np.array(ranges))
    return made.tolist() if isinstance(given, list) else made[0].tolist()


@cache
def sparse_encoder(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu", model_kwargs=HOW)


def sparse_embedding(folder: Path, asked: Question) -> Any:
    model, options = sparse_encoder(folder), dict(asked.options)
    k, limit = options.pop("top_k", None), options.pop("max_length", None)

    def one(text: str) -> dict[str, Any]:
        with limited(model, limit):
            vector = model.encode(text, convert_to_sparse_tensor=False, **options)
        told = model.decode(vector, top_k=k)
        decided(weight for _, weight in model.decode(vector, top_k=k and k + 1))
        if vector[vector > 0].min() < MARGIN:
            raise Unfit("too close to call")
        ids = model.tokenizer.convert_tokens_to_ids([token for token, _ in told])
        return {
            "indices": ids, "values": [weight for _, weight in told],
            "tokens": [token for token, _ in told],
        }  # fmt: skip

    return each(one, asked.input)


@cache
def cross_encoder(folder: Path) -> CrossEncoder:
    return CrossEncoder(str(folder), device="cpu", model_kwargs=HOW)


FUNCTIONS = {
    "sigmoid": {"activation_fn": torch.nn.Sigmoid()},
    "none": {"activation_fn": torch.nn.Identity()},
    "softmax": {"activation_fn": torch.nn.Identity(), "apply_softmax": True},
}


def text_ranking(folder: Path, asked: Question) -> Any:
    model, options = cross_encoder(folder), dict(asked.options)
    how = dict(FUNCTIONS.get(options.pop("function_to_apply", ""), {}))
    how |= {name: options.pop(name) for name in ("prompt", "prompt_name") if name in options}

    def one(item: dict[str, Any]) -> Any:
        if "texts" in item:
            scores = model.predict(item["texts"], **how).tolist()
            return {"scores": scores} if isinstance(scores, list) else {"score": scores}
        decided(a["score"] for a in model.rank(item["query"], item["documents"], **how))
        answer = model.rank(item["query"], item["documents"], **options, **how)
        return [{**a, "score": float(a["score"])} for a in answer]

    with limited(model, options.pop("max_length", None)):
        if isinstance(asked.input, dict) and "pairs" in asked.input:
            return model.predict(asked.input["pairs"], **how).tolist()
        return each(one, asked.input)
