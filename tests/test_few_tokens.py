"""Few tokens in a small model: the textbook's numbers, and the same bits whoever computes."""

import copy
import pickle

import numpy as np
import pytest
import wild

import npbert
from npbert import families
from npbert.engine import few_tokens
from npbert.engine.few_tokens import MOST_TOKENS, FewTokens
from npbert.engine.inputs import check_batch
from npbert.engine.packs import pack_rows
from npbert.engine.threads import split_in_two

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_blocks": 2}
EPSILON = {"bert": {"layer_norm_epsilon": 0.05}, "distilbert": {}}  # DistilBERT's is fixed
FAMILIES = ("distilbert", "bert")
CASES = [(f, a) for f in FAMILIES for a in families.list_architectures(f)]
RNG = np.random.default_rng(5)


@pytest.fixture
def loaded(tmp_path):
    """Make a model of these sizes that is loaded from a folder, as weights are read-only then."""

    def load(family: str, architecture: str, **sizes: object) -> npbert.Model:
        made = wild.model(
            architecture, "float32", family=family, **{**SIZES, **EPSILON[family], **sizes}
        )
        for matrix in (array for array in made.parameters.values() if array.ndim == 2):
            matrix /= 4
        made.save(tmp_path / "model")
        return npbert.load(tmp_path / "model", architecture)

    return load


def small_ids(architecture: str, length: int, texts: int = 1) -> np.ndarray:
    choices = (2,) if "choice" in architecture else ()
    return RNG.integers(0, 97, (texts, *choices, length))


def values_of(output: npbert.Output) -> dict[str, np.ndarray]:
    found = {}
    for name, value in vars(output).items():
        if isinstance(value, tuple):
            found |= {f"{name} {i}": each for i, each in enumerate(value)}
        elif value is not None:
            found[name] = value
    return found


def is_for_few(model: npbert.Model, tokens: int) -> bool:
    return isinstance(model.operations.choose(model.engine, tokens), FewTokens)


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_few_tokens_give_the_numbers_of_the_textbook(family, architecture, loaded):
    fast = loaded(family, architecture)
    exact = npbert.load(fast.folder, architecture, dtype="float64")
    for length, texts in ((1, 1), (5, 1), (3, 2), (4, 4)):
        ids = small_ids(architecture, length, texts)
        mask = np.ones_like(ids)
        mask[..., length // 2 + 1 :] = 0
        head_mask = RNG.uniform(0, 1, (2, 4)).round(1)
        for given in ((ids,), (ids, mask), (ids, mask, None, head_mask)):
            assert is_for_few(fast, ids.size)
            ask = {"output_hidden_states": True, "output_attentions": True}
            ours, theirs = (values_of(model(*given, **ask)) for model in (fast, exact))
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                scale = max(1, abs(value).max())
                assert abs(ours[name] - value).max() <= 5e-6 * scale, (name, length, texts)


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_packed_few_tokens_give_what_dense_ones_give(family, architecture, loaded):
    model = loaded(family, architecture)
    if "choice" in architecture:
        given = [[[5, 6, 7], [8, 9, 10]]]
        assert np.allclose(model.packed(given)[0], model(given).logits[0], atol=1e-6)
        return
    ids = small_ids(architecture, 6)[0].tolist()
    first = next(iter(values_of(model([ids])).values()))[0]
    if "question" in architecture:
        first = np.stack(list(values_of(model([ids])).values()), -1)[0]
    assert np.allclose(model.packed([ids])[0], first, atol=1e-6)


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_who_computes_and_who_listens_changes_no_bit(family, architecture, loaded):
    wide = {"hidden_size": 192, "intermediate_size": 1536, "num_attention_heads": 6}
    model = loaded(family, architecture, **wide)
    ids = small_ids(architecture, 14)
    assert is_for_few(model, ids.size)
    assert len(split_in_two(48, 2 * 192 * 1536, 14)) == 2
    once = values_of(model(ids, threads=1))
    ask = {"output_hidden_states": True, "output_attentions": True}
    for again in (model(ids, threads=2), model(ids, threads=5), model(ids, threads=2, **ask)):
        more = values_of(again)
        assert all(np.array_equal(value, more[name]) for name, value in once.items())


def test_what_a_tap_returns_is_computed_with_as_in_the_textbook(loaded):
    fast = loaded("bert", "for_token_classification")
    exact = npbert.load(fast.folder, dtype="float64")
    given = check_batch(fast.config, fast.row, small_ids("base", 5), None, None, None)
    pack = pack_rows(given)
    names: list[str] = []
    exact.run(pack, tap=lambda name, x: names.append(name) or x)
    assert len(names) > 30
    for target in names:

        def double(name: str, x: np.ndarray, target: str = target) -> np.ndarray:
            return x * 2 if name == target else x

        ours, theirs = (model.run(pack, tap=double)["logits"] for model in (fast, exact))
        assert abs(ours - theirs).max() <= 1e-5 * max(1, abs(theirs).max()), target


def test_weights_that_can_change_lie_in_memory_once(loaded):
    loaded_model = loaded("bert", "base")
    own = npbert.init(loaded_model.config, "base", seed=0)
    ids = small_ids("base", 4)
    assert is_for_few(loaded_model, ids.size)
    assert not is_for_few(own, ids.size)
    before = own(ids).hidden_state
    own.parameters["transformer.layer.0.attention.q_lin.weight"][:] = 0
    assert not np.array_equal(own(ids).hidden_state, before)


def test_weights_that_were_copied_or_widened_at_the_load_are_for_few_tokens_too(loaded):
    folder = loaded("bert", "base").folder
    assert is_for_few(npbert.load(folder, copy=True), 4)
    assert is_for_few(npbert.pipeline("text-classification").model, 4)  # built in as float16


def test_large_models_and_odd_sizes_are_computed_as_before(loaded, monkeypatch):
    assert not is_for_few(loaded("bert", "base", hidden_size=60, num_attention_heads=3), 4)
    model = loaded("bert", "base")
    assert is_for_few(model, MOST_TOKENS)
    assert not is_for_few(model, MOST_TOKENS + 1)
    assert not is_for_few(model, 0)
    assert model(np.zeros((0, 3), int)).hidden_state.shape == (0, 3, 64)
    (none,) = model.packed([[5, 6, 7]], rows=[[]])  # tokens, of which nobody asks
    assert none.shape == (0, 64)
    model.engine = "textbook"
    assert not is_for_few(model, 4)
    monkeypatch.setattr(few_tokens, "LIMIT", 1000)
    assert not is_for_few(npbert.load(model.folder), 4)


def test_pruned_heads_are_for_few_tokens_too(tmp_path):
    config = npbert.Config(
        family="bert", vocab_size=97, max_positions=30, **SIZES, pruned_heads={1: (1,)}
    )
    npbert.init(config, "base", seed=1).save(tmp_path)
    model, exact = npbert.load(tmp_path), npbert.load(tmp_path, dtype="float64")
    ids = small_ids("base", 4)
    assert is_for_few(model, 4)
    assert abs(model(ids).hidden_state - exact(ids).hidden_state).max() <= 5e-6


def test_copies_answer_the_same_and_a_pickle_holds_no_second_copy(loaded):
    model = loaded("bert", "for_sequence_classification")
    ids = small_ids("base", 5)
    size = len(pickle.dumps(model.operations))
    expected = model(ids).logits
    assert len(pickle.dumps(model.operations)) <= size * 1.01
    for again in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(again(ids).logits, expected)


def test_scores_of_any_size_do_not_overflow(loaded):
    model = loaded("bert", "base")
    exact = npbert.load(model.folder, dtype="float64")
    loud = {
        name: array * np.float32(900 if name.endswith("q_lin.weight") else 1)
        for name, array in model.parameters.items()
    }
    npbert.Model(model.config, "base", loud).save(model.folder)
    ours, theirs = npbert.load(model.folder), npbert.load(model.folder, dtype="float64")
    assert is_for_few(ours, 6)
    ids = small_ids("base", 6)
    assert abs(theirs(ids).hidden_state - exact(ids).hidden_state).max() > 0.01
    assert abs(ours(ids).hidden_state - theirs(ids).hidden_state).max() <= 1e-3
