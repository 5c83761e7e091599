"""Asks transformers' pipelines what tasks_cases.py lists, where they are right.

They compute in float64, with eager attention.  Unfit says why an answer is not recorded: it is
wrong, or decided by less than MARGIN, so that float32 may differ.
"""

import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tasks_cases import Options, Question
from tasks_tokens import NAMES, TOKENIZERS, fast_tokenizer
from transformers import (
    AutoModelForMultipleChoice,
    BertTokenizerFast,
    DistilBertTokenizerFast,
    Pipeline,
    PreTrainedTokenizerFast,
    pipeline,
)

MARGIN = 1e-4
NLI_ROLES = ("entailment", "contradiction")
HOW = {"dtype": torch.float64, "attn_implementation": "eager"}


class Unfit(Exception):  # noqa: N818  (it is no error: the case is left out)
    """Why an answer is not recorded."""


def decided(scores: Iterable[float]) -> None:
    """Refuse scores of which two are nearly equal."""
    ordered = np.sort(np.array(list(scores), np.float64))
    if np.diff(ordered).min(initial=1.0) < MARGIN:
        raise Unfit("too close to call")


def limited(options: Options, **names: str) -> Options:
    """Options in transformers' names, with the limit as its tokenizers take it, and `names`."""
    own = {names.get(name, name): options[name] for name in options if name != "max_length"}
    limit = options.get("max_length")
    return own | ({"truncation": True, "max_length": limit} if limit else {})


def fits(tokenizer: PreTrainedTokenizerFast, *texts: Any, **how: Any) -> None:
    if len(tokenizer(*texts, **how)["input_ids"]) > tokenizer.model_max_length:
        raise Unfit("longer than the model")


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    if folder.name in (*TOKENIZERS, NAMES):
        return fast_tokenizer(folder)
    kind = BertTokenizerFast if folder.name.startswith("bert_") else DistilBertTokenizerFast
    return kind.from_pretrained(folder)


@cache
def original(task: str, folder: Path) -> Pipeline:
    tokenizer = tokenizer_of(folder)
    how = {"attn_implementation": "eager"}
    return pipeline(
        task, model=str(folder), tokenizer=tokenizer, dtype=torch.float64, device="cpu",
        model_kwargs=how,
    )  # fmt: skip


def each(answer: Callable[[Any], Any], given: Any) -> Any:
    """One input, one answer; a list, a list."""
    return [answer(item) for item in given] if isinstance(given, list) else answer(given)


def text_classification(folder: Path, asked: Question) -> Any:
    task = original("text-classification", folder)

    def known(item: Any) -> Any:
        return (
            dict(zip(("text", "text_pair"), item["texts"], strict=True)) if "form" in item else item
        )

    given, options = each(known, asked.input), limited(asked.options)
    for item in given if isinstance(given, list) else [given]:
        if "max_length" not in options:
            fits(task.tokenizer, **(item if isinstance(item, dict) else {"text": item}))
        scores = [a["score"] for a in task([item], **{**options, "top_k": None})[0]]
        decided(scores[: (options.get("top_k", 1) or len(scores)) + 1])
    return task(given, **options) if isinstance(given, list) else task([given], **options)[0]


def fill_mask(folder: Path, asked: Question) -> Any:
    task, options = original("fill-mask", folder), dict(asked.options)
    if limit := options.pop("max_length", None):
        options["tokenizer_kwargs"] = {"truncation": True, "max_length": limit}
    targets = options.get("targets", [])
    if any(len(task.tokenizer.tokenize(word)) > 1 for word in targets):
        raise Unfit("a target of several pieces")
    k = options.get("top_k", len(targets) or 5)

    def rows(answer: list[Any]) -> list[list[Any]]:
        return answer if isinstance(answer[0], list) else [answer]

    def one(text: str) -> Any:
        more = min(k + 1, len(targets) or k + 1)
        for row in rows(task(text, **{**options, "top_k": more})):
            decided(a["score"] for a in row)
        answer = task(text, **{**options, "top_k": k})
        if targets and "top_k" not in options:  # npbert answers in the order given
            for row in rows(answer):
                row.sort(key=lambda a: targets.index(a["token_str"]))
        return answer

    return each(one, asked.input)


def token_classification(folder: Path, asked: Question) -> Any:
    task = original("token-classification", folder)
    options = {"aggregation_strategy": "first", **asked.options}
    gather = type(task).gather_pre_entities

    def watched(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        tokens = gather(task, *args, **kwargs)
        label_is_clear(tokens, options["aggregation_strategy"])
        return tokens

    def one(item: Any) -> list[dict[str, Any]]:
        how = {"is_split_into_words": isinstance(item, dict)}
        given = item["words"] if isinstance(item, dict) else item
        text = " ".join(given) if isinstance(item, dict) else given
        fits(task.tokenizer, given, **how)
        if task.tokenizer.unk_token_id in task.tokenizer(given, **how)["input_ids"]:
            raise Unfit("[UNK] begins a word for transformers")
        marked = task.tokenizer.backend_tokenizer.normalizer.normalize_str("A") != "a"
        if marked and options["aggregation_strategy"] not in ("none", "simple"):
            raise Unfit("what is said of a capital is a word of its own for transformers")
        if any(unicodedata.combining(letter) for letter in text):
            raise Unfit("an accent is a character of its own, which transformers leaves out")
        parts = task.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
        whole = options["aggregation_strategy"] not in ("none", "simple")
        if given is not item and whole and any(len(parts(word)) > 1 for word in given):
            raise Unfit("transformers takes the words given apart")
        (answer,) = task([given], **how, **options)
        for entity in answer:
            entity["score"] = float(entity["score"])
            if "entity_group" in entity:
                del entity["word"]  # tokens joined; npbert gives the text itself
        return answer

    task.gather_pre_entities = watched
    return each(one, asked.input)


def label_is_clear(tokens: list[dict[str, Any]], strategy: str) -> None:
    words: list[list[dict[str, Any]]] = []
    for token in tokens:
        by_words = strategy not in ("none", "simple")
        if by_words and token["is_subword"] != token["word"].startswith("##"):
            raise Unfit("lengths mislead transformers about words")
        if not token["is_subword"]:
            words.append([])
        words[-1].append(token)
    for word in words:
        scores = np.stack([token["scores"] for token in word])
        if strategy == "max":
            decided(scores.max(-1))
            deciding = scores[[scores.max(-1).argmax()]]
        else:
            deciding = {"first": scores[:1], "average": scores.mean(0)[None]}.get(strategy, scores)
        for row in deciding:
            decided(np.sort(row)[-2:])


def question_answering(folder: Path, asked: Question) -> Any:
    task = original("question-answering", folder)
    names = {"max_length": "max_seq_len", "stride": "doc_stride"}
    names["max_answer_length"] = "max_answer_len"
    options = {names.get(name, name): value for name, value in asked.options.items()}

    def one(item: dict[str, str]) -> Any:
        answer = task(question=item["question"], context=item["context"], **options)
        listed = answer if isinstance(answer, list) else [answer]
        best = spans(task, item, options)[: options.get("top_k", 1) + 1]
        decided(score for score, *_ in best)
        if len(best) > options.get("top_k", 1):
            del best[-1]
        if [(a["start"], a["end"]) for a in listed] != [(start, end) for _, start, end in best]:
            raise Unfit("other spans: equal texts were merged, or words cut by a window")
        if any(abs(a["score"] - b[0]) > 1e-9 for a, b in zip(listed, best, strict=True)):
            raise Unfit("scores of equal answers were added")
        return listed if "top_k" in options else answer

    given = asked.input
    if isinstance(given, dict) and isinstance(given["question"], list):
        both = zip(given["question"], given["context"], strict=True)
        given = [{"question": question, "context": context} for question, context in both]
    return each(one, given)


def spans(task: Pipeline, item: dict[str, str], options: Options) -> list[tuple[float, int, int]]:
    """Every span of every window with its greatest score, best first, as it should be."""
    windows = {name: options[name] for name in ("max_seq_len", "doc_stride") if name in options}
    whole = task.tokenizer(item["context"], add_special_tokens=False).encodings[0]

    def edges(first: tuple[int, int], last: tuple[int, int]) -> tuple[int, int]:
        if not options.get("align_to_words", True):
            return first[0], last[1]
        words = [whole.char_to_word(token[0]) for token in (first, last)]
        return whole.word_to_chars(words[0])[0], whole.word_to_chars(words[1])[1]

    found: dict[tuple[int, int], float] = {}
    null = 1.0
    for window in task.preprocess(dict(item), **windows):
        (start, end), encoding = chances(task, window), window["encoding"]
        null = min(null, start[0] * end[0])
        inside = [i for i, source in enumerate(encoding.sequence_ids) if source == 1]
        for s in inside:
            for e in range(s, min(s + options.get("max_answer_len", 15), inside[-1] + 1)):
                key = edges(encoding.offsets[s], encoding.offsets[e])
                found[key] = max(found.get(key, 0.0), start[s] * end[e])
    if options.get("handle_impossible_answer"):
        found[0, 0] = null
    return sorted(((score, *key) for key, score in found.items()), reverse=True)


def chances(task: Pipeline, window: dict[str, Any]) -> list[np.ndarray]:
    """Softmax over [CLS] and the context, for the start and for the end."""
    with torch.no_grad():
        given = {name: window[name] for name in task.tokenizer.model_input_names}
        out = task.model(**given)
    allowed = window["p_mask"] == 0
    both = (
        logits.masked_fill(~allowed, -torch.inf) for logits in (out.start_logits, out.end_logits)
    )
    return [logits.softmax(-1)[0].numpy() for logits in both]


def zero_shot_classification(folder: Path, asked: Question) -> Any:
    task = original("zero-shot-classification", folder)
    labels = task.model.config.id2label
    roles = {asked.options[name]: name for name in NLI_ROLES if name in asked.options}
    if roles:  # which this pipeline takes from the names
        labels = {i: roles.get(name, "neutral") for i, name in labels.items()}
        task.model.config.label2id = {name: i for i, name in labels.items()}
    if (
        "contradiction" in labels.values()
        and labels[len(labels) - 1 if task.entailment_id == 0 else 0] != "contradiction"
    ):
        raise Unfit("transformers takes another label for contradiction")

    def one(text: str) -> Any:
        options = dict(asked.options)
        whole = task.tokenizer.model_max_length
        limit = options.pop("max_length", None)  # which this pipeline does not take
        options = {name: options[name] for name in options if name not in NLI_ROLES}
        template = options.get("hypothesis_template", "This example is {}.")
        names = options["candidate_labels"]
        for label in names.split(",") if isinstance(names, str) else names:
            if limit is None:
                fits(task.tokenizer, text, template.format(label))
        task.tokenizer.model_max_length = limit or whole
        answer = task(text, **options)
        task.tokenizer.model_max_length = whole
        decided(answer["scores"])
        return answer

    return each(one, asked.input)


def multiple_choice(folder: Path, asked: Question) -> Any:
    tokenizer = tokenizer_of(folder)
    model = AutoModelForMultipleChoice.from_pretrained(folder, **HOW).eval()

    def one(item: dict[str, Any]) -> dict[str, Any]:
        choices = item["choices"]
        limit = limited(asked.options)
        for choice in choices:
            fits(tokenizer, item["prompt"], choice, **limit)
        given = tokenizer(
            [item["prompt"]] * len(choices), choices, padding=True, return_tensors="pt", **limit
        )
        with torch.no_grad():
            logits = model(**{name: x[None] for name, x in given.items()}).logits
        scores = logits.softmax(-1)[0].tolist()
        decided(scores)
        index = int(np.argmax(scores))
        best = {"index": index, "choice": choices[index], "score": scores[index]}
        return best | {"scores": scores}

    return each(one, asked.input)


def feature_extraction(folder: Path, asked: Question) -> Any:
    task, options = original("feature-extraction", folder), asked.options

    limit = limited({name: options[name] for name in options if name == "max_length"})

    def one(text: str) -> Any:
        (features,) = task(text, tokenize_kwargs=limit)
        if "layer" in options:
            with torch.no_grad():
                given = task.tokenizer(text, return_tensors="pt", **limit)
                states = task.model(**given, output_hidden_states=True).hidden_states
            features = states[options["layer"]][0].tolist()
        if not options.get("offsets"):
            return features
        read = task.tokenizer(text, return_offsets_mapping=True, **limit)
        tokens = task.tokenizer.convert_ids_to_tokens(read["input_ids"])
        offsets = [list(pair) for pair in read["offset_mapping"]]
        return {"features": features, "tokens": tokens, "offsets": offsets}

    return each(one, asked.input)
