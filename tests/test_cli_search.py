"""npbert search and similarity: embeddings are written once, and used for the same texts only."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.cli import main

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
TEXTS = ["the old house", "she sings and he plays", "a boat on the sea", "the house was old", "no"]
MADE = "5 inputs"


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(json.dumps({"id": 10 + i, "text": t}) + "\n" for i, t in enumerate(TEXTS))
    )
    return path


@pytest.fixture
def ask(capsys):
    """Run a command and return its status, the objects it prints, and what it tells."""

    def run(*args, model="st_mean"):
        named = () if model is None else ("-m", str(MODELS / model))
        status = main([*map(str, args), *named])
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err

    return run


def nearest(query, k, model="st_mean", **options):
    embed = npbert.pipeline("sentence-embedding", MODELS / model)
    scores = embed.similarity(embed(query, **options), embed(TEXTS))[0]
    return np.argsort(-scores, kind="stable")[:k].tolist(), scores


def test_the_nearest_texts_of_a_file_come_with_their_scores_and_other_fields(index, ask):
    status, answers, err = ask("search", "--index", index, "--query", "an old house", "--top-k", 3)
    assert status == 0
    assert MADE in err
    (answer,) = answers
    ids, scores = nearest("an old house", 3)
    assert answer["query"] == "an old house"
    assert answer["results"] == [
        {
            "corpus_id": i, "score": pytest.approx(scores[i], abs=1e-6), "text": TEXTS[i],
            "fields": {"id": 10 + i},
        }
        for i in ids
    ]  # fmt: skip


def test_embeddings_are_written_once_and_used_again(index, ask):
    first = ask("search", "--index", index, "--query", "sea")
    target = index.with_name("texts.jsonl.npy")
    before = target.stat()
    second = ask("search", "--index", index, "--query", "sea", "--query", "song")
    assert second[1][0] == first[1][0]
    assert len(second[1]) == 2
    assert second[2] == ""
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    made = npbert.pipeline("sentence-embedding", MODELS / "st_mean")(TEXTS)
    np.testing.assert_allclose(np.load(target), made, atol=1e-6)
    assert sorted(p.name for p in index.parent.iterdir()) == [
        "texts.jsonl", "texts.jsonl.npy", "texts.jsonl.npy.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "more", "why"),
    [
        (lambda path: path.write_text('{"text": "no"}\n'), (), "the texts have changed"),
        (None, ("--normalize",), "the options are others"),
        (None, ("--max-length", "60"), "the options are others"),
        (None, ("--field", "text=text"), "it is read otherwise"),
    ],
)
def test_what_changed_is_told_and_embeddings_are_made_anew(index, ask, change, more, why):
    ask("search", "--index", index, "--query", "sea")
    target = index.with_name("texts.jsonl.npy")
    if change:
        change(index)
    status, answers, err = ask("search", "--index", index, "--query", "sea", *more)
    assert status == 0
    told = f"npbert: {index}: {why} since its embeddings were written to {target}; they are made"
    assert err.startswith(told)
    assert len(answers[0]["results"]) == len(np.load(target))
    assert ask("search", "--index", index, "--query", "sea", *more) == (0, answers, "")


def test_another_model_is_told_and_only_its_embeddings_are_searched(index, ask):
    ask("search", "--index", index, "--query", "sea")
    _, answers, err = ask("search", "--index", index, "--query", "sea", model="st_max")
    assert ": the model is another since its embeddings were written" in err
    assert [hit["corpus_id"] for hit in answers[0]["results"]] == nearest("sea", 5, "st_max")[0]


def test_queries_may_have_a_prompt_of_their_own_and_the_folders_similarity_holds(index, ask):
    options = ("--prompt", "", "--query-prompt-name", "passage")
    _, answers, _ = ask("search", "--index", index, "--query", "sea", *options, model="st_prompts")
    embed = npbert.pipeline("sentence-embedding", MODELS / "st_prompts", prompt="")
    query = embed("sea", prompt=None, prompt_name="passage")
    scores = embed.similarity(query, embed(TEXTS), "dot")[0]
    found = {hit["corpus_id"]: hit["score"] for hit in answers[0]["results"]}
    assert found == pytest.approx(dict(enumerate(scores)), abs=1e-4)
    status, _, err = ask("search", "--index", index, "--query", "a", "--query-prompt-name", "no")
    assert status == 2
    assert err == "npbert: --query-prompt-name is 'no', but the model has document, query\n"


def test_queries_come_from_stdin_and_texts_from_lines_or_tables(tmp_path, ask, monkeypatch):
    plain, table = tmp_path / "a.txt", tmp_path / "b.csv"
    plain.write_text("\n".join(TEXTS) + "\n")
    table.write_text("n,review\n" + "".join(f"{i},{text}\n" for i, text in enumerate(TEXTS)))
    monkeypatch.setattr(sys, "stdin", io.StringIO("sea\nold\n"))
    _, lines, _ = ask("search", "--index", plain, "--top-k", 2)
    assert [answer["query"] for answer in lines] == ["sea", "old"]
    assert all("fields" not in hit for answer in lines for hit in answer["results"])
    _, rows, _ = ask(
        "search", "--index", table, "--field", "review", "--query", "sea", "--top-k", 2
    )
    assert rows[0]["results"] == [
        {**hit, "fields": {"n": str(hit["corpus_id"])}} for hit in lines[0]["results"]
    ]


def test_a_file_that_npbert_did_not_write_stays_as_it_is(index, ask):
    target = index.with_name("texts.jsonl.npy")
    target.write_bytes(b"mine")
    status, _, err = ask("search", "--index", index, "--query", "sea")
    assert status == 2
    assert err == (
        f"npbert: {target}: is there, but not texts.jsonl.npy.json, which says what it was made "
        "of; move it out of the way, or name another file with --embeddings\n"
    )
    assert target.read_bytes() == b"mine"
    other = index.with_name("other.npy")
    assert ask("search", "--index", index, "--query", "sea", "--embeddings", other)[0] == 0
    assert other.exists()
    (index.parent / "other.npy").write_bytes(b"broken")
    status, _, err = ask("search", "--index", index, "--query", "sea", "--embeddings", other)
    assert status == 2
    assert "other.npy: holds no array: " in err


def test_what_makes_no_sense_is_refused_before_anything_is_written(index, ask, tmp_path):
    for args, why in (
        (("--index", tmp_path / "none"), f"--index {tmp_path / 'none'}: no such file"),
        (("--index", tmp_path), f"--index {tmp_path}: is no file"),
        (("--index", index, "--top-k", 0), "--top-k is 0, expected a whole number from 1"),
        (
            ("--index", index, "--embeddings", tmp_path / "x.bin"),
            f"--embeddings {tmp_path / 'x.bin'}: expected a name in .npy",
        ),
    ):
        status, answers, err = ask("search", *args, "--query", "sea")
        assert (status, answers, err) == (2, [], f"npbert: {why}\n")
    assert list(tmp_path.iterdir()) == [index]
    index.write_text('{"text": "a"}\n{"id": 2}\n')
    status, _, err = ask("search", "--index", index, "--query", "sea")
    assert status == 2
    assert "line 2: has no text" in err
    assert not index.with_name("texts.jsonl.npy").exists()


def test_similarity_compares_a_text_with_others(ask):
    status, answers, err = ask("similarity", *TEXTS[:3])
    embed = npbert.pipeline("sentence-embedding", MODELS / "st_mean")
    a, b, c = embed(TEXTS[:3])
    assert (status, err) == (0, "")
    assert answers == [
        {"texts": [TEXTS[0], TEXTS[1]], "score": pytest.approx(embed.similarity(a, b)[0, 0])},
        {"texts": [TEXTS[0], TEXTS[2]], "score": pytest.approx(embed.similarity(a, c)[0, 0])},
    ]
    with pytest.raises(SystemExit):
        ask("similarity", "only one")
    assert ask("similarity", "a", "b", model=None)[1][0]["texts"] == ["a", "b"]
