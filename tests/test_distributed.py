"""Tasks on a Dask cluster: the same answers, whatever becomes of the workers."""

import gzip
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_sharing import INPUTS

import npbert
from npbert.cli import main
from npbert.tasks import built_in_folder

pytestmark = pytest.mark.dask
WHY = "the extra is not installed: pip install 'npbert[dask]'"
distributed = pytest.importorskip("distributed", reason=WHY)
pa = pytest.importorskip("pyarrow", reason=WHY)
pd = pytest.importorskip("pandas", reason=WHY)
dd = pytest.importorskip("dask.dataframe", reason=WHY)
pq = pytest.importorskip("pyarrow.parquet", reason=WHY)
fsspec = pytest.importorskip("fsspec", reason=WHY)

from npbert.distributed import map_dataframe, workers  # noqa: E402
from npbert.distributed.cluster import read_cluster_journal  # noqa: E402
from npbert.distributed.remote_files import (  # noqa: E402
    give_names,
    list_inputs,
    list_outputs,
    part_address,
    write_part,
)
from npbert.distributed.workers import answer_file  # noqa: E402
from npbert.jobs.identity import hash_model  # noqa: E402
from npbert.jobs.records import InputFormat  # noqa: E402

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
LACKS = "has no text, but 'id', 'txt'; is it 'txt'? --field txt"
SINGLE = MODELS / "single"
CLASSIFY = "text-classification"
NPBERT = [sys.executable, "-m", "npbert"]
WORDS = ("a", "dull", "witty", "gorgeous", "mess", "of", "plots", "that", "never", "ends", "no")


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]


def rows(count, seed=0):
    return [{"id": i, "text": text} for i, text in enumerate(texts(count, seed))]


def lines(values):
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.fixture(scope="module")
def cluster():
    how = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **how) as made:
        yield made


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as made:
        yield made


@pytest.fixture
def job(cluster, capsys):
    """Run a command on the cluster; return what it says of each file, and to people."""

    def run(*args, status=0):
        got = main([*map(str, args), "--dask", cluster.scheduler_address])
        out, err = capsys.readouterr()
        assert got == status, err
        return [json.loads(line) for line in out.splitlines()], err

    return run


def undisturbed(given, out, *args):
    """Run a command without a cluster; return the bytes that it writes."""
    command = [*NPBERT, CLASSIFY, "-m", SINGLE, "-i", given, "-o", out, *args]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return out.read_bytes()


# ---- data frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_invariant", [True, False])
def test_5000_texts_in_40_partitions_get_the_answers_of_one_process(client, batch_invariant):
    given = texts(5000)
    ddf = dd.from_pandas(pd.DataFrame({"text": given, "id": range(5000)}), npartitions=40)
    made = map_dataframe(ddf, CLASSIFY, SINGLE, column="text", batch_invariant=batch_invariant)
    assert made.npartitions == 40
    assert made.divisions == ddf.divisions
    found = made.compute()
    assert list(found) == ["text", "id", "label", "score"]
    assert found.dtypes.tolist()[2:] == [pd.StringDtype("pyarrow"), np.float64]
    assert found["id"].tolist() == list(range(5000))
    task = npbert.pipeline(CLASSIFY, SINGLE, batch_invariant=batch_invariant)
    expected = task(given)
    assert found["label"].tolist() == [each["label"] for each in expected]
    scores = [each["score"] for each in expected]
    if batch_invariant:
        assert found["score"].tolist() == scores
    else:
        np.testing.assert_allclose(found["score"], scores, atol=1e-6, rtol=0)


def test_a_worker_loads_a_model_once_and_tells_what_it_did(client):
    ddf = dd.from_pandas(pd.DataFrame({"text": texts(600, 1)}), npartitions=6)
    made = map_dataframe(ddf, CLASSIFY, SINGLE, column="text", top_k=1)
    before = client.run(held)
    assert all(before.values())  # loaded at submission
    made.compute()
    map_dataframe(ddf, CLASSIFY, SINGLE, column="text", top_k=1).compute()
    assert client.run(held) == before
    told = [event for _, event in client.get_events("npbert")][-12:]
    assert sum(each["inputs"] for each in told) == 1200
    assert all(each["tokens"] > each["inputs"] and each["failed"] == 0 for each in told)


class Deadly:
    """What ends the process that unpickles it, unless a file is there, or by it only once."""

    def __init__(self, folder, flag=None):
        self.folder, self.flag = folder, flag

    def __reduce__(self):
        die = "__import__('os').kill(__import__('os').getpid(), 9)"
        once = f"open({str(self.flag)!r}, 'x')" if self.flag else "True"
        first = f"not __import__('os').path.exists({str(self.flag)!r}) and {once} and {die}"
        folder = f"__import__('pathlib').Path({str(self.folder)!r})"
        task = f"__import__('types').SimpleNamespace(folder={folder})"
        return eval, (f"({first}) or {task}",)


def recipe_of(deadly):
    raw = pickle.dumps(("", deadly))
    return workers.TaskRecipe(raw, npbert.__version__, hash_model(deadly.folder))


def test_a_worker_that_dies_while_it_loads_is_replaced_and_all_are_asked_again(tmp_path, cluster):
    recipe = recipe_of(Deadly(SINGLE, tmp_path / "flag"))
    with distributed.Client(cluster) as client:
        workers.load_on_workers(client, recipe)
        client.wait_for_workers(2)
        assert all(recipe.raw in known for known in client.run(recipes).values())
        assert (tmp_path / "flag").exists()
        workers.forget_on_workers(client, recipe)


def test_workers_that_all_die_while_they_load_are_told(monkeypatch):
    monkeypatch.setattr(workers, "LOAD_ATTEMPTS", 2)
    how = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, **how) as made,
        distributed.Client(made) as client,
        pytest.raises(npbert.InputError, match="workers died again and again while they loaded"),
    ):
        workers.load_on_workers(client, recipe_of(Deadly(SINGLE)))


def recipes():
    from npbert.distributed.workers import _tasks

    return list(_tasks)


def held():
    from npbert.distributed.workers import _tasks

    return [id(task) for task in _tasks.values()]


def strings(values):
    return pd.Series(values, dtype=pd.ArrowDtype(pa.list_(pa.string())))


def series(values):
    return strings(values) if isinstance(values[0], list) else pd.Series(values)


NOT = {"ignore_labels": []}
TARGETS = {"targets": ["cat", "unbelievable"], "multi_piece": "joint"}
RANGES = {"ranges": np.array([[-1.0] * 192, [1.0] * 192])}
SHAPES = [
    ("text-classification", None, {}),
    ("text-classification", None, {"top_k": None}),
    ("text-classification", "regression", {"top_k": 1}),
    ("token-classification", None, {}),
    ("token-classification", None, {"aggregation_strategy": "none", **NOT}),
    ("fill-mask", None, {}),
    ("fill-mask", None, TARGETS),
    ("question-answering", "qa", {}),
    ("question-answering", "qa", {"top_k": 3}),
    ("multiple-choice", "choice", {}),
    ("zero-shot-classification", "nli", {"candidate_labels": ["red", "green"]}),
    ("sentence-embedding", None, {}),
    ("sentence-embedding", None, {"truncate_dim": 24, "precision": "binary"}),
    ("sentence-embedding", None, {"precision": "uint8", **RANGES}),
    ("text-ranking", "cross1", {}),
    ("text-ranking", "cross1", {"return_documents": True}),
    ("feature-extraction", None, {}),
    ("feature-extraction", None, {"offsets": True}),
]


@pytest.mark.parametrize(("name", "folder", "options"), SHAPES)
@pytest.mark.parametrize("on_error", ["fail", "record"])
@pytest.mark.filterwarnings("ignore:.* truncated to 64 tokens:npbert.NpbertWarning")
def test_the_answers_of_every_task_are_of_the_type_that_is_promised(
    name, folder, options, on_error
):
    given = INPUTS[name][1]
    source = folder and MODELS / folder
    task = npbert.pipeline(name, source, batch_invariant=True, **options)
    inputs = [each if isinstance(each, tuple) else (each,) for each in given]
    columns = dict(zip(task.row.fields, map(list, zip(*inputs, strict=True)), strict=False))
    frame = pd.DataFrame({f"the {key}": series(some) for key, some in columns.items()})
    ddf = dd.from_pandas(frame, npartitions=2)
    ddf = dd.concat([ddf, ddf.loc[10_000:]])  # which is empty
    made = map_dataframe(
        ddf, name, source, column={key: f"the {key}" for key in columns}, on_error=on_error,
        batch_invariant=True, **options,
    )  # fmt: skip
    parts = [part.compute(scheduler="sync") for part in made.partitions]
    assert len(parts[-1]) == 0
    for part in parts:
        assert part.dtypes.tolist() == made.dtypes.tolist()
        assert list(part) == list(made.columns)
    found = pd.concat(parts)
    expected = [task(each) for each in given]
    if name == "text-classification" and not options:
        assert found["label"].tolist() == [each["label"] for each in expected]
        assert found["score"].tolist() == [each["score"] for each in expected]
    elif name == "sentence-embedding":
        kind = found["embedding"].dtype.pyarrow_dtype
        assert kind.list_size == expected[0].size
        assert kind.value_type.to_pandas_dtype() == expected[0].dtype
        assert np.array_equal(np.stack(found["embedding"]), np.stack(expected))
    else:
        column = pa.array(found["results"])
        assert column.to_pylist() == [uniform(name, each, options) for each in expected]
    if on_error == "record":
        assert found["error"].isna().all()
        assert found["error"].dtype == pd.StringDtype("pyarrow")


def uniform(name, answer, options):
    if name != "fill-mask":
        return answer
    masks = [answer] if isinstance(answer[0], dict) else answer
    if not options:
        return masks
    wrapped = [[{**w, "token": w["token"]} for w in words] for words in masks]
    for word in (word for words in wrapped for word in words):
        word["token"] = word["token"] if isinstance(word["token"], list) else [word["token"]]
    return wrapped


def test_a_pair_is_a_ranking_of_one_document_unless_there_are_classes():
    frame = pd.DataFrame({"q": ["cat"], "d": ["The cat."]})
    ddf = dd.from_pandas(frame, npartitions=1)
    column = {"query": "q", "documents": "d"}
    for folder in ("cross1", "cross3"):
        answer = npbert.pipeline("text-ranking", MODELS / folder)(("cat", "The cat."))
        expected = answer if "scores" in answer else [{"corpus_id": 0, **answer}]
        made = map_dataframe(ddf, "text-ranking", MODELS / folder, column=column)
        assert pa.array(made.compute(scheduler="sync")["results"]).to_pylist() == [expected]


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ("text_pair", "A dull mess."),
        (1, "A dull mess."),
        ({"text": 1, "text_pair": "1"}, ("A dull mess.", "A film to treasure.")),
        ({"text": "1", "text_pair": 1}, ("A film to treasure.", "A dull mess.")),
        ({"text": "text_pair", "text_pair": "1"}, ("A dull mess.", "A film to treasure.")),
    ],
)
def test_a_column_is_read_for_the_field_it_was_named_for_whatever_it_is_called(column, given):
    cells = {"text_pair": "A dull mess.", 1: "A dull mess.", "1": "A film to treasure."}
    ddf = dd.from_pandas(pd.DataFrame({name: [cell] for name, cell in cells.items()}), 1)
    column = {"text": column} if isinstance(column, int) else column
    made = map_dataframe(ddf, CLASSIFY, SINGLE, column=column).compute(scheduler="sync")
    answer = npbert.pipeline(CLASSIFY, SINGLE)(given)
    assert made[["label", "score"]].to_dict("records") == [answer]


def test_a_bad_row_is_recorded_in_its_place_or_stops_with_partition_and_row(client):
    given = texts(30)
    frame = pd.DataFrame({"text": [*given[:17], None, *given[18:]]})
    ddf = dd.from_pandas(frame, npartitions=3)
    made = map_dataframe(ddf, CLASSIFY, SINGLE, column="text", on_error="record").compute()
    assert made["error"].dropna().to_dict() == {17: "has no text"}
    assert made["label"].isna().sum() == made["score"].isna().sum() == 1
    assert made["label"].isna()[17]
    stopped = map_dataframe(ddf, CLASSIFY, SINGLE, column="text")
    with pytest.raises(npbert.InputError, match=r"^partition 1, row 7: has no text$"):
        stopped.compute()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"column": "txt"},
         "ddf has no column 'txt', it has 'text', 'score'; did you mean 'text'?"),
        ({"column": {"txt": "text"}},
         "column has 'txt', and text-classification reads text and text_pair; did you mean "
         "'text'?"),
        ({"column": "text"},
         "ddf has a column 'score' already, where answers would go; rename or drop it"),
        ({"column": "text", "on_error": "skip"},
         "on_error is 'skip', expected 'fail' or 'record'"),
        ({"task": "question-answering", "source": MODELS / "qa", "column": "text"},
         "column says nothing of context; question-answering reads question and context, expected "
         "a mapping of these to columns"),
        ({"task": "sentence-embedding", "source": None, "column": "text", "precision": "int8"},
         "precision 'int8' needs ranges, (2, dim): the least and greatest values of each "
         "dimension, which a list of texts has, and a single text has not"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_computed(how, message):
    ddf = dd.from_pandas(pd.DataFrame({"text": ["Fine."], "score": [1.0]}), npartitions=1)
    with pytest.raises(npbert.InputError) as error:
        map_dataframe(ddf, **{"task": CLASSIFY, "source": SINGLE, **how})
    assert str(error.value) == message


def test_a_model_made_by_hand_and_a_frame_of_pandas_are_refused():
    config = npbert.Config(num_blocks=1, vocab_size=30522, hidden_size=12, intermediate_size=8)
    npbert.load(SINGLE)
    drawn = npbert.init(config, "for_sequence_classification")
    drawn.tokenizer = npbert.load(SINGLE).tokenizer
    frame = pd.DataFrame({"text": ["Fine."]})
    with pytest.raises(npbert.InputError, match="save it in a folder that the workers see"):
        map_dataframe(dd.from_pandas(frame, npartitions=1), CLASSIFY, drawn, column="text")
    with pytest.raises(npbert.InputError, match=r"^ddf is a pandas DataFrame, expected a dask"):
        map_dataframe(frame, CLASSIFY, SINGLE, column="text")


# ---- models that are not everywhere -------------------------------------------------------------


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A model in a cache that only this process knows of."""
    repository = tmp_path / "hub" / "models--org--name"
    shutil.copytree(SINGLE, repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.filterwarnings("ignore:org/name. what is cached is used:npbert.NpbertWarning")
def test_a_model_that_workers_cannot_find_fails_at_submission_each_time(
    client, cached, tmp_path, job
):
    ddf = dd.from_pandas(pd.DataFrame({"text": texts(4)}), npartitions=2)
    for _ in range(2):
        with pytest.raises(npbert.HubError) as error:
            map_dataframe(ddf, CLASSIFY, "org/name", column="text", offline=True)
        message = str(error.value)
        assert message.startswith("worker tcp://127.0.0.1:")
        assert f"org/name: is no folder here, and {tmp_path / 'hub'}" not in message
        assert f"has nothing of {'c' * 40}" in message
    (tmp_path / "in.txt").write_text("Fine.\n")
    command = (CLASSIFY, "-m", "org/name", "--offline", "-i", tmp_path / "in.txt")
    _, err = job(*command, "-o", tmp_path / "out", status=3)
    assert err.startswith("npbert: worker tcp://127.0.0.1:")
    assert not (tmp_path / "out").exists()


def test_a_worker_with_other_files_or_another_npbert_is_refused():
    task = npbert.pipeline(CLASSIFY, SINGLE)
    how = workers.task_recipe(task)
    assert len(how.raw) < 1000
    workers.check_task(how)
    with pytest.raises(npbert.CheckpointError, match="has not the files that the client has"):
        workers.check_task(how._replace(model="0" * 64))
    with pytest.raises(npbert.InputError, match=r"^has npbert .*, and the client 0\.0\.0$"):
        workers.check_task(how._replace(version="0.0.0"))
    workers.forget_task(how.raw)


@pytest.mark.parametrize(
    "code",
    [
        "import npbert.distributed as d; d.map_dataframe(None, 'text-classification', column='a')",
        "import npbert.cli as c; sys.exit(c.main(['text-classification', '-i', 'a', '--dask']))",
    ],
)
@pytest.mark.parametrize("missing", ["dask", "distributed", "pandas", "pyarrow"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(code, missing):
    code = f"import sys; sys.modules[{missing!r}] = None; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == (2 if "main" in code else 1)
    assert done.stderr.splitlines()[-1].removeprefix("npbert.errors.InputError") in (
        ": npbert.distributed needs Dask, pandas and pyarrow, which are not installed: "
        "pip install 'npbert[dask]'",
        "npbert: npbert.distributed needs Dask, pandas and pyarrow, which are not installed: "
        "pip install 'npbert[dask]'",
    )


# ---- folders of files ---------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """The same 300 texts in every form, and in a folder below."""
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    given = lines(rows(300))
    (folder / "a.jsonl").write_text(given)
    (folder / "below" / "b.ndjson.gz").write_bytes(gzip.compress(given.encode()))
    pd.DataFrame(rows(300)).to_csv(folder / "c.csv", index=False)
    (folder / "d.txt").write_text("\n".join(texts(300)))
    pd.DataFrame(rows(300)).to_parquet(folder / "e.parquet", row_group_size=130)
    return folder


def test_every_form_gets_the_bytes_of_a_job_without_a_cluster(data, tmp_path, job):
    out = tmp_path / "out"
    told, err = job(CLASSIFY, "-m", SINGLE, "-i", f"{data}/**", "-o", out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "_npbert.json", "a.jsonl", "below/b.jsonl.gz", "c.jsonl", "d.jsonl", "e.parquet",
    ]  # fmt: skip
    tokens = {each["tokens"] for each in told}
    assert len(tokens) == 1
    assert sorted(Path(each["file"]).name for each in told) == [
        "a.jsonl", "b.ndjson.gz", "c.csv", "d.txt", "e.parquet",
    ]  # fmt: skip
    assert all(each["rows"] == 300 and each["failed"] == 0 for each in told)
    assert f"5 files, 1,500 inputs, {5 * tokens.pop():,} tokens; " in err
    assert "npbert: 5 files; 2 workers; dashboard at http" in err
    for name in ("a.jsonl", "c.csv", "d.txt"):
        one = undisturbed(data / name, tmp_path / "one")
        assert (out / name).with_suffix(".jsonl").read_bytes() == one, name
    one = undisturbed(data / "a.jsonl", tmp_path / "one")
    assert gzip.decompress((out / "below" / "b.jsonl.gz").read_bytes()) == one
    table = pq.read_table(out / "e.parquet")
    assert table.schema.names == ["id", "label", "score"]
    answers = [json.loads(line)["results"] for line in one.splitlines()]
    assert table.select(["label", "score"]).to_pylist() == answers


def test_embeddings_in_parquet_are_lists_of_fixed_size(data, tmp_path, job):
    out = tmp_path / "out"
    job("sentence-embedding", "-i", data / "e.parquet", "-o", out)
    table = pq.read_table(out / "e.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 192)
    expected = npbert.pipeline("sentence-embedding")(texts(300))
    found = np.stack(table["embedding"].to_pandas())
    np.testing.assert_allclose(found, expected, atol=1e-5)


BAD = b'{"id": 17, "txt": 1}\n'


@pytest.fixture
def spoilt(data):
    """The same, with a bad row in each of three files."""
    for path in data.glob("[cd].*"):
        path.unlink()
    good = (data / "a.jsonl").read_bytes().splitlines(keepends=True)
    (data / "bad.jsonl").write_bytes(b"".join([*good[:17], BAD, *good[18:]]))
    given = pa.array([text.encode() for text in texts(5000)])
    _, offsets, raw = given.buffers()
    broken = bytearray(raw.to_pybytes())
    broken[np.frombuffer(offsets, np.int32)[4500]] = 0xFF
    text = pa.StringArray.from_buffers(5000, offsets, pa.py_buffer(bytes(broken)))
    pq.write_table(pa.table({"text": text, "n": pa.array(range(5000))}), data / "bad.parquet")
    return data


def test_a_corrupt_row_is_recorded_by_file_and_row_and_the_rest_is_answered(spoilt, tmp_path, job):
    out = tmp_path / "out"
    command = (CLASSIFY, "-m", SINGLE, "-i", f"{spoilt}/*", "-o", out, "--on-error", "record")
    told, err = job(*command, status=4)
    assert f"npbert: {spoilt / 'bad.jsonl'}: line 18: {LACKS}\n" in err
    assert f"npbert: {spoilt / 'bad.parquet'}: row 4500: is not UTF-8: invalid start byte" in err
    assert {Path(each["file"]).name: each["failed"] for each in told} == {
        "a.jsonl": 0, "e.parquet": 0, "bad.jsonl": 1, "bad.parquet": 1,
    }  # fmt: skip
    answers = [json.loads(line) for line in (out / "bad.jsonl").read_bytes().splitlines()]
    assert answers[17] == {"id": 17, "txt": 1, "error": {"line": 18, "message": LACKS}}
    assert sum("results" in each for each in answers) == 299
    table = pq.read_table(out / "bad.parquet").to_pydict()
    assert table["n"] == list(range(5000))
    for name, missing in (("label", True), ("score", True), ("error", False)):
        assert [(each is None) == missing for each in table[name]].index(True) == 4500
        assert sum((each is None) == missing for each in table[name]) == 1
    assert table["error"][4500] == "is not UTF-8: invalid start byte at byte 0"


def test_otherwise_it_stops_with_file_and_row_and_goes_on_when_it_is_mended(spoilt, tmp_path, job):
    out, good = tmp_path / "out", spoilt / "a.jsonl"
    (spoilt / "bad.parquet").unlink()
    command = (CLASSIFY, "-m", SINGLE, "-i", f"{spoilt}/*.jsonl", "-o", out)
    _, err = job(*command, status=2)
    assert err.splitlines()[-1] == (
        f"npbert: {spoilt / 'bad.jsonl'}: line 18: {LACKS}; --resume goes on with what is not "
        "answered yet"
    )
    assert not (out / "bad.jsonl").exists()
    (spoilt / "bad.jsonl").write_bytes(good.read_bytes())
    job(*command, "--resume")
    assert (out / "bad.jsonl").read_bytes() == (out / "a.jsonl").read_bytes()


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_answered(data, tmp_path, job):
    out = tmp_path / "out"
    (data / "torn.parquet").write_bytes((data / "e.parquet").read_bytes()[:-100])
    (data / "torn.jsonl.gz").write_bytes((data / "below" / "b.ndjson.gz").read_bytes()[:-20])
    (data / "other.parquet").write_bytes((data / "e.parquet").read_bytes())
    pq.write_table(pa.table({"review": ["Fine."]}), data / "other.parquet")
    command = (CLASSIFY, "-m", SINGLE, "-i", f"{data}/*", "-o", out, "--on-error", "record")
    told, err = job(*command, status=4)
    errors = {Path(each["file"]).name: each["error"] for each in told if "error" in each}
    assert errors.keys() == {"torn.parquet", "torn.jsonl.gz", "other.parquet"}
    assert f"{data / 'torn.parquet'}: cannot be read as parquet: " in errors["torn.parquet"]
    assert errors["torn.jsonl.gz"].startswith(f"{data / 'torn.jsonl.gz'}: cannot be read beyond")
    assert errors["other.parquet"] == (
        f"{data / 'other.parquet'}: has no column text or text_pair; it has 'review'; --field says "
        "where a field stands"
    )
    assert all(f"npbert: {why}\n" in err for why in errors.values())
    assert len(told) == 7
    assert not list(out.glob("torn*"))
    assert not list(out.glob(".*"))


def test_a_rerun_skips_what_is_there_and_refuses_another_job(data, tmp_path, job):
    out = tmp_path / "out"
    command = (CLASSIFY, "-m", SINGLE, "-i", f"{data}/*", "-o", out)
    job(*command)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    whole = (out / "a.jsonl").read_bytes()
    (out / "a.jsonl").unlink()
    (out / ".a.jsonl.0123.npbert-part").write_bytes(b"torn")  # as a killed worker leaves it
    told, err = job(*command, "--resume")
    assert [Path(each["file"]).name for each in told] == ["a.jsonl"]
    assert "npbert: 3 of 4 files are answered already\n" in err
    assert (out / "a.jsonl").read_bytes() == whole
    after = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert after.keys() == before.keys()
    assert {path.name for path in out.iterdir() if after[path] != before[path]} == {
        "a.jsonl", "_npbert.json",
    }  # fmt: skip
    told, err = job(*command, "--resume")
    assert (told, err) == ([], "npbert: 4 of 4 files are answered already\n")

    _, err = job(*command, status=2)
    assert err == (
        f"npbert: --output {out}: is not empty; --resume goes on with the job that it is of\n"
    )
    _, err = job(*command, "--resume", "--top-k", 2, status=2)
    assert err.startswith("npbert: --resume: options was {'max_length': None, 'long': 'truncate', ")
    assert err.endswith(f"now; take another folder, or delete {out}\n")
    _, err = job(CLASSIFY, "-i", f"{data}/*", "-o", out, "--resume", status=2)
    assert err.startswith("npbert: --resume: model was ")
    (out / "_npbert.json").unlink()
    _, err = job(*command, "--resume", status=2)
    assert err == (f"npbert: --resume: {out} has no _npbert.json, so that it is of no such job\n")


def test_a_rerun_notices_files_that_changed_and_other_files_of_the_same_names(
    data, tmp_path, job, monkeypatch
):
    out = tmp_path / "out"
    command = (CLASSIFY, "-m", SINGLE, "-o", out, "--resume")
    monkeypatch.chdir(data)
    job(*command, "-i", "*.txt")
    assert job(*command, "-i", f"{data}/*.txt")[0] == []
    monkeypatch.chdir(tmp_path)
    _, err = job(*command, "-i", "*.txt", status=2)
    assert "there is no such file" in err
    (tmp_path / "d.txt").write_text("another\n")
    _, err = job(*command, "-i", "*.txt", status=2)
    assert err.startswith("npbert: --resume: input was ")
    (data / "d.txt").write_text("changed\n")
    _, err = job(*command, "-i", f"{data}/*.txt", status=2)
    assert err == (
        f"npbert: --resume: {data / 'd.txt'} is not what it was when {out / 'd.jsonl'} was made of "
        "it; delete that file, and it is made anew\n"
    )
    (out / "d.jsonl").unlink()
    job(*command, "-i", f"{data}/*.txt")
    assert len((out / "d.jsonl").read_text().splitlines()) == 1


def test_a_rerun_remembers_what_failed(spoilt, tmp_path, job):
    out = tmp_path / "out"
    record = ("-o", out, "--on-error", "record", "--resume")
    command = (CLASSIFY, "-m", SINGLE, "-i", f"{spoilt}/*.jsonl", *record)
    job(*command, status=4)
    (out / "a.jsonl").unlink()
    assert len(job(*command, status=4)[0]) == 1
    assert job(*command, status=4)[0] == []
    (out / "bad.jsonl").unlink()
    (spoilt / "bad.jsonl").write_bytes(b'{"text": "mended"}\n')
    job(*command)


def test_an_output_below_the_input_is_not_read(data, tmp_path, job):
    out = data / "answers"
    command = (CLASSIFY, "-m", SINGLE, "-i", f"{data}/**", "-o", out)
    job(*command)
    (out / "d.jsonl").unlink()
    told, _ = job(*command, "--resume")
    assert [Path(each["file"]).name for each in told] == ["d.txt"]


def test_who_watches_may_leave(data, tmp_path, cluster):
    out = tmp_path / "out"
    command = [*NPBERT, CLASSIFY, "-m", SINGLE, "-i", f"{data}/*", "-o", out]
    process = subprocess.Popen(
        [*map(str, command), "--dask", cluster.scheduler_address], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert len([path for path in out.iterdir() if path.suffix != ".json"]) == 4


def test_names_may_hold_what_means_something_to_fsspec(tmp_path, job):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b::c.txt").write_text("Fine.\n")
    job(CLASSIFY, "-m", SINGLE, "-i", f"{tmp_path}/in/*", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "b::c.jsonl").read_text()


def test_what_is_wrong_with_a_table_is_a_sentence(tmp_path, job):
    names = ["text", "k", "k"]
    table = pa.table([pa.array(["a"]), pa.array([1]), pa.array([3])], names=names)
    pq.write_table(table, tmp_path / "twice.parquet")
    _, err = job(CLASSIFY, "-i", f"{tmp_path}/t*", "-o", tmp_path / "o", status=2)
    assert f"{tmp_path}/twice.parquet: has two columns 'k'; --resume" in err
    frame = pd.DataFrame([["a", 0]], columns=["text", "text"])
    with pytest.raises(npbert.InputError, match=r"^ddf has two columns 'text', and only one"):
        map_dataframe(dd.from_pandas(frame, npartitions=1), CLASSIFY, SINGLE, column="text")
    with pytest.raises(npbert.InputError, match=r"^column is 5, expected the name of one"):
        map_dataframe(dd.from_pandas(frame, npartitions=1), CLASSIFY, SINGLE, column=5)


def test_flags_that_make_no_sense_are_refused(data, tmp_path, job):
    out = tmp_path / "out"
    for given, message in (
        (("Fine.",), "--dask reads the files of --input PATTERN, and writes to the folder"),
        (("-i", f"{data}/*.x", "-o", out), f"--input {data}/*.x: there is no such file"),
        (("-i", data, "-o", out), f"--input {data}: is a folder; say which of its files: "),
        (("-i", "zzz://a/*", "-o", out), "--input zzz://a/*: Protocol not known: zzz"),
        (("-i", f"{data}/*", "-o", data), f"--output {data}: is where the files of --input are"),
        (("-i", f"{data}/*", "-o", data / "d.txt"), "expected a folder, and it is a file"),
        (("-i", f"{data}/*.txt", "-o", out, "--jsonl"), "d.txt: line 1: is no JSON"),
    ):
        _, err = job(CLASSIFY, "-m", SINGLE, *given, status=2)
        assert message in err
    (data / "a.csv").write_text("text\nFine.\n")
    _, err = job(CLASSIFY, "-i", f"{data}/a.*", "-o", out, status=2)
    assert f"would both be answered in {out}/a.jsonl" in err
    (data / "a.csv").rename(data / "a.xml")
    _, err = job(CLASSIFY, "-i", f"{data}/a.xml", "-o", out, status=2)
    assert (
        "a.xml: expected one of .txt, .parquet, .jsonl, .ndjson, .jsonlines, .ldjson, .jl, .json, "
        ".csv, .tsv, .tab at the"
    ) in err


def test_no_scheduler_is_an_error_that_says_what_is_expected(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("npbert.distributed.cluster.CONNECT_SECONDS", 0.5)
    command = [CLASSIFY, "-i", f"{data}/d.txt", "-o", f"{tmp_path}/o", "--dask"]
    assert main([*command, "tcp://127.0.0.1:9"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("npbert: --dask tcp://127.0.0.1:9: no scheduler answers there, expected")
    for name, said in (("none.json", None), ("empty.json", "{}"), ("odd.json", "x")):
        if said:
            (tmp_path / name).write_text(said)
        assert main([*command, str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"npbert: --dask {tmp_path / name}: no scheduler answers there")


def test_objects_appear_when_they_are_whole(data):
    store = fsspec.filesystem("memory")
    store.put(f"{data}/", "/given/", recursive=True)
    (file,) = list_inputs("memory://given/a*", "memory://answers", None)
    assert file[:3] == ("memory:///given/a.jsonl", "memory:///answers/a.jsonl", "jsonl")
    raw = workers.task_recipe(npbert.pipeline(CLASSIFY, SINGLE)).raw
    report = answer_file(file, raw, InputFormat(task=CLASSIFY), "0123")
    assert (report.counts.inputs, report.error) == (300, "")
    assert report.part.startswith("memory:///answers/.a.jsonl.0123")
    assert list_outputs("memory://answers") == {report.part}
    give_names({report.part: file.target})
    assert list_outputs("memory://answers") == {"memory:///answers/a.jsonl"}
    assert store.cat("/answers/a.jsonl").count(b"\n") == 300
    store.rm("/given", recursive=True)
    store.rm("/answers", recursive=True)


def test_a_file_gets_its_name_at_once_and_keeps_its_old_bytes_until_then(tmp_path):
    target = tmp_path / "below" / "a.jsonl"
    for text in ("first", "second"):
        part = part_address(str(target), "0123")
        with write_part(part) as file:
            file.write(text.encode())
        assert not target.exists() or target.read_text() == "first"
        number = Path(part).stat().st_ino
        give_names({part: str(target)})
        assert (target.read_text(), target.stat().st_ino) == (text, number)
    with pytest.raises(ZeroDivisionError), write_part(part) as file:
        file.write(b"torn" * (1 // 0))
    with pytest.raises(FileNotFoundError):
        give_names({part: str(target)})
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


# ---- workers that die, people who stop ----------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """24 files of some 0.1 s each."""
    return write_files(tmp_path / "many", 24)


def write_files(folder, count):
    """Return a new folder of so many files."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:02}.jsonl").write_text(lines(rows(250, seed=i)))
    return folder


def answers_until(out, count):
    """Wait until so many files are answered."""
    while len(list(out.glob("*.jsonl"))) < count:
        time.sleep(0.01)


def test_a_worker_that_is_killed_in_mid_job_loses_and_repeats_nothing(client, many, tmp_path, job):
    out = tmp_path / "out"
    victim = next(iter(client.run(os.getpid).values()))

    def kill():
        answers_until(out, 6)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    told, _ = job(CLASSIFY, "-i", f"{many}/*", "-o", out)
    killer.join()
    assert victim not in client.run(os.getpid).values()
    assert sorted(Path(each["file"]).name for each in told) == [f"{i:02}.jsonl" for i in range(24)]
    assert all(each["rows"] == 250 and each["failed"] == 0 for each in told)
    found = {path.name for path in out.iterdir()}
    assert found == {*(f"{i:02}.jsonl" for i in range(24)), "_npbert.json"}
    job(CLASSIFY, "-i", f"{many}/*", "-o", tmp_path / "undisturbed")
    for name in found - {"_npbert.json"}:
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_frame_outlives_a_worker_and_the_next_one_loads_the_model(client):
    given = texts(4000, 5)
    ddf = dd.from_pandas(pd.DataFrame({"text": given}), npartitions=40)
    made = map_dataframe(ddf, CLASSIFY, column="text")
    pids = client.run(os.getpid)
    future = client.compute(made)
    while len(client.run_on_scheduler(finished)) < 10:
        time.sleep(0.01)
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    found = future.result(timeout=60)
    task = npbert.pipeline(CLASSIFY)
    expected = [each for i in range(0, 4000, 100) for each in task(given[i : i + 100])]
    assert found[["label", "score"]].to_dict("records") == expected
    client.wait_for_workers(2, timeout=30)
    assert all(client.run(held).values())


def finished(dask_scheduler):
    """Return the partitions that are done."""
    tasks = dask_scheduler.tasks.values()
    return [each.key for each in tasks if each.state == "memory"]


def test_ctrl_c_ends_a_job_on_a_cluster_of_its_own_and_keeps_what_is_written(tmp_path):
    out, count = tmp_path / "out", 48  # too many for a busy machine to finish before the signal
    many = write_files(tmp_path / "many", count)
    command = [*NPBERT, CLASSIFY, "-i", f"{many}/*", "-o", out, "--dask"]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    # A shell lets what it runs in the background ignore the signal, and children inherit that.
    how["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, **how) as process:
        answers_until(out, 3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the workers too
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    kept = {path: path.read_bytes() for path in out.glob("*.jsonl")}
    assert 3 <= len(kept) < count
    assert all(raw.count(b"\n") == 250 for raw in kept.values())
    again = subprocess.run([*command, "--resume"], capture_output=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == count - len(kept)
    assert all(path.read_bytes() == raw for path, raw in kept.items())
    assert not list(out.glob(".*"))


def test_the_demo_model_is_found_on_workers_by_its_name(client):
    ddf = dd.from_pandas(pd.DataFrame({"text": ["A film to treasure."]}), npartitions=1)
    made = map_dataframe(ddf, CLASSIFY, column="text", batch_invariant=True).compute()
    answer = npbert.pipeline(CLASSIFY, built_in_folder("sentiment"))("A film to treasure.")
    assert made[["label", "score"]].to_dict("records") == [answer]


JOURNAL = {"job": {"a": 1}, "stamps": {"x": "1"}, "failed": {"y": 2}}
NO_JOURNALS = {
    "a list": lambda path: path.write_text("[]"),
    "stamps in a list": lambda path: path.write_text(
        json.dumps(JOURNAL | {"stamps": [["a", "b"]]})
    ),
    "failures in words": lambda path: path.write_text(json.dumps(JOURNAL | {"failed": {"y": "z"}})),
    "brackets": lambda path: path.write_text("[" * 100_000),
    "a pipe that nobody writes to": os.mkfifo,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("what", NO_JOURNALS)
def test_what_is_no_journal_of_a_cluster_is_refused(what, tmp_path):
    NO_JOURNALS[what](tmp_path / "_npbert.json")
    with pytest.raises(npbert.InputError) as error:
        read_cluster_journal(f"{tmp_path}/_npbert.json", 1 << 20)
    assert str(error.value) == (
        f"{tmp_path}/_npbert.json: does not say what job this is of; delete the folder"
    )


def save_mapped(folder):
    """Save a small model in float32, so that it is mapped."""
    npbert.load(SINGLE).save(folder)
    return folder / "model.safetensors"


def test_a_job_stops_where_a_worker_maps_weights_that_were_overwritten(client, many, tmp_path, job):
    weights = save_mapped(tmp_path / "model")
    out = tmp_path / "out"

    def overwrite():
        answers_until(out, 2)
        weights.touch()

    writer = threading.Thread(target=overwrite)
    writer.start()
    args = (CLASSIFY, "-m", tmp_path / "model", "-i", f"{many}/*", "--on-error", "record")
    _, err = job(*args, "-o", out, status=3)
    writer.join()
    assert f"{weights}: was overwritten while its weights were in use" in err
    assert all(path.read_bytes().count(b"\n") == 250 for path in out.glob("*.jsonl"))
    told, _ = job(*args, "-o", out, "--resume")  # the very same weights, mapped anew
    assert 0 < len(told) < 24


def test_weights_renamed_over_the_old_are_another_model_on_warm_workers(client, tmp_path):
    weights = save_mapped(tmp_path / "model")
    ddf = dd.from_pandas(pd.DataFrame({"text": texts(4)}), npartitions=1)
    first = map_dataframe(ddf, CLASSIFY, tmp_path / "model", column="text").compute()
    other = npbert.init(npbert.load(SINGLE).config, "for_sequence_classification", seed=5)
    other.save(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(weights)
    second = map_dataframe(ddf, CLASSIFY, tmp_path / "model", column="text").compute()
    assert list(second["score"]) == [
        each["score"] for each in npbert.pipeline(CLASSIFY, tmp_path / "model")(texts(4))
    ]
    assert list(first["score"]) != list(second["score"])


def test_workers_that_die_are_told_with_the_likely_reason():
    from npbert.distributed.cluster import report_of

    died = distributed.KilledWorker("npbert-0", None, 3)
    assert report_of("a.jsonl", ("npbert-0", died)).error == (
        "a.jsonl: every worker that took it died; probably the memory was not enough for it, or "
        "the model's files were overwritten while they were mapped: replace them by renaming new "
        "ones over them (mv), or say --copy"
    )
