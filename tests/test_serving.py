"""npbert serve: answers over HTTP are the library's, whoever asks at the same time, and how."""

import base64
import json
import os
import random
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from serving_process import Server, request_bytes

import npbert
from npbert.checkpoint.parameters import WORDS
from npbert.cli import main
from npbert.serving.limits import ServerLimits
from npbert.tasks.rows import TASKS

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::npbert.NpbertWarning")  # of the library's part
MODELS = Path(__file__).parent.parent / "golden" / "tasks"
SERVED = {
    "text-classification": ("builtin:sentiment", MODELS / "nli"),
    "token-classification": (MODELS / "bio",),
    "fill-mask": ("builtin:fill-mask",),
    "question-answering": (MODELS / "qa",),
    "multiple-choice": (MODELS / "choice",),
    "zero-shot-classification": (MODELS / "nli",),
    "sentence-embedding": (MODELS / "st_cls_norm", MODELS / "st_all"),
    "sparse-embedding": (MODELS / "splade_max",),
    "text-ranking": (MODELS / "cross1",),
    "feature-extraction": ("builtin:fill-mask",),
}
ARGUMENTS = [f"{task}={model}" for task, models in SERVED.items() for model in models]
TEXTS = ["A film to treasure.", "", "Tedious from start to finish, and long.", "\U0001f642 cat"]


@pytest.fixture(scope="module")
def server():
    with Server(*ARGUMENTS, "--batch-invariant") as made:
        yield made
        assert made.end() == 0
        assert made.log.count("\n") == 1  # nothing but the address


@pytest.fixture(scope="module")
def task_of():
    made = {}

    def make(name, i=0):
        if (name, i) not in made:
            source = str(SERVED[name][i])
            made[name, i] = npbert.pipeline(name, source, batch_invariant=True)
        return made[name, i]

    return make


def as_json(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


# ---- what is answered ----------------------------------------------------------------------------

ASKED = [
    ("text-classification", "A film to treasure.", {}),
    ("text-classification", TEXTS, {"top_k": None, "function_to_apply": "none"}),
    ("text-classification", {"text": "A cat.", "text_pair": "A dog."}, {}),
    ("text-classification", [], {}),
    ("token-classification", ["Anna met Tom in Paris.", {"words": ["Anna", "ran"]}], {}),
    ("token-classification", "Anna met Tom.", {"aggregation_strategy": "none", "stride": 0}),
    ("fill-mask", ["The ship [MASK] in the [MASK].", "A [MASK]."], {"top_k": 3}),
    ("fill-mask", "A [MASK].", {"targets": ["cat", "unhappiness"], "multi_piece": "joint"}),
    ("question-answering", {"question": "Who sat?", "context": "The cat sat. " * 60}, {"top_k": 2}),
    ("multiple-choice", [{"prompt": "The mat is", "choices": ["red", "made of cheese"]}], {}),
    ("zero-shot-classification", TEXTS[::2], {"candidate_labels": ["red", "old", "cat"]}),
    ("zero-shot-classification", {"text": "A mat.", "candidate_labels": "red, old"}, {}),
    ("sentence-embedding", "A cat sat.", {"truncate_dim": 7}),
    ("sentence-embedding", TEXTS, {"normalize": True}),
    ("sentence-embedding", TEXTS, {"precision": "ubinary"}),
    ("sentence-embedding", [], {}),
    ("sparse-embedding", TEXTS, {"top_k": 5}),
    ("text-ranking", {"query": "A cat?", "documents": TEXTS}, {"return_documents": True}),
    ("text-ranking", {"query": "A cat?", "documents": []}, {}),
    ("text-ranking", [{"query": "A cat?", "documents": "A dog."}], {}),
    ("feature-extraction", TEXTS[:2], {"layer": 1, "offsets": True}),
    ("feature-extraction", "A cat.", {"layer": -1}),
]


@pytest.mark.parametrize(("task", "inputs", "options"), ASKED)
def test_an_answer_is_the_librarys_bit_for_bit(server, task_of, task, inputs, options):
    reply = server.ask(f"/v1/{task}", {"inputs": inputs, "parameters": options})
    assert reply.status == 200, reply.value
    assert reply.value == as_json(task_of(task)(inputs, **options))


def test_every_task_is_asked_in_these_tests():
    assert {task for task, _, _ in ASKED} == set(TASKS) == set(SERVED)


def test_bytes_by_the_ranges_of_the_texts_themselves_are_refused_of_one_text(server):
    body = {"inputs": "A cat.", "parameters": {"precision": "int8"}}
    reply = server.ask("/v1/sentence-embedding", body)
    assert reply.status == 422
    assert reply.value["error"].startswith("precision 'int8' needs ranges, (2, dim): ")


def test_the_first_model_answers_unless_another_is_named(server, task_of):
    text = {"text": "A cat.", "text_pair": "A dog."}
    own, other = (as_json(task_of("text-classification", i)(text)) for i in (0, 1))
    assert own["label"] != other["label"]
    for model, expected in ((None, own), (SERVED["text-classification"][1], other)):
        body = {"inputs": text, "model": model and str(model)}
        assert server.ask("/v1/text-classification", body).value == expected


def test_openais_embeddings_are_the_librarys(server, task_of):
    embed = task_of("sentence-embedding")
    reply = server.ask("/v1/embeddings", {"input": TEXTS, "model": str(embed.folder)})
    ids = [embed.tokenizer.encode(text).ids for text in TEXTS]
    count = sum(map(len, ids))
    assert reply.value == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": row}
            for i, row in enumerate(embed(TEXTS).tolist())
        ],
        "model": str(embed.folder),
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    for given in (TEXTS[0], ids[0], [ids[0]], [ids[0][1:-1]]):
        body = {"input": given, "encoding_format": "base64", "dimensions": 5, "user": "me"}
        (row,) = server.ask("/v1/embeddings", body).value["data"]
        packed = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
        assert packed.tolist() == embed(TEXTS[0], truncate_dim=5).tolist()


def test_lengths_of_embeddings_are_the_folders_unless_the_request_says(server, task_of):
    text, own = "A cat sat.", task_of("sentence-embedding")
    bare = own.remove_normalize()(text)
    assert abs(np.linalg.norm(bare) - 1) > 0.1
    for name, key, rows in (
        ("/embed", "inputs", lambda value: value),
        ("/v1/embeddings", "input", lambda value: [each["embedding"] for each in value["data"]]),
    ):
        for normalize, expected in ((None, own(text)), (True, own(text)), (False, bare)):
            body = {key: text, "normalize": normalize}
            assert rows(server.ask(name, body).value) == [expected.tolist()]
    other = task_of("sentence-embedding", 1)
    for normalize, expected in ((False, other(text)), (True, other(text, normalize=True))):
        body = {"inputs": [text], "normalize": normalize, "model": str(other.folder)}
        assert server.ask("/embed", body).value == [expected.tolist()]


def test_the_other_endpoints_of_text_embeddings_inference_answer_in_its_shapes(server, task_of):
    classify, rank = task_of("text-classification"), task_of("text-ranking")
    sparse = task_of("sparse-embedding")(TEXTS)
    assert server.ask("/embed_sparse", {"inputs": TEXTS}).value == [
        [{"index": i, "value": v} for i, v in zip(each["indices"], each["values"], strict=True)]
        for each in sparse
    ]
    assert server.ask("/predict", {"inputs": TEXTS[0]}).value == classify(TEXTS[0], top_k=None)
    pair = classify({"text": "A", "text_pair": "B"}, top_k=None)
    assert server.ask("/predict", {"inputs": [["A", "B"], "A", ["A"]]}).value == [
        pair, *classify(["A", "A"], top_k=None)
    ]  # fmt: skip
    raw = classify(TEXTS, top_k=None, function_to_apply="none")
    assert server.ask("/predict", {"inputs": TEXTS, "raw_scores": True}).value == raw
    asked = {"query": "A cat?", "texts": TEXTS}
    for more, options in (
        ({}, {}),
        ({"raw_scores": True}, {"function_to_apply": "none"}),
        ({"raw_scores": False, "return_text": True},
         {"function_to_apply": "sigmoid", "return_documents": True}),
    ):  # fmt: skip
        ranking = rank({"query": "A cat?", "documents": TEXTS}, **options)
        expected = [{"index": each.pop("corpus_id"), **each} for each in ranking]
        assert server.ask("/rerank", asked | more).value == expected


def test_similarities_are_the_librarys_cosines(server, task_of):
    embed = task_of("sentence-embedding", 1)
    vectors = embed(TEXTS)
    for parameters in ({}, {"truncate": True, "truncation_direction": "Right"}, None):
        asked = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
        body = {"inputs": asked, "parameters": parameters, "model": str(embed.folder)}
        expected = embed.similarity(vectors[:1], vectors[1:], "cosine")[0].tolist()
        assert server.ask("/similarity", body).value == expected
    asked = {"source_sentence": TEXTS[0], "sentences": []}
    assert server.ask("/similarity", {"inputs": asked}).value == []


def test_the_inference_apis_answers_are_the_librarys_in_its_shapes(server, task_of):
    classify, choose = task_of("text-classification"), task_of("zero-shot-classification")
    path = "/pipeline/text-classification"
    for inputs, options in (
        (TEXTS[0], {}), (TEXTS, {"top_k": 1}), ([], {}), (TEXTS[0], {"function_to_apply": "none"})
    ):  # fmt: skip
        reply = server.ask(path, {"inputs": inputs, "parameters": options})
        many = inputs if isinstance(inputs, list) else [inputs]
        assert reply.value == classify(many, **{"top_k": None, **options})
    labels = {"candidate_labels": ["red", "old", "cat"]}
    answers = [
        [
            {"label": label, "score": score}
            for label, score in zip(a["labels"], a["scores"], strict=True)
        ]
        for a in choose(TEXTS[::2], **labels)
    ]
    path = "/pipeline/zero-shot-classification"
    for inputs, expected in ((TEXTS[::2], answers), (TEXTS[0], answers[0])):
        assert server.ask(path, {"inputs": inputs, "parameters": labels}).value == expected


def test_openais_clients_hear_which_models_embed(server):
    listed = server.ask("/v1/models").value
    names = [str(model) for model in SERVED["sentence-embedding"]]
    assert [each["id"] for each in listed["data"]] == names
    assert {each["object"] for each in listed["data"]} == {"model"}
    for name in names:
        assert server.ask("/v1/embeddings", {"input": "a", "model": name}).status == 200


def test_what_was_truncated_is_told_beside_the_answer(server, task_of):
    long = "word " * 600
    reply = server.ask("/v1/text-classification", {"inputs": [long, ""]})
    assert reply.value == task_of("text-classification")([long, ""])
    assert reply.headers["npbert-notice"] == (
        "1 of the texts was truncated to 256 tokens, 346 tokens were not read (long='error' "
        "refuses such texts); 1 input has an empty text, and what is answered for it means little"
    )
    for path, body in (
        ("/v1/text-classification", {"parameters": {"long": "error"}}),
        ("/predict", {"truncate": False}),
    ):
        reply = server.ask(path, {"inputs": long, **body})
        assert (reply.status, reply.value["error"]) == (
            422,
            "text 0: has 602 tokens, but the model reads 256; shorten it, or say long='truncate'",
        )


# ---- what is refused -----------------------------------------------------------------------------

CLASSIFY = "/v1/text-classification"
REFUSED = [
    (CLASSIFY, b"\xff", "the body is not UTF-8: invalid start byte"),
    (CLASSIFY, b"", "the body is blank, expected a JSON object"),
    (CLASSIFY, b"[1]", "the body is [1], expected a JSON object"),
    (CLASSIFY, b"{", "the body is no JSON: Expecting property name enclosed in double quotes: "
     "line 1 column 2 (char 1)"),
    (CLASSIFY, b'{"inputs": NaN}', "the body has NaN, which is no JSON"),
    (CLASSIFY, b'{"inputs": "a", "inputs": "b"}', "the body has an object with one name twice"),
    (CLASSIFY, b'{"inputs": ' + b"[" * 100_000, "the body is nested too deeply"),
    (CLASSIFY, {}, "the body has no inputs"),
    (CLASSIFY, {"inputs": None}, "the body has no inputs"),
    (CLASSIFY, {"input": "a"}, "the body has 'input', expected inputs, parameters, model; did you "
     "mean 'inputs'?"),
    (CLASSIFY, {"inputs": "a", "parameters": 5}, "parameters is 5, expected an object"),
    (CLASSIFY, {"inputs": "a", "model": ["x"]}, "model is ['x'], expected a string"),
    (CLASSIFY, {"inputs": ["a", 5]}, "text 1: a text is a str, not int: 5"),
    (CLASSIFY, {"inputs": ["a", "\ud800"]}, "text 1: the text has half a character, '\\ud800', at "
     "position 0; it was decoded from broken UTF-16 or with surrogateescape"),
    (CLASSIFY, {"inputs": {"txt": "a"}}, "text 0: has 'txt', expected text and perhaps text_pair"),
    (CLASSIFY, {"inputs": "a", "parameters": {"topk": 1}},
     "parameters: text-classification has no option 'topk'; it is called 'top_k' here"),
    (CLASSIFY, {"inputs": "a", "parameters": {"top_k": 0}},
     "parameters: top_k is 0, expected a whole number from 1"),
    (CLASSIFY, {"inputs": "a", "parameters": {"threads": 1}},
     "parameters: text-classification has no option 'threads': npbert.pipeline takes it, once"),
    ("/v1/sentence-embedding", {"inputs": "a", "parameters": {"ranges": "/etc/passwd"}},
     "parameters: ranges is '/etc/passwd', expected numbers: a server reads no files for its "
     "callers"),
    ("/v1/feature-extraction", {"inputs": "a", "parameters": {"layer": 9}},
     "layer is 9, but the model has 3 hidden states, 0 to 2 (or -3 to -1, from the last)"),
    ("/embed", {"inputs": [[5, 99_999]]},
     "text 0: sequence 0 has 99999 at (2,), expected 0 to 336 (vocab_size is 337)"),
    ("/embed", {"inputs": "a", "normalize": 1}, "normalize is 1, expected true or false"),
    ("/embed", {"inputs": "a", "truncation_direction": "left"},
     "truncation_direction is 'left', but the model's tokenizer truncates on the right"),
    ("/rerank", {"query": "a", "texts": "b"}, "texts is a string, expected a list of strings"),
    ("/rerank", {"texts": []}, "the body has no query"),
    ("/embed", {"inputs": "a", "encoding_format": "base64"},
     "encoding_format is 'base64', expected one of float"),
    ("/similarity", {"inputs": "a"}, "inputs is 'a', expected an object"),
    ("/similarity", {"inputs": {"sentences": ["a"]}}, "inputs has no source_sentence"),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["a", 5]}},
     "sentences is ['a', 5], expected a list of strings"),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["a"], "text": "b"}},
     "inputs has 'text', expected source_sentence, sentences"),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}, "parameters": {"top": 5}},
     "parameters has 'top', expected prompt_name, truncate, truncation_direction"),
    ("/pipeline/text-classification", {"inputs": "a", "parameters": {"topk": 1}},
     "parameters: text-classification has no option 'topk'; it is called 'top_k' here"),
    ("/pipeline/zero-shot-classification", {"inputs": "a"},
     "text 0: has no labels to choose from; pass candidate_labels="),
]  # fmt: skip


@pytest.mark.parametrize("depth", [100, 300, 900, 980, 995])
def test_a_deep_nest_is_refused_at_any_depth(server, depth):
    for inputs in ("[" * depth + "]" * depth, '{"text":' * depth + "5" + "}" * depth):
        for path in (CLASSIFY, "/embed"):
            reply = server.ask(path, b'{"inputs": %s}' % inputs.encode())
            assert reply.status == 422, reply.value


@pytest.mark.parametrize(("path", "body", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_with_the_place_and_the_reason(server, path, body, message):
    reply = server.ask(path, body)
    assert (reply.status, reply.value) == (422, {"error": message, "error_type": "Validation"})


def test_openais_clients_hear_of_errors_in_their_shape(server):
    reply = server.ask("/v1/embeddings", {"input": "a", "dimensions": 0})
    message = "dimensions is 0, expected a whole number from 1"
    said = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    assert (reply.status, reply.value) == (422, {"error": said})


def test_what_is_not_there_is_not_found(server):
    names = ", ".join(repr(str(each)) for each in SERVED["text-classification"])
    for path, body, status, message in (
        (CLASSIFY, {"inputs": "a", "model": "gpt"}, 404,
         f"model is 'gpt', but text-classification has {names} here"),
        ("/v1/ner", {}, 404, "unknown task 'ner'; it is called 'token-classification' here"),
        ("/v2", {}, 404, "there is no POST '/v2' here; GET /openapi.json lists what there is"),
        (CLASSIFY, None, 405, f"there is no GET '{CLASSIFY}' here; GET /openapi.json lists what "
         "there is"),
    ):  # fmt: skip
        reply = server.ask(path, body)
        assert (reply.status, reply.value["error"]) == (status, message)


def ask_raw(server, data, wait=60):
    """Return the statuses and the bytes of what comes for bytes on a connection that then rests."""
    with server.connect(data) as own:
        own.settimeout(wait)
        found = b""
        while part := own.recv(1 << 16):
            found += part
        return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+) ", found)], found


def head_bytes(path, *lines, method="POST", host="localhost"):
    """Return the head of a request whose connection is closed with the answer."""
    given = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
    return "\r\n".join([*given, "", ""]).encode()


def test_a_body_that_is_not_wanted_is_refused_before_it_comes(server):
    for lines, status, message in (
        (["Content-Encoding: gzip", "Content-Length: 9"], 415,
         b"Content-Encoding is 'gzip', but this server reads plain JSON only; send the body "
         b"uncompressed"),
        (["Content-Length: 10000000000"], 413,
         b"the body has 10000000000 bytes, but this server reads 4194304; send fewer texts at "
         b"once"),
        (["Expect: 100-continue", "Content-Length: 4194305"], 413,
         b"the body has 4194305 bytes, but this server reads 4194304; send fewer texts at once"),
    ):  # fmt: skip
        statuses, found = ask_raw(server, head_bytes(CLASSIFY, *lines))
        assert statuses == [status]
        assert message in found
    body = b'{"inputs": "A cat."}'
    lines = ["Content-Encoding: identity", "Expect: 100-continue", f"Content-Length: {len(body)}"]
    assert ask_raw(server, head_bytes(CLASSIFY, *lines) + body)[0] == [100, 200]


def test_another_method_is_told_those_that_there_are(server):
    for path, allowed in ((CLASSIFY, "POST"), ("/health", "GET, HEAD")):
        reply = server.ask(path, b"{}", "PUT")
        assert reply.status == 405
        assert ", ".join(sorted(reply.headers["allow"].split(", "))) == allowed


def test_no_path_leads_to_where_the_host_of_a_request_says(server):
    for path in ("/health/", f"{CLASSIFY}/"):
        reply = server.ask(path, b"{}", Host="theirs.example")
        assert (reply.status, reply.headers.get("location")) == (404, None)


@pytest.mark.parametrize("lines", [
    ["Content-Length: -1"], ["Content-Length: 1", "Content-Length: 2"], ["Content-Length: x"],
    ["Transfer-Encoding: gzip"], ["Host: other"], ["no colon"], ["A: b\0"],
])  # fmt: skip
def test_what_is_no_http_is_a_bad_request(server, lines):
    assert ask_raw(server, head_bytes("/health", *lines, method="GET"))[0] == [400]


def test_requests_that_come_together_are_answered_in_order(server):
    body = b'{"inputs": "A cat."}'
    whole = request_bytes(CLASSIFY, body) + request_bytes("/v1/ner", body)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    last = head_bytes(CLASSIFY, "X: y")[:-2] + chunked
    assert ask_raw(server, request_bytes("/health", b"").replace(b"POST", b"GET") + last)[0] == [
        200, 200
    ]  # fmt: skip
    assert ask_raw(server, whole)[0] == [200, 404]


def test_more_than_a_request_may_have_is_too_large(server):
    for body, message in (
        (b"x" * (ServerLimits.max_body_bytes + 1),
         "the body has more than 4194304 bytes, which is all that this server reads"),
        ({"inputs": ["a"] * 2049},
         "the body has 2049 texts, but this server reads 2048 of a request; send fewer at once"),
        ({"inputs": ["a"] * 2049, "model": "builtin:sentiment",
          "parameters": {"function_to_apply": "none"}},
         "the body has 2049 texts, but this server reads 2048 of a request; send fewer at once"),
        ({"inputs": [[5, 6]] * 2049},
         "the body has 2049 texts, but this server reads 2048 of a request; send fewer at once"),
        ({"inputs": "a", "parameters": {"top_k": 1001}},
         "top_k is 1001, but this server gives at most 1000"),
        ({"inputs": ["word " * 300] * 300},
         "the first 257 of 300 inputs make 65792 tokens, but this server reads 65536 of a "
         "request; send fewer at once"),
    ):  # fmt: skip
        reply = server.ask(CLASSIFY, body)
        assert (reply.status, reply.value["error"]) == (413, message)


# ---- what the server tells of itself -------------------------------------------------------------


def test_the_document_tells_of_every_endpoint_its_options_and_its_answers(server, task_of):
    document = server.ask("/openapi.json").value
    there = {f"/v1/{task}" for task in TASKS}
    more = {"/v1/embeddings", "/embed", "/embed_sparse", "/similarity", "/rerank", "/predict",
            "/pipeline/text-classification", "/pipeline/zero-shot-classification"}  # fmt: skip
    assert set(document["paths"]) == there | more
    for name, row in TASKS.items():
        told = document["paths"][f"/v1/{name}"]["post"]
        body = told["requestBody"]["content"]["application/json"]["schema"]["properties"]
        options = body["parameters"]["properties"]
        assert list(options) == [each.name for each in fields(row.options)]
        answer = told["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"][0]
        kinds = {"object": dict, "array": list}
        inputs, options = next(each[1:] for each in ASKED if each[0] == name and each[1])
        needed = {key: value for key, value in options.items() if key == "candidate_labels"}
        found = as_json(task_of(name)(inputs, **needed))
        assert isinstance(found[0] if isinstance(inputs, list) else found, kinds[answer["type"]])


def test_the_server_tells_how_it_is_and_what_it_has(server):
    assert server.ask("/health").value == {"status": "ok", "npbert": npbert.__version__}
    assert server.ask("/ready").status == 200
    info = server.ask("/info").value
    assert {task: [each["model"] for each in models] for task, models in info["tasks"].items()} == {
        task: [str(model) for model in models] for task, models in SERVED.items()
    }
    assert info["batching"]["batch_invariant"] is True
    assert info["limits"]["max_texts"] == 2048
    before = server.count("npbert_tokens_total")
    server.ask(CLASSIFY, {"inputs": "A film to treasure."})
    assert server.count("npbert_tokens_total") == before + 7


# ---- many at once --------------------------------------------------------------------------------


def test_answers_belong_to_their_requests_though_some_hang_up(server, task_of):
    rng = random.Random(0)
    words = ["cat", "film", "tedious", "treasure", "ship", "garden", "old", "red", "dull"]
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 60))) for _ in range(40)]
    embed, classify = task_of("sentence-embedding"), task_of("text-classification")
    vectors, classes = embed(texts).tolist(), classify(texts)

    def call(seed):
        own = random.Random(seed)
        some = own.sample(range(len(texts)), own.choice([1, 1, 1, 8]))
        given = [texts[i] for i in some]
        kind = own.random()
        if kind < 0.2:
            with server.connect(request_bytes("/embed", {"inputs": given})):
                return True
        if kind < 0.3:
            return server.ask("/embed", {"inputs": given, "normalise": True}).status == 422
        if kind < 0.6:
            return server.ask("/embed", {"inputs": given}).value == [vectors[i] for i in some]
        return server.ask(CLASSIFY, {"inputs": given}).value == [classes[i] for i in some]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(120)))
    for _ in range(100):
        if server.count("npbert_requests_taken") == 0:
            break
        time.sleep(0.05)
    assert server.count("npbert_requests_taken") == 0


# ---- limits of time and number, and life ---------------------------------------------------------


@pytest.fixture(scope="module")
def narrow():
    """A server that bears little, has a key, and lets pages of one origin ask."""
    arguments = (
        "--body-timeout",
        "1",
        "--header-timeout",
        "1",
        "--max-queue",
        "2",
        "--timeout",
        "2",
        "--max-batch-tokens",
        "64",
        "--threads",
        "1",
        "--cors",
        "https://ours.example",
    )
    with Server("text-classification", *arguments, NPBERT_API_KEY="s3cret") as made:
        yield made
        assert made.end(signal.SIGINT) == 130
        assert made.log.count("\n") == 1


KEY = {"Authorization": "Bearer s3cret"}


def test_without_the_key_nothing_is_told_but_that_it_lives(narrow):
    for path, body in (("/info", None), ("/metrics", None), ("/openapi.json", None),
                       (CLASSIFY, {"inputs": "a"}), ("/v1/ner", {})):  # fmt: skip
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            reply = narrow.ask(path, body, **headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.value["error"] == ("expected the server's key: Authorization: Bearer KEY")
        assert narrow.ask(path, body, **KEY).status == (404 if path == "/v1/ner" else 200)
    assert narrow.ask("/health").status == narrow.ask("/ready").status == 200
    assert "sentiment" not in narrow.ask("/").value


def test_a_task_that_is_not_served_is_told_with_those_that_are(narrow):
    for path, body in (("/embed", {"inputs": "a"}), ("/v1/fill-mask", {"inputs": "a"})):
        reply = narrow.ask(path, body, **KEY)
        task = "sentence-embedding" if path == "/embed" else "fill-mask"
        assert (reply.status, reply.value["error"]) == (
            404, f"no {task} is served here, but text-classification"
        )  # fmt: skip


def test_pages_of_other_origins_may_not_ask_unless_that_was_said(narrow):
    body = {"inputs": "a"}
    reply = narrow.ask(CLASSIFY, body, Origin="https://theirs.example", **KEY)
    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers
    own = f"http://127.0.0.1:{narrow.port}"
    for origin, header in (("https://ours.example", "https://ours.example"), (own, None)):
        reply = narrow.ask(CLASSIFY, body, Origin=origin, **KEY)
        assert reply.status == 200
        assert reply.headers.get("access-control-allow-origin") == header


def test_a_page_of_another_name_for_this_machine_may_not_ask_unless_it_has_the_key(server, narrow):
    port, body = server.port, {"inputs": "a"}
    for host, status in (
        (f"localhost:{port}", 200), (f"127.0.0.1:{port}", 200), (f"[::1]:{port}", 200),
        ("192.0.2.1", 200), (f"theirs.example:{port}", 403), ("theirs.example", 403),
    ):  # fmt: skip
        reply = server.ask(CLASSIFY, body, Host=host, Origin=f"http://{host}")
        assert reply.status == status
        assert server.ask(CLASSIFY, body, Host=host).status == 200  # which is no browser's page
    assert reply.value["error"] == (
        "'theirs.example' is another name for this machine's own address, which a page may ask as "
        "localhost; --cors 'http://theirs.example' lets this one in"
    )
    named = {"Host": "ours", "Origin": "http://ours"}
    assert narrow.ask(CLASSIFY, body, **named, **KEY).status == 200


@pytest.mark.parametrize("origin", ["null", "", "http://[bad", "localhost", "http://localhost@bad"])
def test_an_origin_that_is_none_may_not_ask(server, origin):
    assert server.ask(CLASSIFY, {"inputs": "a"}, Host="localhost", Origin=origin).status == 403


def test_who_is_slow_is_hung_up_on(narrow):
    head = f"POST {CLASSIFY} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n"
    began = time.monotonic()
    silent = narrow.connect()
    slow_head = narrow.connect(head.encode())
    slow_body = narrow.connect(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    for _ in range(4):
        time.sleep(0.2)
        slow_head.sendall(b"X")
        slow_body.sendall(b" ")
    assert silent.recv(1) == slow_head.recv(1) == b""
    said = slow_body.makefile("rb").read()  # to its end: the server hangs up
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come in 1 seconds, but 5 bytes of it" in said
    assert 0.8 < time.monotonic() - began < 30
    for each in (silent, slow_head, slow_body):
        each.close()


def texts_of(words, count):
    """Return so many texts, no two alike: what is alike is computed once."""
    return [f"{number} {'word ' * words}" for number in range(count)]


def test_too_many_requests_are_sent_away_and_late_ones_told(narrow):
    long = {"inputs": texts_of(200, 300)}
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda _: narrow.ask(CLASSIFY, long, **KEY), range(3)))
    late, also_late, away = sorted(replies, key=lambda each: -each.status)
    assert [late.status, also_late.status, away.status] == [504, 504, 429]
    assert late.value["error"] == "there was no answer in 2 seconds"
    assert away.value["error"] == "2 requests wait already; try again later"
    assert int(away.headers["retry-after"]) >= 1


def test_who_hangs_up_is_not_computed(narrow):
    body = json.dumps({"inputs": texts_of(200, 300)}).encode()
    head = f"POST {CLASSIFY} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n"

    def tokens():
        text = narrow.ask("/metrics", **KEY).value
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("npbert_tokens_total")
        )

    before = tokens()
    with narrow.connect(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body):
        while tokens() == before:
            time.sleep(0.02)
    assert narrow.ask(CLASSIFY, {"inputs": "A cat."}, **KEY).status == 200
    assert tokens() - before < 202 * 300 / 2


def test_a_signal_lets_all_that_was_taken_be_answered():
    with Server("text-classification", "--verbose") as made:
        body = {"inputs": texts_of(100, 24)}
        with ThreadPoolExecutor(4) as pool:
            taken = [pool.submit(made.ask, CLASSIFY, body) for _ in range(4)]
            while made.count("npbert_requests_taken") < 4:
                assert not taken[0].done()
                time.sleep(0.005)
            assert made.end() == 0
            replies = [each.result() for each in taken]
        assert [each.status for each in replies] == [200] * 4
        assert all(len(each.value) == 24 for each in replies)
        assert made.log.count(f"{CLASSIFY} 200, ") == 4
        assert "word" not in made.log
        with pytest.raises(ConnectionRefusedError):
            made.connect()


def test_who_is_not_answered_in_the_time_to_end_is_told_so():
    flags = ("--threads", "1", "--grace", "1", "--max-tokens", "1000000")
    with Server("text-classification", *flags) as made:
        long = {"inputs": texts_of(250, 2000)}
        head = f"POST {CLASSIFY} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{"
        with ThreadPoolExecutor(1) as pool, made.connect(head.encode()) as half:
            taken = pool.submit(made.ask, CLASSIFY, long)
            while not made.count("npbert_requests_taken"):
                time.sleep(0.005)
            assert made.end() == 0
            reply = taken.result()
            assert half.recv(1000).startswith(b"HTTP/1.1 503 ")
        said = {"error": "the server ends, and had no time to answer", "error_type": "Unhealthy"}
        assert (reply.status, reply.value) == (503, said)


def test_a_text_that_breaks_the_model_breaks_no_answer_but_its_own(tmp_path):
    model = npbert.load("builtin:sentiment", copy=True)
    words = model.parameters[WORDS] = model.parameters[WORDS].copy()
    (broken,) = model.tokenizer.encode("treasure").ids[1:-1]
    words[broken] = np.nan
    model.save(tmp_path / "broken")
    with Server(f"text-classification={tmp_path / 'broken'}", "--max-wait", "50") as made:
        for path, status in ((CLASSIFY, 500), ("/predict", 424)):
            with ThreadPoolExecutor(8) as pool:
                texts = ["A cat.", "A treasure.", "A dog.", "A ship."] * 4
                bodies = [{"inputs": text} for text in texts]
                replies = list(pool.map(made.ask, [path] * len(texts), bodies))
            assert [each.status for each in replies] == [200, status, 200, 200] * 4
            said = {"error": "the model failed; the server's log says when",
                    "error_type": "Backend"}  # fmt: skip
            assert replies[1].value == said
        assert made.end() == 0
        assert set(made.log.splitlines()[1:]) == {
            f"npbert: {path} failed: CheckpointError" for path in (CLASSIFY, "/predict")
        }


def children_of(process):
    return {
        int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    }


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_several_processes_share_a_port_and_their_counters_and_one_that_dies_is_replaced():
    with Server("text-classification", "--workers", "2", "--threads", "1") as made:
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: made.ask(CLASSIFY, {"inputs": "A cat."}), range(40)))
        assert [each.status for each in replies] == [200] * 40
        assert made.count("npbert_requests_total") == 40
        first = children_of(made.process.pid)
        assert len(first) == 2
        os.kill(min(first), signal.SIGKILL)
        while len(second := children_of(made.process.pid)) < 2 or second == first:
            time.sleep(0.05)
        assert made.ask(CLASSIFY, {"inputs": "A cat."}).status == 200
        assert made.end() == 0
        assert made.log.splitlines()[1:] == ["npbert: a process ended with -9, and is replaced"]
        for process in first | second:
            assert not Path(f"/proc/{process}").exists()


def test_processes_end_with_the_one_that_started_them_and_leave_nothing(tmp_path):
    arguments = ("text-classification", "--workers", "2", "--threads", "1")
    with Server(*arguments, TMPDIR=str(tmp_path)) as made:
        assert [*tmp_path.iterdir()]
        while len(children := children_of(made.process.pid)) < 2:
            time.sleep(0.05)
        made.process.kill()
        while any(Path(f"/proc/{process}").exists() for process in children):
            time.sleep(0.05)
    assert [*tmp_path.iterdir()] == []


# ---- the command and the app ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ner"], "unknown task 'ner'; it is called 'token-classification' here"),
        (["text-ranking"], "text-ranking has no built-in model; say which: text-ranking=MODEL"),
        (["fill-mask", "fill-mask"], "fill-mask is given twice"),
        (["fill-mask", "--max-tokens", "0"], "--max-tokens is 0, expected a whole number from 1"),
        (["fill-mask", "--max-wait", "-1"], "--max-wait is -1.0, expected milliseconds from 0"),
        (["fill-mask", "--max-batch-tokens", "0"],
         "--max-batch-tokens is 0, expected a whole number from 1"),
        (["fill-mask", "--workers", "0"], "--workers is 0, expected a whole number from 1"),
        (["fill-mask", "--host", ""],
         "--host is empty, expected a name or an address; 0.0.0.0 is all of them"),
        (["fill-mask", "--port", "99999"],
         "cannot listen on 127.0.0.1 port 99999: bind(): port must be 0-65535."),
    ],
)  # fmt: skip
def test_a_command_that_makes_no_sense_ends_with_the_reason(capsys, arguments, message):
    assert main(["serve", *arguments]) == 2
    assert capsys.readouterr().err == f"npbert: {message}\n"


def test_an_answer_is_sent_at_once_though_it_comes_in_two_writes():
    process = pytest.importorskip("npbert.serving.process")
    with process.open_port("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # or asyncio would leave Nagle's delay on


def test_a_port_in_use_is_told(server, capsys):
    assert main(["serve", "fill-mask", "--port", str(server.port)]) == 2
    assert capsys.readouterr().err == (
        f"npbert: cannot listen on 127.0.0.1 port {server.port}: Address already in use\n"
    )


def test_an_empty_key_is_no_key(capsys, monkeypatch):
    monkeypatch.setenv("NPBERT_API_KEY", " ")
    assert main(["serve", "fill-mask", "--port", "0"]) == 2
    said = "npbert: NPBERT_API_KEY is empty; unset it, or give it a value\n"
    assert capsys.readouterr().err == said


def test_a_fault_of_the_server_itself_is_told_without_a_trace():
    testclient = pytest.importorskip("starlette.testclient")
    app = npbert.serving.app({"text-classification": None})
    app.state.service.limits = None  # as nothing makes it
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        reply = client.post(CLASSIFY, json={"inputs": "a"})
    said = {"error": "the model failed; the server's log says when", "error_type": "Backend"}
    assert (reply.status_code, reply.json()) == (500, said)


def test_space_around_a_key_is_no_part_of_it(monkeypatch):
    from npbert.serving.gate import read_key

    monkeypatch.setenv("NPBERT_API_KEY", " s3cret\n")
    assert read_key() == "s3cret"


def test_a_signal_that_comes_at_once_is_obeyed_in_order():
    for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        with Server("fill-mask") as made:
            assert made.end(number) == status


@pytest.mark.parametrize(
    ("tasks", "how", "message"),
    [
        ({}, {}, "tasks is {}, expected a dict of tasks and their models"),
        (["fill-mask"], {}, "tasks is ['fill-mask'], expected a dict of tasks and their models"),
        ({"fill-mask": {}}, {}, "fill-mask has no model, expected at least one"),
        ({"fill-mask": None}, {"max_wait": "2"}, "max_wait is '2', expected milliseconds from 0"),
        ({"fill-mask": None}, {"max_batch_tokens": 0.5},
         "max_batch_tokens is 0.5, expected a whole number from 1"),
    ],
)  # fmt: skip
def test_an_app_that_makes_no_sense_is_an_input_error(tasks, how, message):
    with pytest.raises(npbert.InputError) as caught:
        npbert.serving.app(tasks, **how)
    assert str(caught.value) == message


def test_an_app_is_mounted_below_another_and_takes_what_is_loaded():
    starlette = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")
    uvicorn = pytest.importorskip("uvicorn")
    task = npbert.pipeline("text-classification", top_k=None)
    model = npbert.load("builtin:fill-mask")
    app = npbert.serving.app({"text-classification": task, "fill-mask": {"small": model}})
    main_app = starlette.Starlette(routes=[routing.Mount("/npbert", app=app)])
    config = uvicorn.Config(main_app, port=0, log_config=None, lifespan="off")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    ask = Server.__new__(Server)
    ask.port = running.servers[0].sockets[0].getsockname()[1]
    try:
        answer = ask.ask("/npbert/v1/text-classification", {"inputs": "A cat."}).value
        assert answer == task("A cat.")
        body = {"inputs": "A [MASK].", "model": "small"}
        assert len(ask.ask("/npbert/v1/fill-mask", body).value) == 5
        assert 'data-path="v1/fill-mask"' in ask.ask("/npbert/").value
    finally:
        running.should_exit = True
        thread.join()
    app.state.service.close()
    names = [each.name for each in threading.enumerate()]
    assert [name for name in names if name.startswith("npbert-")] == []
