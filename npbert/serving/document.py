"""What a server tells of itself: GET /info, and an OpenAPI document made from the task rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from types import NoneType
from typing import Any, Final, get_type_hints

import numpy as np

from npbert import __version__
from npbert.serving.questions import Endpoint
from npbert.serving.service import Service
from npbert.tasks.options import Names, Options, option_types
from npbert.tasks.rows import (
    NUMBER,
    RESULTS,
    SENTENCE_EMBEDDING,
    TEXT,
    WHOLE,
    Column,
    TaskRow,
    Vector,
)
from npbert.tasks.task import Task

SCHEMA_TYPES: Final = {TEXT: "string", NUMBER: "number", WHOLE: "integer"}
STATUS_MEANINGS: Final = {
    "401": "the key is missing or wrong",
    "404": "there is no such model here",
    "408": "the body came too slowly",
    "413": "more than this server takes of one request",
    "415": "the body is compressed",
    "422": "what was sent makes no sense; the message says where, and what was expected",
    "429": "too many requests wait; Retry-After says how many seconds to wait",
    "503": "the server ends",
    "504": "there was no answer in time",
}


def describe_server(service: Service, batching: Mapping[str, Any]) -> dict[str, Any]:
    """Return what GET /info answers."""
    tasks = {
        task: [describe_task(name, each.task) for name, each in models.items()]
        for task, models in service.served.items()
    }
    return {
        "npbert": __version__,
        "tasks": tasks,
        "limits": asdict(service.limits),
        "batching": dict(batching),
    }


def list_models(service: Service, created: int) -> dict[str, Any]:
    """Return what GET /v1/models answers: those that POST /v1/embeddings may name.

    `created` is in seconds since 1970.
    """
    names = service.served.get(SENTENCE_EMBEDDING.name, {})
    made = [
        {"id": name, "object": "model", "created": created, "owned_by": "npbert"} for name in names
    ]
    return {"object": "list", "data": made}


def describe_task(name: str, task: Task[Any, Any]) -> dict[str, Any]:
    """Return what there is to know of a model and how it is asked."""
    model, options = task.model, {}
    for each in fields(task.options):
        value = getattr(task.options, each.name)
        options[each.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return {
        "model": name,
        "family": model.family,
        "architecture": task.row.architecture,
        "dtype": model.dtype.name,
        "max_length": task.token_limit(task.options),
        "options": options,
    }


def column_schema(column: Column) -> dict[str, Any]:
    """Return the JSON schema of a column of a task's answers."""
    if isinstance(column, Vector):
        return {"type": "array", "items": {"type": SCHEMA_TYPES.get(column.of, "number")}}
    if isinstance(column, list):
        return {"type": "array", "items": column_schema(column[0])}
    if isinstance(column, dict):
        properties = {name: column_schema(each) for name, each in column.items()}
        return {"type": "object", "properties": properties}
    return {"type": SCHEMA_TYPES[column]}


def answer_schema(task: Task[Any, Any]) -> dict[str, Any]:
    """Return the JSON schema of a task's answer to one input, with the options it was made with."""
    columns = task.row.columns(task)
    if set(columns) == {RESULTS}:
        return column_schema(columns[RESULTS])
    whole = column_schema(columns)
    vectors = [each for each in columns.values() if isinstance(each, Vector)]
    return column_schema(vectors[0]) if vectors and len(columns) == 1 else whole


def option_schema(hint: Any, lowest: int) -> dict[str, Any]:
    """Return the JSON schema of an option's type."""
    kinds = option_types(hint)
    if Any in kinds:
        return {}
    made: list[dict[str, Any]] = []
    if words := [kind for kind in kinds if isinstance(kind, str)]:
        made.append({"type": "string", "enum": words})
    if Names in kinds:
        made.append({"type": "array", "items": {"type": "string"}})
    for kind, name in ((bool, "boolean"), (str, "string"), (NoneType, "null")):
        if kind in kinds:
            made.append({"type": name})
    if int in kinds:
        made.append({"type": "integer", "minimum": lowest})
    return made[0] if len(made) == 1 else {"anyOf": made}


def describe_options(options: type[Options]) -> dict[str, Any]:
    """Return the JSON schema of a task's options."""
    hints = get_type_hints(options)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            each.name: {
                **option_schema(hints[each.name], each.metadata["lowest"]),
                "description": each.metadata["meaning"],
            }
            for each in fields(options)
        },
    }


def input_schema(row: TaskRow) -> dict[str, Any]:
    """Return the JSON schema of one input, or many."""
    texts = {"type": "array", "items": {"type": "string"}}
    listed = {*row.listed, *row.alternatives}
    either = {"anyOf": [{"type": "string"}, texts]}
    hints = get_type_hints(row.options)
    whole: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: texts if name in listed else either if name in hints else {"type": "string"}
            for name in (*row.fields, *row.alternatives)
        },
    }
    if not row.alternatives:
        whole["required"] = list(row.fields[: row.required])
    one = whole if row.required > 1 else {"anyOf": [{"type": "string"}, whole]}
    return {"anyOf": [one, {"type": "array", "items": one}]}


def describe_body(endpoint: Endpoint) -> dict[str, Any]:
    """Return the JSON schema of an endpoint's body."""
    properties: dict[str, Any] = {
        name: {**each.kind.schema, "description": each.meaning}
        for name, each in endpoint.fields.items()
    }
    if endpoint.native:
        properties["inputs"] |= input_schema(endpoint.row)
        properties["parameters"] = describe_options(endpoint.row.options)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, each in endpoint.fields.items() if each.required],
        "properties": properties,
    }


def describe_endpoint(endpoint: Endpoint, service: Service) -> dict[str, Any]:
    """Return what OpenAPI says of an endpoint."""
    served = next(iter(service.served[endpoint.row.name].values()))
    answer: dict[str, Any] = {"description": "the answers"}
    if endpoint.native:
        one = answer_schema(served.task)
        many = {"type": "array", "items": one}
        answer["content"] = {"application/json": {"schema": {"anyOf": [one, many]}}}
    statuses = {**STATUS_MEANINGS, str(endpoint.failure): "the model failed"}
    return {
        "summary": endpoint.summary,
        "operationId": endpoint.path.strip("/").replace("/", "-"),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": describe_body(endpoint)}},
        },
        "responses": {
            "200": answer,
            **{status: {"description": what} for status, what in statuses.items()},
        },
    }


def describe_endpoints(service: Service, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI document of the endpoints that have a model."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "npbert", "version": __version__},
        "paths": {
            each.path: {"post": describe_endpoint(each, service)}
            for each in endpoints
            if each.row.name in service.served
        },
    }
