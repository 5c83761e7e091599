"""A model as files, as transformers reads them: config.json, model.safetensors, tokenizer."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file

from npbert.config import ARCHITECTURES, Config
from npbert.errors import CheckpointError
from npbert.files import replacing, write_json
from npbert.tokenizer import Tokenizer
from npbert.vocabulary import SETTINGS
from npbert.weights import PROJECTOR, WORDS, Parameters


def save(
    target: Path,
    config: Config,
    architecture: str,
    parameters: Parameters,
    tokenizer: Tokenizer | None,
) -> None:
    """Write a model to a folder; see Model.save.  Raises CheckpointError."""
    dtype = parameters[WORDS].dtype.name
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror}") from None
    prefix = "" if architecture == "base" else "distilbert."
    tensors = {
        (prefix if name.startswith(("embeddings.", "transformer.")) else "") + name: array
        for name, array in parameters.items()
        if not (name == PROJECTOR and config.tie_word_embeddings)
    }
    fields = {
        **config.to_dict(),
        "architectures": [ARCHITECTURES[architecture]],
        "torch_dtype": dtype,
    }
    if "dtype" in fields:  # transformers 5 reads this one first
        fields["dtype"] = dtype
    if architecture == "for_question_answering" and config.num_labels != 2:
        fields = {n: v for n, v in fields.items() if n not in ("id2label", "label2id")}
    with replacing(target / "model.safetensors") as path:
        try:
            save_file(tensors, path, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, for one
            raise CheckpointError(f"{target}: cannot be written: {error}") from None
    write_json(target / "config.json", fields)
    if tokenizer is not None:
        with replacing(target / "tokenizer.json") as path:
            tokenizer.save(path)
        write_json(target / SETTINGS, tokenizer.settings_in_effect())
