"""Clients of other systems against npbert serve: what they get is the library's.

Needs openai and huggingface_hub (pip install -e ".[test,serve]" openai).
"""

import base64
from pathlib import Path

import numpy as np
import pytest
from serving_process import Server

import npbert

pytestmark = [pytest.mark.serve, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
MODELS = Path(__file__).parent.parent / "golden" / "tasks"
TEXTS = ["A film to treasure.", "Tedious from start to finish.", "cat " * 30]
WITHIN = 1e-6
QA, EMBED, NLI = MODELS / "qa", MODELS / "st_cls_norm", MODELS / "nli"


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    tasks = ("token-classification", "fill-mask", f"question-answering={QA}",
             f"sentence-embedding={EMBED}", "text-classification", "feature-extraction",
             f"zero-shot-classification={NLI}")  # fmt: skip
    with Server(*tasks, NPBERT_API_KEY="s3cret") as made:
        yield made


@pytest.fixture(scope="module")
def vectors():
    return npbert.pipeline("sentence-embedding", EMBED)(TEXTS)


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_openais_client_gets_the_librarys_embeddings(server, vectors, form):
    openai = pytest.importorskip("openai")
    how = {"encoding_format": form} if form else {}  # by itself it asks for base64, and unpacks it

    def numbers(each):
        packed = form == "base64"
        return np.frombuffer(base64.b64decode(each), "<f4") if packed else np.array(each)

    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="s3cret", max_retries=0
    ) as client:
        reply = client.embeddings.create(input=TEXTS, model=str(EMBED), **how)
        found = np.stack([numbers(each.embedding) for each in reply.data])
        assert np.abs(found - vectors).max() <= WITHIN
        assert [each.index for each in reply.data] == [0, 1, 2]
        assert reply.usage.total_tokens == reply.usage.prompt_tokens > 40
        short = client.embeddings.create(input=TEXTS[0], model=str(EMBED), dimensions=4, **how)
        assert np.abs(numbers(short.data[0].embedding) - vectors[0, :4]).max() <= WITHIN


def test_openais_client_sends_ids_of_tokens_and_finds_the_models(server, vectors):
    openai = pytest.importorskip("openai")
    url = f"http://127.0.0.1:{server.port}/v1"
    with openai.OpenAI(base_url=url, api_key="s3cret", max_retries=0) as client:
        (model,) = client.models.list()
        encode = npbert.pipeline("sentence-embedding", EMBED).tokenizer.encode
        ids = [encode(text).ids for text in TEXTS]
        reply = client.embeddings.create(input=ids, model=model.id)
        found = np.array([each.embedding for each in reply.data])
        assert np.abs(found - vectors).max() <= WITHIN
        (one,) = client.embeddings.create(input=ids[1][1:-1], model=model.id).data
        assert np.abs(one.embedding - vectors[1]).max() <= WITHIN


def test_openais_client_raises_its_own_errors(server):
    openai = pytest.importorskip("openai")
    url = f"http://127.0.0.1:{server.port}/v1"
    with (
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="expected the server's key"),
    ):
        client.embeddings.create(input="a", model=str(EMBED))
    with openai.OpenAI(base_url=url, api_key="s3cret", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="model is 'gpt', but sentence-embedding"):
            client.embeddings.create(input="a", model="gpt")
        with pytest.raises(openai.UnprocessableEntityError, match="text 1: a text is a str"):
            client.embeddings.create(input=["a", 5], model=str(EMBED))


@pytest.fixture
def client():
    hub = pytest.importorskip("huggingface_hub")
    return hub.InferenceClient(token="s3cret")


def test_inference_client_gets_the_librarys_embeddings(server, client, vectors):
    url = f"http://127.0.0.1:{server.port}/embed"
    assert np.abs(client.feature_extraction(TEXTS, model=url) - vectors).max() <= WITHIN
    (one,) = client.feature_extraction(TEXTS[0], model=url, normalize=True, truncate=True)
    assert np.abs(one - vectors[0]).max() <= WITHIN
    how = {"dimensions": 4, "truncation_direction": "right", "encoding_format": "float"}
    short = client.feature_extraction(TEXTS, model=url, normalize=False, **how)
    assert short.shape == (3, 4)
    states = client.feature_extraction(
        "A cat.", model=f"http://127.0.0.1:{server.port}/v1/feature-extraction"
    )
    assert states.tolist() == npbert.pipeline("feature-extraction")("A cat.")


def test_inference_client_compares_and_classifies(server, client, vectors):
    url = f"http://127.0.0.1:{server.port}"
    close = client.sentence_similarity(TEXTS[0], TEXTS[1:], model=f"{url}/similarity")
    assert np.abs(close - vectors[1:] @ vectors[0]).max() <= WITHIN
    for how in ({}, {"top_k": 1}, {"function_to_apply": "none"}):
        found = client.text_classification(
            TEXTS[0], model=f"{url}/pipeline/text-classification", **how
        )
        expected = npbert.pipeline("text-classification", top_k=None)(TEXTS[0], **how)
        assert [(each.label, each.score) for each in found] == [
            (each["label"], pytest.approx(each["score"])) for each in expected
        ]
    path, labels = f"{url}/pipeline/zero-shot-classification", ["red", "old", "cat"]
    for how in ({}, {"multi_label": True, "hypothesis_template": "It is {}."}):
        found = client.zero_shot_classification(TEXTS[0], labels, model=path, **how)
        answer = npbert.pipeline("zero-shot-classification", NLI)(
            TEXTS[0], candidate_labels=labels, **how
        )
        assert [each.label for each in found] == answer["labels"]
        assert [each.score for each in found] == pytest.approx(answer["scores"])


def test_inference_client_gets_the_librarys_answers(server, client):
    url = f"http://127.0.0.1:{server.port}/v1"
    text = "Ada Lovelace met Charles Babbage in London."
    found = client.token_classification(text, model=f"{url}/token-classification")
    expected = npbert.pipeline("token-classification")(text)
    assert [(e.entity_group, e.word, e.start, e.end) for e in found] == [
        (e["entity_group"], e["word"], e["start"], e["end"]) for e in expected
    ]
    text = "The ship sank in the [MASK]."
    words = client.fill_mask(text, model=f"{url}/fill-mask", top_k=3)
    assert [each.token_str for each in words] == [
        each["token_str"] for each in npbert.pipeline("fill-mask")(text, top_k=3)
    ]
    asked = {"question": "Who sat?", "context": "The cat sat on the red mat."}
    answer = client.question_answering(**asked, model=f"{url}/question-answering")
    assert answer.answer == npbert.pipeline("question-answering", QA)(asked)["answer"]
