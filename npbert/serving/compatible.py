"""Endpoints as other servers have them.

OpenAI's embeddings, five of text-embeddings-inference, and of huggingface.co's Inference API those
two whose answers are neither the library's nor text-embeddings-inference's.

What is left out of a request is as the library does it: lengths of embeddings and scores are those
of the model's folder, and texts that are too long are truncated, unless the request says otherwise.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from npbert.errors import InputError
from npbert.jobs.lines import to_line
from npbert.serving.questions import (
    COUNT,
    FLAG,
    MODEL,
    OBJECT,
    ONE_OR_MANY,
    STRING,
    STRINGS,
    BodyField,
    Endpoint,
    ServedTask,
    TaskQuestion,
    ask_task,
    change_task_options,
    check_fields,
    choice_of,
    first_part,
    list_parts,
    task_endpoint,
    values_of,
)
from npbert.tasks.rows import (
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    TEXT_CLASSIFICATION,
    TEXT_RANKING,
    ZERO_SHOT_CLASSIFICATION,
    TaskRow,
)
from npbert.tasks.sentence_embedding import SentenceEmbedding, TokenIds

BACKEND_FAILED: Final = 424  # text-embeddings-inference's status where a model fails
SIDES: Final = ("left", "Left", "right", "Right")


def is_ids(value: Any) -> bool:
    """Tell whether a value is the ids of a text's tokens."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, int) and not isinstance(each, bool) for each in value)
    )


def read_embedded(value: Any) -> list[Any]:
    """Return texts, each as a str or as ids, from one of them or a list."""
    if isinstance(value, str) or is_ids(value) or not isinstance(value, list):
        value = [value]
    return [TokenIds(each) if is_ids(each) else each for each in value]


def truncation_changes(body: Mapping[str, Any], served: ServedTask) -> dict[str, Any]:
    """Return what a request says of long texts, as an option.  Raises InputError."""
    side = "left" if served.task.tokenizer.cuts_left else "right"
    if body.get("truncation_direction", side).lower() != side:
        raise InputError(
            f"truncation_direction is {body['truncation_direction']!r}, but the model's tokenizer "
            f"truncates on the {side}"
        )
    words = {True: "truncate", False: "error"}
    return {"long": words[body["truncate"]]} if "truncate" in body else {}


def ask_embeddings(
    body: Mapping[str, Any], served: ServedTask, name: str, **how: Any
) -> TaskQuestion:
    """Return what is asked where texts stand under a name.  Raises InputError."""
    task = served.task
    assert isinstance(task, SentenceEmbedding)  # as its row says
    renamed = {"dimensions": "truncate_dim", "prompt_name": "prompt_name", "normalize": "normalize"}
    changes = {own: body[other] for other, own in renamed.items() if other in body}
    if body.get("normalize") is False:
        task = task.remove_normalize()
    options = change_task_options(task, {**changes, **truncation_changes(body, served)})
    return TaskQuestion(task=task, options=options, inputs=read_embedded(body[name]), **how)


def ask_openai(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what POST /v1/embeddings asks.  Raises InputError."""
    packed = body.get("encoding_format") == "base64"

    def convert(answer: Any) -> Any:
        if not packed:
            return values_of(answer)
        return base64.b64encode(np.asarray(answer, "<f4").tobytes()).decode()

    def join(parts: Sequence[str], tokens: int) -> str:
        data = ",".join(
            f'{{"object":"embedding","index":{i},"embedding":{part}}}'
            for i, part in enumerate(parts)
        )
        usage = f'{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'
        model = to_line(served.name)
        return f'{{"object":"list","data":[{data}],"model":{model},"usage":{usage}}}'

    return ask_embeddings(body, served, "input", convert=convert, join=join)


def ask_embed(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what POST /embed asks.  Raises InputError."""
    return ask_embeddings(body, served, "inputs", convert=values_of, join=list_parts)


def ask_similarity(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what POST /similarity asks: how close texts are to one.  Raises InputError."""
    task = served.task
    assert isinstance(task, SentenceEmbedding)  # as its row says
    asked = check_fields("inputs", body["inputs"], COMPARED)
    given = check_fields("parameters", body.get("parameters", {}), COMPARISON)
    changes = {"prompt_name": given["prompt_name"]} if "prompt_name" in given else {}
    changes |= {"precision": "float32", **truncation_changes(given, served)}

    def collect(vectors: Iterator[Any]) -> list[float]:
        source, *others = vectors
        if not others:
            return []
        cosines: list[float] = task.similarity(source[None], np.stack(others), "cosine")[0].tolist()
        return cosines

    return TaskQuestion(
        task=task, options=change_task_options(task, changes), collect=collect,
        inputs=[asked["source_sentence"], *asked["sentences"]], convert=values_of, join=list_parts,
    )  # fmt: skip


def ask_sparse(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what POST /embed_sparse asks.  Raises InputError."""
    given = body["inputs"]
    changes = {"prompt_name": body["prompt_name"]} if "prompt_name" in body else {}
    changes |= truncation_changes(body, served)

    def convert(answer: Any) -> Any:
        pairs = zip(answer["indices"], answer["values"], strict=True)
        return [{"index": index, "value": value} for index, value in pairs]

    return TaskQuestion(
        task=served.task, options=change_task_options(served.task, changes),
        inputs=given if isinstance(given, list) else [given], convert=convert, join=list_parts,
    )  # fmt: skip


def ask_ranking(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what POST /rerank asks.  Raises InputError."""
    words = {True: "none", False: "sigmoid"}
    changes: dict[str, Any] = {"return_documents": body.get("return_text", False)}
    if "raw_scores" in body:
        changes["function_to_apply"] = words[body["raw_scores"]]
    if isinstance(body["texts"], str):
        raise InputError("texts is a string, expected a list of strings")

    def convert(answer: Any) -> Any:
        return [{"index": each.pop("corpus_id"), **each} for each in answer]

    return TaskQuestion(
        task=served.task,
        options=change_task_options(served.task, {**changes, **truncation_changes(body, served)}),
        inputs=[{"query": body["query"], "documents": body["texts"]}],
        convert=convert, join=first_part,
    )  # fmt: skip


def ask_prediction(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what POST /predict asks: a text, or a list of texts and of pairs of them.

    Raises InputError.
    """
    given = body["inputs"]
    many = isinstance(given, list)
    changes: dict[str, Any] = {"top_k": None, **truncation_changes(body, served)}
    if body.get("raw_scores"):
        changes["function_to_apply"] = "none"
    texts, pair = TEXT_CLASSIFICATION.fields

    def read(item: Any) -> Any:
        if not isinstance(item, list) or len(item) not in (1, 2):
            return item
        return item[0] if len(item) == 1 else {texts: item[0], pair: item[1]}

    return TaskQuestion(
        task=served.task, options=change_task_options(served.task, changes),
        inputs=[read(each) for each in given] if many else [given],
        convert=values_of, join=list_parts if many else first_part,
    )  # fmt: skip


def ask_classes(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what the Inference API's text-classification asks.  Raises InputError."""
    options = {"top_k": None, **body.get("parameters", {})}
    return replace(ask_task({**body, "parameters": options}, served), join=list_parts)


def ask_labels(body: Mapping[str, Any], served: ServedTask) -> TaskQuestion:
    """Return what the Inference API's zero-shot-classification asks.  Raises InputError."""

    def convert(answer: Any) -> Any:
        pairs = zip(answer["labels"], answer["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]

    return replace(ask_task(body, served), convert=convert)


def convert_endpoint(
    row: TaskRow, ask: Callable[[Mapping[str, Any], ServedTask], TaskQuestion], what: str
) -> Endpoint:
    """Return the endpoint of a task in the forms of the Inference API."""
    return replace(
        task_endpoint(row), path=f"/pipeline/{row.name}", ask=ask, native=False,
        summary=f"{row.summary} As huggingface.co's Inference API: {what}.",
    )  # fmt: skip


TRUNCATION: Final[Mapping[str, BodyField]] = {
    "truncate": BodyField(FLAG, "truncate texts that are too long, or refuse them"),
    "truncation_direction": BodyField(
        choice_of(*SIDES), "the side that the tokenizer truncates on"
    ),
}
EMBEDDED: Final = BodyField(ONE_OR_MANY, "a text, a list of texts, or ids of tokens", required=True)
NORMALIZE: Final = BodyField(
    FLAG, "give embeddings the length 1, or leave their lengths; default: as the model's folder"
)
DIMENSIONS: Final = BodyField(COUNT, "keep only this many dimensions")
PROMPT_NAME: Final = BodyField(STRING, "use the model's own prompt of that name")
COMPARED: Final[Mapping[str, BodyField]] = {
    "source_sentence": BodyField(STRING, "what the others are compared with", required=True),
    "sentences": BodyField(STRINGS, "the others", required=True),
}
COMPARISON: Final[Mapping[str, BodyField]] = {"prompt_name": PROMPT_NAME, **TRUNCATION}
RAW_SCORES: Final = BodyField(FLAG, "logits in place of scores")

COMPATIBLE: Final = (
    Endpoint(
        path="/v1/embeddings", row=SENTENCE_EMBEDDING, ask=ask_openai, nests_errors=True,
        summary="Embed texts, as OpenAI's API.",
        fields={
            "input": EMBEDDED, "model": MODEL, "dimensions": DIMENSIONS, "normalize": NORMALIZE,
            "encoding_format": BodyField(choice_of("float", "base64"), "how numbers are written"),
            "user": BodyField(STRING, "not used"),
        },
    ),
    Endpoint(
        path="/embed", row=SENTENCE_EMBEDDING, ask=ask_embed, failure=BACKEND_FAILED,
        summary="Embed texts, as text-embeddings-inference.",
        fields={
            "inputs": EMBEDDED, "normalize": NORMALIZE, "dimensions": DIMENSIONS,
            "prompt_name": PROMPT_NAME, **TRUNCATION, "model": MODEL,
            "encoding_format": BodyField(choice_of("float"), "how numbers are written"),
        },
    ),
    Endpoint(
        path="/similarity", row=SENTENCE_EMBEDDING, ask=ask_similarity, failure=BACKEND_FAILED,
        summary="Compare texts with one, as text-embeddings-inference: the cosine of each.",
        fields={
            "inputs": BodyField(OBJECT, "source_sentence, and a list of sentences", required=True),
            "parameters": BodyField(OBJECT, f"any of {', '.join(COMPARISON)}"),
            "model": MODEL,
        },
    ),
    Endpoint(
        path="/embed_sparse", row=SPARSE_EMBEDDING, ask=ask_sparse, failure=BACKEND_FAILED,
        summary="Embed texts sparsely, as text-embeddings-inference.",
        fields={
            "inputs": BodyField(ONE_OR_MANY, "a text, or a list of texts", required=True),
            "prompt_name": PROMPT_NAME, **TRUNCATION, "model": MODEL,
        },
    ),
    Endpoint(
        path="/rerank", row=TEXT_RANKING, ask=ask_ranking, failure=BACKEND_FAILED,
        summary="Rank texts by a query, as text-embeddings-inference.",
        fields={
            "query": BodyField(STRING, "what the texts should answer", required=True),
            "texts": BodyField(ONE_OR_MANY, "a list of texts", required=True),
            "raw_scores": RAW_SCORES,
            "return_text": BodyField(FLAG, "include the texts"),
            **TRUNCATION, "model": MODEL,
        },
    ),
    Endpoint(
        path="/predict", row=TEXT_CLASSIFICATION, ask=ask_prediction, failure=BACKEND_FAILED,
        summary="Classify texts, as text-embeddings-inference: all classes, best first.",
        fields={
            "inputs": BodyField(ONE_OR_MANY, "a text, or a list of texts and pairs", required=True),
            "raw_scores": RAW_SCORES, **TRUNCATION, "model": MODEL,
        },
    ),
    convert_endpoint(
        TEXT_CLASSIFICATION, ask_classes, "a list of all classes, best first, for each text"
    ),
    convert_endpoint(ZERO_SHOT_CLASSIFICATION, ask_labels, "a list of labels and scores"),
)  # fmt: skip
