"""Other people's names for things: each is answered with the name here, or why there is no need."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.cli import main
from npbert.engine.spellings import SPELLINGS
from npbert.tasks import TASKS

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
CLASSIFY = "text-classification"


@pytest.fixture(scope="module")
def classify():
    return npbert.pipeline(CLASSIFY)


@pytest.fixture
def told(capsys):
    """Run a command that is refused; return what it told."""

    def run(*args):
        assert main(list(map(str, args))) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        return err.removesuffix("\n")

    return run


def refused(call, *args, **keywords):
    """Return the message of the InputError that a call ends in."""
    with pytest.raises(npbert.InputError) as error:
        call(*args, **keywords)
    return str(error.value)


# Of each name elsewhere: the task that is asked for it, and what is said.
OPTIONS = {
    "topk": (CLASSIFY, "; it is called 'top_k' here"),
    "model": (CLASSIFY, "; it is called 'source_or_model' here"),
    "tokenizer": (
        CLASSIFY, ": the tokenizer is read from the model's folder, with all of its settings"
    ),
    "device": (CLASSIFY, ": npbert computes on the CPU, on all of its cores; threads= takes fewer"),
    "batch_size": (
        "sentence-embedding",
        ": texts share packs without padding, as many as are fastest; pass any number",
    ),
    "convert_to_tensor": (
        "sentence-embedding",
        ": answers are plain Python values, and NumPy arrays where there are many numbers",
    ),
    "normalize_embeddings": ("sentence-embedding", "; it is called 'normalize' here"),
    "torch_dtype": (CLASSIFY, ": pass a Model: npbert.load(source, dtype='float64')"),
    "doc_stride": ("question-answering", "; it is called 'stride' here"),
    "grouped_entities": ("token-classification", "; it is called 'aggregation_strategy' here"),
    "padding": (CLASSIFY, ": nothing is padded; texts of any lengths share a pack"),
    "max_new_tokens": (CLASSIFY, ": an encoder writes no text"),
    "num_workers": (CLASSIFY, "; it is called 'threads' here"),
    "multi_class": ("zero-shot-classification", "; it is called 'multi_label' here"),
    "hypothesis_templat": (
        "zero-shot-classification", "; did you mean 'hypothesis_template'?"
    ),
    "TopK": (CLASSIFY, "; it is called 'top_k' here"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_elsewhere_is_answered_with_its_name_here_or_why_not(name):
    task, hint = OPTIONS[name]
    assert refused(npbert.pipeline, task, **{name: None}) == f"{task} has no option {name!r}{hint}"


def test_no_spelling_is_one_of_a_task_for_which_it_stands():
    options = {name for row in TASKS.values() for name in row.options.__dataclass_fields__}
    for name, spelling in SPELLINGS.items():
        assert bool(spelling.names) or bool(spelling.why)
        if name in options:  # of one task; to others it may be something else
            assert name not in spelling.names


def test_every_function_says_which_argument_it_does_not_have(classify):
    model = npbert.load(MODELS / "classes5")
    said = {
        refused(npbert.load, "x", torch_dtype="float16"):
            "load has no argument 'torch_dtype'; it is called 'dtype' here",
        refused(npbert.load, "x", trust_remote_code=True):
            "load has no argument 'trust_remote_code': npbert never runs a repository's code",
        refused(npbert.load, source="x", local_files_only=True):
            "load has no argument 'local_files_only'; it is called 'offline' here",
        refused(npbert.semantic_search, [[1.0]], [[1.0]], topk=1):
            "semantic_search has no argument 'topk'; it is called 'top_k' here",
        refused(npbert.load): "load: missing a required argument: 'source'",
        refused(model, [[2, 3]], head_mask=None):
            "Model has no argument 'head_mask'; it is called 'attention_head_mask' here",
        refused(model.packed, [[2, 3]], return_dict=True):
            "Model.packed has no argument 'return_dict': answers are plain Python values, and "
            "NumPy arrays where there are many numbers",
        refused(npbert.pipeline, model="x"):
            "pipeline has no argument 'model'; it is called 'source_or_model' here",
        refused(npbert.trace, model, input_idz=[[1]]):
            "trace has no argument 'input_idz'; did you mean 'input_ids'?",
        refused(classify, "a", threads=2):
            "text-classification has no option 'threads': npbert.pipeline takes it, once",
        refused(classify, texts="a"):
            "text-classification has no option 'texts': what is read comes first, without a name",
    }  # fmt: skip
    assert list(said) == list(said.values())


def test_too_many_arguments_are_told_with_what_belongs_where(classify):
    assert refused(classify, "a", "b") == (
        "text-classification takes one input, or many in a list, but 2 came; what belongs together "
        "is a tuple or dict of text and text_pair, and options have names: "
        + ", ".join(classify.options.__dataclass_fields__)
    )
    zero = npbert.pipeline("zero-shot-classification", MODELS / "nli")
    assert "options have names: " in refused(zero, "A goal!", ["sport", "politics"])
    assert "candidate_labels" in refused(zero, "A goal!", ["sport", "politics"])
    ask = npbert.pipeline("question-answering", MODELS / "qa")
    assert "a tuple or dict of question and context" in refused(ask, "Who?", "Ada.")
    assert refused(npbert.pipeline, CLASSIFY, None, {}, None).startswith(
        "pipeline takes 2 arguments without names, but 4 came; its arguments are task, source_or"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ner", "; it is called 'token-classification' here"),
        ("text_classification", "; it is called 'text-classification' here"),
        ("Zero Shot Classification", "; it is called 'zero-shot-classification' here"),
        ("rerank", "; it is called 'text-ranking' here"),
        ("sentence-embeding", "; did you mean 'sentence-embedding'?"),
        ("translation", ": an encoder writes no text"),
        ("image-classification", ": an encoder of texts sees no image"),
        ("xyzzy", f"; there are {', '.join(TASKS)}"),
    ],
)
def test_a_task_of_elsewhere_is_answered_with_its_name_here(name, hint):
    assert refused(npbert.pipeline, name) == f"unknown task {name!r}{hint}"


# ---- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("ner Ada", "there is no command 'ner'; it is called 'token-classification' here"),
        ("embed a", "there is no command 'embed'; it is called 'sentence-embedding' here"),
        ("inof", "there is no command 'inof'; did you mean 'info'?"),
        ("summarization a", "there is no command 'summarization': an encoder writes no text"),
        ("xyzzy", "there is no command 'xyzzy'; npbert --help lists them"),
        (f"{CLASSIFY} --top_k 2 a", f"{CLASSIFY} has no flag --top_k; it is called --top-k here"),
        (f"{CLASSIFY} --topk=2 a", f"{CLASSIFY} has no flag --topk; it is called --top-k here"),
        (
            f"{CLASSIFY} --batch-size 8 a",
            f"{CLASSIFY} has no flag --batch-size: texts share packs without padding, as many as "
            "are fastest; pass any number",
        ),
        (
            f"{CLASSIFY} --device cpu a",
            f"{CLASSIFY} has no flag --device: npbert computes on the CPU, on all of its cores; "
            "--threads takes fewer",
        ),
        (f"{CLASSIFY} --mdoel x", f"{CLASSIFY} has no flag --mdoel; did you mean --model?"),
        (f"{CLASSIFY} --num-workers 2", f"{CLASSIFY} has no flag --num-workers; it is called "
         "--threads here"),
        ("fill-mask --input_file x", "fill-mask has no flag --input_file; it is called --input "
         "here"),
        ("info --xyzzy", "info has no flag --xyzzy; npbert info --help lists those it has"),
    ],
)  # fmt: skip
def test_a_command_or_flag_of_elsewhere_is_answered_too(told, command, why):
    assert told(*command.split()) == f"npbert: {why}"


FIELDS = {
    "semicolons": (
        CLASSIFY, "x.csv", "id;text\n1;Funny.\n", [],
        "line 2: has no text, but 'id;text'; are its columns separated by ';'? write them with "
        "commas",
    ),
    "tabs": (
        CLASSIFY, "x.csv", "id\ttext\n1\tFunny.\n", ["--field", "text"],
        r"line 2: has no field 'text'; are its columns separated by '\t'? --tsv reads tabs",
    ),
    "a misspelt field": (
        CLASSIFY, "x.jsonl", '{"review": "Funny."}', ["--field", "rewiew"],
        "line 1: has no field 'rewiew'; did you mean 'review'?",
    ),
    "a name of datasets": (
        CLASSIFY, "x.jsonl", '{"id": 1, "sentence": "Funny."}', [],
        "line 1: has no text, but 'id', 'sentence'; is it 'sentence'? --field sentence",
    ),
    "one of two": (
        "zero-shot-classification", "x.jsonl", '{"sequence": "A.", "candidate_labels": ["b"]}', [],
        "line 1: has no text; is it 'sequence'? --field sequence",
    ),
    "a list of words": (
        "token-classification", "x.jsonl", '{"tokens": ["Ada"]}', ["--field", "tokens"],
        "line 1: has a list under 'tokens', where a text is read; --field words=tokens reads words",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_not_there_is_answered_with_what_is(told, tmp_path, name):
    task, file, text, flags, why = FIELDS[name]
    (tmp_path / file).write_text(text)
    model = ["-m", MODELS / "nli"] if task.startswith("zero") else []
    assert told(task, *model, "-i", tmp_path / file, *flags) == f"npbert: {why}"


# ---- what holds texts ---------------------------------------------------------------------------


class Series:
    """What of a Series of pandas, or a column of another, is looked at."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return list(self.values)


class Frame:
    """What of a table is."""

    def __init__(self, **columns):
        self.columns = list(columns)

    def __iter__(self):
        return iter(self.columns)


TEXTS = ["Funny.", "Dull, lifeless.", "A delight."]


@pytest.mark.parametrize(
    "held",
    [
        Series(TEXTS), np.array(TEXTS), np.array(TEXTS, object), deque(TEXTS),
        dict.fromkeys(TEXTS).keys(), dict(enumerate(TEXTS)).values(),
    ],
    ids=["Series", "array", "objects", "deque", "keys", "values"],
)  # fmt: skip
def test_what_holds_texts_gives_a_list_in_order(classify, held):
    assert classify(held) == classify(TEXTS)


def test_a_set_gives_a_list_and_a_generator_an_iterator(classify):
    key = str
    assert sorted(classify(set(TEXTS)), key=key) == sorted(classify(TEXTS), key=key)
    assert len(classify(frozenset(TEXTS))) == 3
    assert list(classify(text for text in TEXTS)) == classify(TEXTS)
    assert classify(np.array("Funny.")) == classify("Funny.")
    embed = npbert.pipeline("sentence-embedding")
    assert embed(np.array(TEXTS)).shape == embed(TEXTS).shape


def test_fields_may_be_held_so_too():
    rank = npbert.pipeline("text-ranking", MODELS / "cross1")
    assert rank.rank("a", np.array(TEXTS)) == rank.rank("a", Series(TEXTS)) == rank.rank("a", TEXTS)
    zero = npbert.pipeline("zero-shot-classification", MODELS / "nli")
    some = np.array(["b", "c"])
    assert zero("a", candidate_labels=some) == zero("a", candidate_labels=["b", "c"])
    ask = npbert.pipeline("question-answering", MODELS / "qa")
    both = ask(question=Series(["Who?"] * 2), context=np.array(["The cat sat.", "A dog."]))
    assert both == ask([("Who?", "The cat sat."), ("Who?", "A dog.")])


def test_a_table_is_refused_with_the_column_to_pass(classify):
    assert refused(classify, Frame(id=1, text=2)) == (
        "a Frame has the columns id, text, and one is read; pass df['text']"
    )
    ask = npbert.pipeline("question-answering", MODELS / "qa")
    assert refused(ask, Frame(context=1)).endswith("pass df['context']")
    assert refused(classify, Frame(a=1, b=2)).endswith("a, b, and one is read; pass df['a']")


@pytest.mark.dask
def test_pandas_itself_is_read_so(classify):
    import pandas as pd

    df = pd.DataFrame({"text": TEXTS, "id": [1, 2, 3]})
    assert classify(df["text"]) == classify(pd.Index(TEXTS)) == classify(TEXTS)
    assert refused(classify, df).startswith("a DataFrame has the columns text, id")


def test_a_tuple_of_more_texts_than_fields_is_refused(classify):
    assert classify(("Funny.", "Dull.")) == classify({"text": "Funny.", "text_pair": "Dull."})
    assert refused(classify, ("a", "b", "c")) == (
        "text 0: is a tuple of 3, expected text and perhaps text_pair; many inputs are a list"
    )
    embed = npbert.pipeline("sentence-embedding")
    assert refused(embed, ("a", "b")) == (
        "text 0: is a tuple of 2, expected text; many inputs are a list"
    )


def test_a_path_is_refused_with_what_reads_it(classify, tmp_path):
    assert refused(classify, tmp_path / "x.txt") == (
        f"'{tmp_path / 'x.txt'}' is a path, and no text; pass path.read_text(), or on the command "
        "line -i FILE"
    )
    assert refused(npbert.pipeline("sentence-embedding"), Path("x")).startswith("'x' is a path")
    assert refused(classify, [Path("x")]).startswith("text 0: a text is a str, not ")
