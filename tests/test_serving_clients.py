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
QA, EMBED = MODELS / "qa", MODELS / "st_cls_norm"


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    tasks = ("token-classification", "fill-mask", f"question-answering={QA}",
             f"sentence-embedding={EMBED}")  # fmt: skip
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
