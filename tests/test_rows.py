"""Facts have one home: an invented task, architecture or family is a row, and all else follows."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import readme_tables
import wild
from safetensors.numpy import load_file, save_file

import npbert
from npbert import families
from npbert.cli import main
from npbert.families import ARCHITECTURES, FAMILIES, SEQUENCES, Architecture
from npbert.tasks import built_in_folder, rows
from npbert.tasks.rows import TASKS, TaskRow

MOOD = Architecture(
    class_suffix="ForMood", head="classify_sequences", reads_first=True,
    layers={**families.POOLER_LAYERS, "classifier": "C D"}, outputs={"logits": SEQUENCES},
)  # fmt: skip
MOOD_READING = TaskRow(
    name="mood-reading",
    implementation="text_classification.TextClassification",
    architecture="for_mood",
    fields=("text", "text_pair"),
    options=rows.TEXT_CLASSIFICATION.options,
    built_in="sentiment",
    aliases=("mood",),
    summary="Read the mood of a text.",
    example='npbert mood-reading "Hooray."',
    answer="a text: `{label, score}`",
    columns=rows.classification_columns,
)


@pytest.fixture
def invented(monkeypatch):
    """A row of each kind in its table; nothing else is touched."""
    monkeypatch.setitem(ARCHITECTURES, "for_mood", MOOD)
    monkeypatch.setitem(TASKS, "mood-reading", MOOD_READING)


@pytest.fixture
def mood(invented, tmp_path):
    """The built-in classifier as a checkpoint of the invented architecture."""
    model = npbert.load(built_in_folder("sentiment"), "for_mood")
    model.save(tmp_path / "mood")
    return tmp_path / "mood"


def test_an_invented_architecture_is_drawn_saved_loaded_and_traced(invented, tmp_path):
    model = npbert.init(
        npbert.Config(**{**wild.SIZES, "num_labels": 5}), "for_mood", dtype="float64"
    )
    model.save(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["architectures"] == ["DistilBertForMood"]
    again = npbert.load(tmp_path, dtype="float64")
    assert again.architecture == "for_mood"
    ids = [[3, 1, 4], [1, 5, 9]]
    assert np.array_equal(again(ids).logits, model(ids).logits)
    assert again(ids).logits.shape == (2, 5)
    assert np.array_equal(again.packed(ids), npbert.load(tmp_path, "DistilBertForMood",
                                                         dtype="float64").packed(ids))  # fmt: skip
    trace = npbert.trace(again, ids)
    assert trace["classifier"].shape == trace["logits"].shape == (2, 5)
    assert npbert.compare(again, trace).same


def test_an_invented_task_is_in_the_help_and_in_the_readmes_table(mood, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"^  mood-reading +read the mood of a text$", capsys.readouterr().out, re.M)
    with pytest.raises(SystemExit):
        main(["mood-reading", "--help"])
    out = capsys.readouterr().out
    assert "--top-k" in out
    assert 'example: npbert mood-reading "Hooray."' in out
    assert "| `mood-reading` | [sentiment](" in readme_tables.tasks()
    assert "`top_k`, `function_to_apply` | `mood` |" in readme_tables.options()
    assert "| `for_mood` | DistilBertForMood | BertForMood | `logits` (batch, classes) |" in (
        readme_tables.architectures()
    )
    with pytest.raises(npbert.InputError, match=r"^unknown task 'mood'; it is called 'mood-read"):
        npbert.pipeline("mood")


def test_an_invented_task_answers_from_the_library_and_in_a_batch_job(mood, tmp_path, capsys):
    answer = npbert.pipeline("mood-reading", mood)("A gorgeous movie.")
    assert answer == npbert.pipeline("text-classification")("A gorgeous movie.")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": 1, "review": "A gorgeous movie."}\n{"id": 2}\n')
    flags = ["--field", "review", "--on-error", "record", "-m", str(mood)]
    assert main(["mood-reading", "-i", str(source), "-o", str(target), *flags]) == 4
    first, second = map(json.loads, target.read_text().splitlines())
    assert first == {"id": 1, "results": answer}
    assert second == {"id": 2, "error": {"line": 2, "message": "has no field 'review'"}}
    capsys.readouterr()
    assert main(["mood-reading", "--top-k", "0", "Hm."]) == 2
    err = capsys.readouterr().err
    assert err == "npbert: --top-k is 0, expected a whole number from 1\n"


@pytest.mark.dask
def test_an_invented_task_has_its_columns_in_a_parquet_file(mood, tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("distributed")
    from npbert.distributed.remote_files import list_inputs
    from npbert.distributed.workers import answer_file, task_recipe
    from npbert.jobs.records import InputFormat

    pq.write_table(pa.table({"id": [7], "text": ["Hooray."]}), tmp_path / "in.parquet")
    (file,) = list_inputs(str(tmp_path / "*.parquet"), str(tmp_path / "out"), None)
    recipe = task_recipe(npbert.pipeline("mood-reading", mood))
    report = answer_file(file, recipe.raw, InputFormat(task="mood-reading"), "a job")
    assert report.error == ""
    schema = pq.read_schema(report.part)
    assert schema.names == ["id", "label", "score"]


def test_a_family_with_other_names_is_a_row(monkeypatch, tmp_path):
    own = {
        "embeddings.LayerNorm": "embeddings.norm",
        "transformer.layer.{n}.attention.q_lin": "encoder.layer.{n}.attention.self.query",
        "transformer.layer.{n}.ffn.lin1": "encoder.layer.{n}.intermediate.dense",
        "pre_classifier": "pooler.dense",
    }
    old = FAMILIES["distilbert"]
    names = {**old.config_names, "hidden_size": ("width",)}
    row = replace(
        old, title="Invented", class_prefix="Invented", prefix="invented.", pooler="tanh",
        modules=own, config_names=names, defaults={**old.defaults, "num_blocks": 2},
    )  # fmt: skip
    monkeypatch.setitem(FAMILIES, "invented", row)
    sizes = {name: size for name, size in wild.SIZES.items() if name != "num_blocks"}
    config = npbert.Config(family="invented", **sizes)
    assert config.num_blocks == 2
    model = npbert.init(config, "for_sequence_classification", dtype="float64")
    model.save(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["model_type"] == "invented"
    assert said["width"] == config.hidden_size
    assert said["architectures"] == ["InventedForSequenceClassification"]
    tensors = load_file(tmp_path / "model.safetensors")
    assert "invented.encoder.layer.1.attention.self.query.weight" in tensors
    assert "pooler.dense.bias" in tensors
    again = npbert.load(tmp_path, dtype="float64")
    assert again.family == "invented"
    ids = [[3, 1, 4]]
    assert np.array_equal(again(ids).logits, model(ids).logits)
    pooled = npbert.trace(again, ids)["pooled"]
    assert (pooled < 0).any()  # by tanh, where DistilBERT's relu has none
    tensors["invented.embeddings.norm.gamma"] = tensors.pop("invented.embeddings.norm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    assert np.array_equal(npbert.load(tmp_path, dtype="float64")(ids).logits, model(ids).logits)


def test_a_family_that_is_no_row_is_refused():
    with pytest.raises(npbert.ConfigError) as raised:
        npbert.Config(family="roberta")
    assert str(raised.value) == "family is 'roberta', expected 'distilbert' or 'bert'"
