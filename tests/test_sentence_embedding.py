"""sentence-embedding: folders of sentence-transformers are run as they are, or refused by name."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from rigged import WIDTH, rigged
from safetensors.numpy import save_file

import npbert
from npbert.tasks.modules import POOLINGS, normalize, pool
from npbert.tasks.sentence_transformers import Recipe, read_recipe
from npbert.textbook import erf

TYPES = "sentence_transformers.models"
MEANINGS = {"cat": 0, "dog": 1, "query": 2, ":": 3, "[CLS]": 4, "[SEP]": 5}


def written(folder: Path, *modules: tuple[str, dict, dict], **settings: object) -> Path:
    """Make a sentence-transformers folder: a module is its type, its config and its tensors."""
    rigged(folder, "base", MEANINGS)
    listing = [{"idx": 0, "name": "0", "path": "", "type": f"{TYPES}.Transformer"}]
    for i, (kind, config, tensors) in enumerate(modules, 1):
        under = f"{i}_{kind}"
        (folder / under).mkdir()
        (folder / under / "config.json").write_text(json.dumps(config))
        if tensors:
            save_file(tensors, folder / under / "model.safetensors")
        listing.append({"idx": i, "name": str(i), "path": under, "type": f"{TYPES}.{kind}"})
    (folder / "modules.json").write_text(json.dumps(listing))
    for name, content in settings.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


MEAN = ("Pooling", {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}, {})
CLS = ("Pooling", {"pooling_mode": "cls"}, {})


def hidden(folder: Path, text: str) -> np.ndarray:
    task = npbert.pipeline("feature-extraction", folder)
    return np.array(task(text), np.float32)


def test_the_mean_of_an_empty_text_is_zero_and_not_nan():
    """Defect of Bumblebee: mean pooling of an empty mask is 0 / 0."""
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for mode in POOLINGS:
        assert np.array_equal(pool(x, [mode], skipped=3), np.zeros(4))
        assert np.array_equal(pool(x[:0], [mode]), np.zeros(4))


def test_every_mode_is_what_its_name_says():
    x = np.array([[1.0, -4.0], [2.0, 8.0], [6.0, 2.0], [7.0, -6.0]], np.float32)
    expected = {
        "cls": [1, -4], "max": [7, 8], "mean": [4, 0], "mean_sqrt_len_tokens": [8, 0],
        "weightedmean": [(1 + 4 + 18 + 28) / 10, (-4 + 16 + 6 - 24) / 10], "lasttoken": [7, -6],
    }  # fmt: skip
    for mode, value in expected.items():
        np.testing.assert_allclose(pool(x, [mode]), value, rtol=1e-6)
    assert pool(x, list(expected)).shape == (12,)
    # Behind a prompt of one token the places of the others are still 2, 3 and 4.
    np.testing.assert_allclose(pool(x, ["weightedmean"], 1)[0], (4 + 18 + 28) / 9, rtol=1e-6)
    np.testing.assert_allclose(pool(x, ["cls"], 1), [2, 8])


def test_one_text_gives_a_vector_and_a_list_a_matrix(tmp_path):
    embed = npbert.pipeline("sentence-embedding", written(tmp_path, MEAN))
    one = embed("cat")
    assert (one.shape, one.dtype) == ((WIDTH,), np.float32)
    np.testing.assert_allclose(one, hidden(tmp_path, "cat").mean(0), rtol=1e-6)
    both = embed(["cat", "dog cat"])
    assert both.shape == (2, WIDTH)
    assert [x.shape for x in embed(text for text in ["cat", "dog"])] == [(WIDTH,)] * 2
    assert embed([]).shape == (0, WIDTH)
    assert (embed([], precision="binary").shape, embed([], precision="int8").dtype) == (
        (0, 2),
        "i1",
    )
    model = npbert.load(tmp_path)  # which knows its folder
    assert np.array_equal(npbert.pipeline("sentence-embedding", model)("cat"), one)


def test_dense_norms_and_normalize_run_in_their_order(tmp_path):
    rng = np.random.default_rng(1)
    weight, bias = (rng.normal(size=s).astype(np.float32) for s in ((7, WIDTH), 7))
    gain, shift = (rng.normal(size=7).astype(np.float32) for _ in range(2))
    dense = {
        "in_features": WIDTH, "out_features": 7,
        "activation_function": "torch.nn.modules.activation.GELU",
    }  # fmt: skip
    folder = written(
        tmp_path, MEAN,
        ("Dense", dense, {"linear.weight": weight, "linear.bias": bias}),
        ("LayerNorm", {"dimension": 7}, {"norm.weight": gain, "norm.bias": shift}),
        ("Normalize", {}, {}),
        ("Dropout", {"dropout": 0.5}, {}),
    )  # fmt: skip
    x = weight @ hidden(folder, "cat dog").mean(0) + bias
    x = x * (1 + erf(x / np.sqrt(2))) / 2
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + shift
    made = npbert.pipeline("sentence-embedding", folder)("cat dog")
    np.testing.assert_allclose(made, x / np.linalg.norm(x), rtol=1e-5, atol=1e-6)


def test_dense_layers_before_the_pooling_work_on_every_token(tmp_path):
    rng = np.random.default_rng(2)
    shapes = ((7, WIDTH), (5, 7), (3, 5))
    weights = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    bias = rng.normal(size=7).astype(np.float32)
    tokens = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    name = "torch.nn.modules.{}".format
    one = {"in_features": WIDTH, "out_features": 7, "activation_function": name("activation.Tanh")}
    two = {"in_features": 7, "out_features": 5, "bias": False,
           "activation_function": name("linear.Identity"), "module_output_name": None}  # fmt: skip
    last = {"in_features": 5, "out_features": 3, "activation_function": name("activation.ReLU"),
            "bias": False}  # fmt: skip
    for i, (pooling, join) in enumerate(
        [(MEAN, lambda x: x.mean(0)), (CLS, lambda x: x[0]),
         (("Pooling", {"pooling_mode": "max"}, {}), lambda x: x.max(0))]
    ):  # fmt: skip
        folder = written(
            tmp_path / str(i),
            ("Dense", {**one, **tokens}, {"linear.weight": weights[0], "linear.bias": bias}),
            ("Dense", {**tokens, **two}, {"linear.weight": weights[1]}),
            pooling,
            ("Dense", last, {"linear.weight": weights[2]}),
        )
        x = np.tanh(hidden(folder, "cat dog") @ weights[0].T + bias) @ weights[1].T
        embed = npbert.pipeline("sentence-embedding", folder)
        np.testing.assert_allclose(
            embed("cat dog"), np.maximum(weights[2] @ join(x), 0), rtol=1e-4, atol=1e-5
        )
        assert embed.collect(iter(()), embed.options).shape == (0, 3)
        assert npbert.trace(npbert.load(folder), [[1, 2]])["pooling"].shape == (1, 5)


def test_a_model_that_does_not_say_how_is_told_of(tmp_path):
    folder = rigged(tmp_path, "base", MEANINGS)
    with pytest.warns(npbert.NpbertWarning) as told:
        embed = npbert.pipeline("sentence-embedding", folder)
    assert [str(w.message) for w in told] == [
        "the model does not say how its embeddings are made (it has no modules.json); npbert takes "
        "the mean of its tokens"
    ]
    np.testing.assert_allclose(embed("cat"), hidden(folder, "cat").mean(0), rtol=1e-6)


@pytest.fixture(scope="module")
def built_in():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the folder does not say how, for one
        return npbert.pipeline("sentence-embedding")


PARAPHRASES = {  # a text: the same in other words, and another text in nearly the same words
    "How old is the queen?": ("What is the age of the queen?", "How far is the station?"),
    "A child is riding a pony.": ("A kid rides a small horse.", "A child is eating a pear."),
    "A man is cooking dinner.": ("Somebody prepares a meal.", "A man is cleaning a car."),
    "The cat is asleep.": ("A kitten sleeps.", "The door is open."),
    "He is a doctor.": ("He works as a physician.", "He is a baker."),
    "The film bored me.": ("I found the movie dull.", "The bread fed me."),
    "They sold the house last year.": (
        "Their home was sold a year ago.",
        "They met me last night.",
    ),
}


@pytest.mark.parametrize("text", PARAPHRASES)
def test_the_built_in_model_finds_the_same_in_other_words(text, built_in):
    same, other = built_in.similarity(built_in(text), built_in([*PARAPHRASES[text]]))[0]
    assert same > other + 0.1


def test_the_built_in_model_finds_the_paragraph_that_answers(built_in):
    paragraphs = [
        "Bread is made of flour, water and salt. The dough rises for some hours, since yeast turns "
        "sugar into gas; then it is baked in a hot oven until the crust is brown.",
        "The heart pumps blood through the body. It beats some seventy times a minute, and faster "
        "when somebody runs, as the muscles then need more oxygen.",
        "A glacier is a river of ice. Snow that falls on high mountains becomes ice under its own "
        "weight, and creeps down the valley for centuries until it melts.",
    ]
    questions = ["Why does dough rise?", "How often does a heart beat?", "Where does ice go?"]
    scores = built_in.similarity(built_in(questions), built_in(paragraphs))
    assert scores.argmax(1).tolist() == [0, 1, 2]


def test_the_built_in_models_embeddings_are_one_long_and_the_folder_is_small(built_in):
    embeddings = built_in(["The ship sank.", "!", "tea " * 200])
    assert embeddings.shape == (3, 192)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    files = [path for path in built_in.model.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000


PROMPTS = {
    "config_sentence_transformers": {
        "prompts": {"query": "query: ", "none": ""}, "default_prompt_name": "query",
        "similarity_fn_name": "dot",
    }
}  # fmt: skip


def test_prompts_are_the_callers_or_else_the_models(tmp_path):
    embed = npbert.pipeline("sentence-embedding", written(tmp_path, MEAN, **PROMPTS))
    assert np.array_equal(embed("cat"), embed("cat", prompt="query: "))
    assert not np.array_equal(embed("cat"), embed("cat", prompt=""))
    assert np.array_equal(embed("cat", prompt_name="none"), embed("cat", prompt=""))
    with pytest.raises(npbert.InputError, match=r"^prompt_name is 'qery', but the model has query"):
        embed("cat", prompt_name="qery")


def test_a_prompt_may_be_left_out_of_the_mean(tmp_path):
    config = {"pooling_mode": "mean", "include_prompt": False}
    embed = npbert.pipeline("sentence-embedding", written(tmp_path, ("Pooling", config, {})))
    made = embed("cat", prompt="query: ")
    # [CLS] query : cat [SEP], of which cat and [SEP] are heard
    np.testing.assert_allclose(made, hidden(tmp_path, "query: cat")[3:].mean(0), rtol=1e-6)
    with pytest.raises(npbert.InputError, match="the prompt fills all of the 64 tokens"):
        embed("cat", prompt="query " * 70)


def test_a_text_is_cut_where_the_folder_says_and_that_is_told(tmp_path):
    folder = written(
        tmp_path, MEAN, sentence_bert_config={"max_seq_length": 5, "do_lower_case": True}
    )
    embed = npbert.pipeline("sentence-embedding", folder)
    with pytest.warns(
        npbert.NpbertWarning, match=r"^1 of the texts was truncated to 5 tokens, 2 tokens"
    ):
        cut = embed("CAT dog cat dog cat")
    np.testing.assert_allclose(cut, embed("cat dog cat"), rtol=1e-6)
    with pytest.raises(npbert.InputError, match="has 7 tokens, but the model reads 5"):
        embed("cat dog cat dog cat", long="error")


def test_embeddings_are_shortened_before_they_are_normed(tmp_path):
    embed = npbert.pipeline("sentence-embedding", written(tmp_path, MEAN))
    short = embed("cat", truncate_dim=5, normalize=True)
    np.testing.assert_allclose(short, normalize(embed("cat")[:5]), rtol=1e-6)
    with pytest.raises(npbert.InputError) as error:
        embed("cat", truncate_dim=13)
    assert str(error.value) == "truncate_dim is 13, but embeddings have 12 dimensions"


def test_precisions_hold_a_number_a_byte_or_a_bit(tmp_path):
    embed = npbert.pipeline("sentence-embedding", written(tmp_path, MEAN))
    texts = ["cat", "dog", "cat dog"]
    x = embed(texts)
    bits = np.packbits(x > 0, axis=-1)
    assert np.array_equal(embed(texts, precision="ubinary"), bits)
    assert np.array_equal(embed(texts, precision="binary"), bits.astype(int) - 128)
    ranges = np.stack([x.min(0), x.max(0)])
    for precision, kind in (("int8", np.int8), ("uint8", np.uint8)):
        made = embed(texts, precision=precision, ranges=ranges)
        assert made.dtype == kind
        assert made.min() == np.iinfo(kind).min
        assert made.max() >= np.iinfo(kind).max - 1  # the greatest value may be rounded down
        with pytest.warns(npbert.NpbertWarning, match="by the ranges of 3 embeddings"):
            assert np.array_equal(embed(texts, precision=precision), made)
        assert np.array_equal(embed("dog", precision=precision, ranges=ranges), made[1])
    with pytest.raises(npbert.InputError, match=r"^precision 'int8' needs ranges, \(2, dim\): the"):
        embed("cat", precision="int8")
    with pytest.raises(npbert.InputError, match=r"ranges has shape \(2, 3\), expected \(2, 12\)"):
        embed(texts, precision="int8", ranges=np.zeros((2, 3)))


def test_ranges_may_lie_in_a_file(tmp_path):
    embed = npbert.pipeline("sentence-embedding", written(tmp_path / "m", MEAN))
    ranges = np.stack([np.full(WIDTH, -1.0), np.ones(WIDTH)])
    np.save(tmp_path / "ranges.npy", ranges)
    there = str(tmp_path / "ranges.npy")
    assert np.array_equal(
        embed("cat", precision="int8", ranges=there), embed("cat", precision="int8", ranges=ranges)
    )
    with pytest.raises(npbert.InputError, match=r"^ranges: .*cannot be read"):
        embed("cat", precision="int8", ranges=str(tmp_path / "none.npy"))


def test_similarity_is_greater_where_embeddings_are_nearer(tmp_path):
    embed = npbert.pipeline("sentence-embedding", written(tmp_path, MEAN, **PROMPTS))
    a, b = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 4.0]])
    expected = {
        "cosine": [[0.6], [0.8]], "dot": [[3], [8]], "manhattan": [[-6], [-5]],
        "euclidean": [[-np.sqrt(20)], [-np.sqrt(13)]],
    }  # fmt: skip
    for name, matrix in expected.items():
        np.testing.assert_allclose(embed.similarity(a, b, name), matrix)
    assert np.array_equal(embed.similarity(a, b), [[3], [8]])  # as the folder says
    assert embed.similarity(a[0], b[0]).shape == (1, 1)
    assert embed.similarity([], []).shape == (0, 0)
    assert embed.similarity(embed([]), embed(["cat"])).shape == (0, 1)
    with pytest.raises(npbert.InputError, match="similarity is 'cos', expected one of cosine"):
        embed.similarity(a, b, "cos")
    with pytest.raises(npbert.InputError, match=r"have the shapes \(2, 2\) and \(1, 3\)"):
        embed.similarity(a, [[1, 2, 3]])


def test_poolings_of_one_token_compute_only_that(tmp_path):
    config = {"pooling_mode": ["cls", "lasttoken"]}
    embed = npbert.pipeline("sentence-embedding", written(tmp_path, ("Pooling", config, {})))
    x = hidden(tmp_path, "cat dog")
    np.testing.assert_allclose(embed("cat dog"), np.concatenate([x[0], x[-1]]), rtol=1e-5)


REFUSED = {
    "a module that npbert has not": (
        [MEAN, ("WordWeights", {}, {})],
        "modules.json: module 2 is 'sentence_transformers.models.WordWeights', which npbert cannot "
        "run here; it runs Transformer, Pooling, Dense, LayerNorm, Normalize, Dropout of "
        "sentence_transformers",
    ),
    "no pooling": (
        [("Normalize", {}, {})],
        "modules.json: lists Transformer, Normalize; expected Transformer, then Pooling",
    ),
    "another pooling": (
        [("Pooling", {"pooling_mode": "middle"}, {})],
        "config.json: pooling_mode is 'middle', expected of cls, max, mean, mean_sqrt_len_tokens, "
        "weightedmean, lasttoken",
    ),
    "code": (
        [MEAN, ("Dense", {"activation_function": "os.system"}, {})],
        "config.json: activation_function is 'os.system'; npbert knows torch.nn's Identity, Tanh, "
        "GELU, ReLU, SiLU, Sigmoid, Mish, ReLU6, LeakyReLU",
    ),
    "a residual": (
        [MEAN, ("Dense", {"use_residual": True}, {})],
        "config.json: use_residual is true, which npbert cannot run",
    ),
    "a dense layer before the pooling that reads sentences": (
        [("Dense", {"activation_function": "torch.nn.Tanh"}, {}), MEAN],
        "config.json: works on 'sentence_embedding', expected token_embeddings",
    ),
    "a dense layer before the pooling whose result nobody reads": (
        [("Dense", {"module_input_name": "token_embeddings", "module_output_name": "x"}, {}), MEAN],
        "config.json: makes 'x', expected token_embeddings",
    ),
    "two poolings": (
        [MEAN, ("Pooling", {}, {})],
        "modules.json: lists Transformer, Pooling, Pooling; expected Transformer, then Pooling",
    ),
    "a norm before the pooling": (
        [("LayerNorm", {}, {}), MEAN],
        "modules.json: lists Transformer, LayerNorm, Pooling; expected Transformer, then Pooling",
    ),
    "dense over tokens": (        [MEAN, ("Dense", {"module_input_name": "token_embeddings"}, {})],
        "config.json: works on 'token_embeddings', expected sentence_embedding",
    ),
    "weights of another shape": (
        [MEAN, ("Dense", {"in_features": 3, "out_features": 2, "bias": False},
                {"linear.weight": np.zeros((3, 2), np.float32)})],
        "model.safetensors: linear.weight is F32 (3, 2), but config.json says (2, 3)",
    ),
    "a bias too many": (
        [MEAN, ("Dense", {"in_features": 3, "out_features": 2, "bias": False},
                {"linear.weight": np.zeros((2, 3), np.float32),
                 "linear.bias": np.zeros(2, np.float32)})],
        "2_Dense: holds linear.bias, linear.weight, expected linear.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("modules", "message"), REFUSED.values(), ids=REFUSED)
def test_a_module_that_cannot_be_run_is_named_and_never_skipped(tmp_path, modules, message):
    with pytest.raises(npbert.CheckpointError) as error:
        npbert.pipeline("sentence-embedding", written(tmp_path, *modules))
    assert str(error.value).endswith(message)


@pytest.mark.parametrize("under", ["..", "/etc", "a/../../b"])
def test_a_module_outside_of_the_folder_is_refused(tmp_path, under):
    folder = written(tmp_path, MEAN)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = under
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(npbert.CheckpointError, match="expected one below its own"):
        read_recipe(folder)


@pytest.mark.parametrize("content", ["{}", "[1]", "[", '[{"type": 5}]', "[]", '"x"'])
def test_a_modules_json_of_another_kind_is_refused(tmp_path, content):
    folder = written(tmp_path, MEAN)
    (folder / "modules.json").write_text(content)
    with pytest.raises(npbert.CheckpointError, match=r"modules\.json"):
        read_recipe(folder)


SETTINGS = {
    "prompts": ({"prompts": ["a"]}, "prompts is ['a'], expected an object of strings"),
    "default": (
        {"default_prompt_name": "q"},
        "default_prompt_name is 'q', which is not among the prompts, of which there are none",
    ),
    "similarity": (
        {"similarity_fn_name": "hamming"},
        "similarity_fn_name is 'hamming', expected one of cosine, dot, euclidean, manhattan",
    ),
}


@pytest.mark.parametrize(("said", "message"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_make_no_sense_are_refused(tmp_path, said, message):
    folder = written(tmp_path, MEAN, config_sentence_transformers=said)
    with pytest.raises(npbert.CheckpointError) as error:
        read_recipe(folder)
    assert str(error.value) == f"{folder / 'config_sentence_transformers.json'}: {message}"


@pytest.mark.parametrize("value", ["x", 0, -1, 1.5, True, [3]])
def test_a_max_seq_length_that_is_no_length_is_refused(tmp_path, value):
    folder = written(tmp_path, MEAN, sentence_bert_config={"max_seq_length": value})
    with pytest.raises(npbert.CheckpointError, match=r"max_seq_length is .*, expected a whole"):
        read_recipe(folder)


def test_a_recipe_without_a_folder_is_the_mean():
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(Recipe().embed(x), np.ones(3))
