"""sparse-embedding: folders of sentence-transformers are run as they are, or refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from rigged import rigged

import npbert
from npbert.cli import main
from npbert.engine import packs
from npbert.tasks import sparse_embedding
from npbert.tasks.rows import SENTENCE_EMBEDDING, SPARSE_EMBEDDING

TASK = SPARSE_EMBEDDING.name
MEANINGS = {"cat": 0, "dog": 1, "sea": 2}
TEXTS = ["cat", "the dog sea", "tree", "sea sea cat dog cat", "dog"]
PACKAGE = "sentence_transformers.sparse_encoder.models"


def folder(path: Path, pooling=None, *, kinds=("MLMTransformer", "SpladePooling"), **settings):
    """Make a masked language model with words of all signs, and modules if there is a pooling."""
    rigged(path, "for_masked_language_modeling", MEANINGS)
    model = npbert.load(path)
    rng = np.random.default_rng(7)
    drawn = {
        name: rng.normal(scale=0.6, size=x.shape).astype(np.float32)
        for name, x in model.parameters.items()
    }
    npbert.Model(model.config, model.architecture, drawn, tokenizer=model.tokenizer).save(path)
    if pooling is not None:
        listing = [
            {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"{PACKAGE}.{kind}"}
            for i, kind in enumerate(kinds)
        ]  # fmt: skip
        (path / "modules.json").write_text(json.dumps(listing))
        for each in listing[1:]:
            (path / each["path"]).mkdir()
            (path / each["path"] / "config.json").write_text(json.dumps(pooling))
    for name, content in settings.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def logits(path: Path, text: str) -> np.ndarray:
    """Return the logits of every token, (tokens, V), the whole of them, in float64."""
    model = npbert.load(path, dtype="float64")
    return model.packed([list(model.tokenizer.encode(text).ids)])[0]


def dense(answer: dict, path: Path) -> np.ndarray:
    made = np.zeros(npbert.load(path).config.vocab_size)
    made[answer["indices"]] = answer["values"]
    return made


@pytest.mark.parametrize(
    ("pooling", "weigh"),
    [
        (None, lambda x: np.log1p(x.clip(0)).max(0)),
        ({}, lambda x: np.log1p(x.clip(0)).max(0)),
        ({"pooling_strategy": "sum"}, lambda x: np.log1p(x.clip(0)).sum(0)),
        ({"activation_function": "log1p_relu"}, lambda x: np.log1p(np.log1p(x.clip(0))).max(0)),
        (
            {"pooling_strategy": "sum", "activation_function": "log1p_relu"},
            lambda x: np.log1p(np.log1p(x.clip(0))).sum(0),
        ),
    ],
)
def test_a_weight_is_what_the_pooling_says_of_all_tokens(tmp_path, pooling, weigh):
    path = folder(tmp_path, pooling)
    for text, answer in zip(TEXTS, npbert.pipeline(TASK, path)(TEXTS), strict=True):
        expected = weigh(logits(path, text))
        np.testing.assert_allclose(dense(answer, path), expected, atol=1e-5)
        assert answer["values"] == sorted(answer["values"], reverse=True)
        assert min(answer["values"]) > 0
        assert [len(each) for each in answer.values()] == [np.count_nonzero(expected)] * 3
        words = npbert.load(path).tokenizer.pieces
        assert answer["tokens"] == [words.id_to_token(i) for i in answer["indices"]]


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_texts_that_share_pieces_and_packs_are_kept_apart(tmp_path, monkeypatch, strategy):
    path = folder(tmp_path, {"pooling_strategy": strategy})
    texts = ["dog cat sea " * n for n in (1, 9, 2, 20, 3, 1)]
    whole = [dense(a, path) for a in npbert.pipeline(TASK, path)(texts)]
    for size in (1, 5, 7):
        monkeypatch.setattr(sparse_embedding, "PIECE_TOKENS", size)
        made = npbert.pipeline(TASK, path, threads=1)(texts)
        for answer, expected in zip(made, whole, strict=True):
            np.testing.assert_allclose(dense(answer, path), expected, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(packs, "PACK_TOKENS", 16)
    for threads in (1, 3):
        made = npbert.pipeline(TASK, path, threads=threads)(texts)
        for answer, expected in zip(made, whole, strict=True):
            np.testing.assert_allclose(dense(answer, path), expected, rtol=1e-5, atol=1e-6)
    alone = npbert.pipeline(TASK, path, batch_invariant=True)
    assert alone(texts) == [alone(text) for text in texts]


def test_the_logits_of_a_pack_are_never_there_at_once(tmp_path, monkeypatch):
    path, widths = folder(tmp_path, {}), []
    head = sparse_embedding.HEADS["predict_words"]

    def watched(w, x, first, run):
        widths.append(x.shape[-1])
        return head(w, x, first, run)

    monkeypatch.setitem(sparse_embedding.HEADS, "predict_words", watched)
    words = "dog", "cat", "sea"
    texts = [f"{words[i % 3]} {words[i // 3]} " + "dog cat sea " * 19 + "dog" for i in range(8)]
    npbert.pipeline(TASK, path)(texts)
    assert sum(widths) == 8 * 62
    assert max(widths) <= sparse_embedding.PIECE_TOKENS


def test_top_k_keeps_the_largest_and_equals_are_in_the_order_of_their_ids(tmp_path):
    path = folder(tmp_path)
    embed = npbert.pipeline(TASK, path)
    whole = embed("dog")
    assert len(whole["values"]) == 3
    for k in (1, 2, 100):
        assert embed("dog", top_k=k) == {name: some[:k] for name, some in whole.items()}
    model = embed.model
    tied = np.full(model.config.vocab_size, 0.5, np.float32)
    tied[2] = 0.75
    first = embed.answer(None, [tied], embed.options)
    assert first["indices"] == [2, 0, 1, *range(3, model.config.vocab_size)]
    with pytest.raises(npbert.InputError, match=r"^sparse-embedding has no option "
                       r"'max_active_dims'; it is called 'top_k' here$"):  # fmt: skip
        embed("dog", max_active_dims=3)


def test_prompts_lower_case_and_length_are_the_folders(tmp_path):
    path = folder(
        tmp_path, {}, sentence_bert_config={"max_seq_length": 4, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"q": "DOG "}, "default_prompt_name": "q"},
    )  # fmt: skip
    embed = npbert.pipeline(TASK, path)
    assert embed("cat") == embed("dog cat", prompt="")
    assert embed("SEA", prompt="Cat ") == embed("cat sea", prompt="")
    with pytest.warns(npbert.NpbertWarning, match=r"truncated to 4 tokens, 2 tokens were not read"):
        assert embed("cat sea dog") == embed("dog cat", prompt="")
    with pytest.raises(npbert.InputError, match=r"^prompt_name is 'p', but the model has q$"):
        embed("cat", prompt_name="p")
    assert npbert.pipeline(TASK, npbert.load(path))("cat") == embed("cat")  # it knows its folder


def test_a_matrix_is_the_answers_in_the_arrays_of_scipy(tmp_path):
    path = folder(tmp_path)
    embed = npbert.pipeline(TASK, path)
    made = embed.embed_matrix(TEXTS, top_k=4)
    assert made.shape == (5, npbert.load(path).config.vocab_size)
    assert (made.data.dtype, made.indices.dtype, made.indptr.dtype) == ("f4", "i4", "i8")
    for i, answer in enumerate(embed(TEXTS, top_k=4)):
        some = slice(made.indptr[i], made.indptr[i + 1])
        assert made.indices[some].tolist() == sorted(answer["indices"])
        pairs = dict(zip(answer["indices"], answer["values"], strict=True))
        assert made.data[some].tolist() == [np.float32(pairs[j]) for j in made.indices[some]]
    none = embed.embed_matrix([])
    assert (none.data.shape, none.indptr.tolist(), none.shape[0]) == ((0,), [0], 0)


def test_a_batch_writes_json_lines_or_the_arrays_of_scipy(tmp_path, capsys):
    path, source = folder(tmp_path / "m"), tmp_path / "in.txt"
    source.write_text("\n".join(["cat", "the dog sea", "sea cat"] * 100) + "\n")
    embed = npbert.pipeline(TASK, path)
    target = tmp_path / "out.jsonl"
    assert main([TASK, "-m", str(path), "-i", str(source), "-o", str(target)]) == 0
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert lines[:3] == embed(["cat", "the dog sea", "sea cat"])
    target = tmp_path / "out.npz"
    assert main([TASK, "-m", str(path), "-i", str(source), "-o", str(target)]) == 0
    expected = embed.embed_matrix(source.read_text().splitlines())
    with np.load(target) as made:
        assert sorted(made) == ["data", "format", "indices", "indptr", "shape"]
        assert made["format"].item() == b"csr"
        assert tuple(made["shape"]) == expected.shape
        for name in ("data", "indices", "indptr"):
            assert made[name].dtype == getattr(expected, name).dtype
            assert np.array_equal(made[name], getattr(expected, name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "m", "out.jsonl", "out.npz"]
    capsys.readouterr()
    assert main([SENTENCE_EMBEDDING.name, "-o", str(target), "a"]) == 2
    assert capsys.readouterr().err == (
        f"npbert: --output {target}: only sparse-embedding makes an array in .npz\n"
    )


REFUSED = {
    "another strategy": (
        {"pooling_strategy": "mean"}, {},
        "config.json: pooling_strategy is 'mean', expected one of max, sum",
    ),
    "a strategy that is a list": (
        {"pooling_strategy": ["max"]}, {},
        "config.json: pooling_strategy is ['max'], expected one of max, sum",
    ),
    "another activation": (
        {"activation_function": "gelu"}, {},
        "config.json: activation_function is 'gelu', expected one of relu, log1p_relu",
    ),
    "a module more": (
        {}, {"kinds": ("Transformer", "SpladePooling", "SparseAutoEncoder")},
        "modules.json: module 2 is 'sentence_transformers.sparse_encoder.models.SparseAutoEncoder',"
        " which npbert cannot run here; it runs Transformer, SpladePooling of "
        "sentence_transformers",
    ),
    "a model of dense embeddings": (
        {}, {"kinds": ("Transformer", "Pooling")},
        "modules.json: module 1 is 'sentence_transformers.sparse_encoder.models.Pooling', which "
        "npbert cannot run here; it runs Transformer, SpladePooling of sentence_transformers; this "
        "is a model of sentence-embedding",
    ),
    "no pooling": (
        {}, {"kinds": ("Transformer",)},
        "modules.json: lists Transformer; expected Transformer, then SpladePooling",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pooling", "how", "why"), REFUSED.values(), ids=REFUSED)
def test_what_a_folder_says_is_run_or_refused_by_name(tmp_path, pooling, how, why):
    path = folder(tmp_path, pooling, **how)
    with pytest.raises(npbert.CheckpointError) as raised:
        npbert.pipeline(TASK, path)
    assert str(raised.value).endswith(why)


def test_a_sparse_model_is_no_dense_one_and_is_loaded_traced_and_converted(tmp_path, capsys):
    path = folder(tmp_path / "m", {})
    with pytest.raises(npbert.CheckpointError, match=r"; this is a model of sparse-embedding$"):
        npbert.pipeline(SENTENCE_EMBEDDING.name, path)
    model = npbert.load(path)
    assert "logits" in npbert.trace(model, [[1, 2]])
    assert "sentence_embedding" not in npbert.trace(npbert.load(path, "base"), [[1, 2]])
    assert main(["convert", str(path), str(tmp_path / "new")]) == 2
    assert "nothing to convert" in capsys.readouterr().err


def test_logits_that_are_not_finite_are_told_where_they_begin(tmp_path):
    path = folder(tmp_path, {})
    model = npbert.load(path)
    arrays = {name: x.copy() for name, x in model.parameters.items()}
    arrays["vocab_projector.bias"][3] = np.inf
    broken = npbert.Model(model.config, model.architecture, arrays, tokenizer=model.tokenizer)
    with pytest.raises(npbert.CheckpointError, match=r"^vocab_projector is the first activation"):
        npbert.pipeline(TASK, broken)("cat")
