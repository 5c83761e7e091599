"""What the tasks are asked in golden/tasks: inputs and options, as npbert takes them.

More is asked than recorded: tasks_record.py leaves out what the originals get wrong, and what
is too close to call.  Options have npbert's names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice, product
from typing import Any

from tasks_texts import (
    CHOICES,
    CONTEXTS,
    MASKED,
    NAMED,
    PAIRS,
    QUESTIONS,
    SHORT,
    SPLIT,
    TARGETS,
    TEXTS,
    TOO_LONG,
    WRONG_NAMED,
)
from tasks_tokens import NAMED as TOKENS_NAMED
from tasks_tokens import NAMES, TOKENIZERS, token_texts

Options = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One call of one task: `model` is a folder of golden/tasks, or one of npbert/demo."""

    model: str
    input: Any
    options: Options = field(default_factory=dict)


def pair(a: str, b: str) -> dict[str, Any]:
    return {"form": "pair", "texts": [a, b]}


def text_classification() -> Iterator[Question]:
    models = ["classes5", "multilabel", "single", "regression", "demo/sentiment"]
    functions = ["softmax", "sigmoid", "none"]
    for text, model in zip(TEXTS, cycle(models), strict=False):
        yield Question(model, text)
    for texts, model in zip(PAIRS, models, strict=True):
        yield Question(model, pair(*texts))
    for k, text in zip([1, 2, 3, 5, 9, None], TEXTS, strict=False):
        yield Question("classes5", text, {"top_k": k})
    for function, text in zip(functions * 2, TEXTS[6:], strict=False):
        model = "multilabel" if text.isascii() else "classes5"
        yield Question(model, text, {"top_k": None, "function_to_apply": function})
    yield Question("single", TEXTS[3], {"function_to_apply": "none"})
    yield Question("regression", TEXTS[2], {"function_to_apply": "sigmoid"})
    yield Question("demo/sentiment", TEXTS[1], {"top_k": None})
    yield Question("multilabel", {"text": PAIRS[2][0], "text_pair": PAIRS[2][1]}, {"top_k": 2})
    yield Question("classes5", {"text": TEXTS[7]})
    for model in models:
        yield Question(model, TEXTS[:4])
    yield Question("classes5", [TEXTS[0], pair(*PAIRS[0]), {"text": TEXTS[5]}], {"top_k": 2})
    yield Question("multilabel", TEXTS[4:8], {"top_k": None})
    yield Question("classes5", TOO_LONG)
    for i, text in enumerate(TEXTS[:6]):
        yield Question("bert_classes", text, {"top_k": None} if i % 2 else {})
    for texts in PAIRS:
        yield Question("bert_classes", pair(*texts), {"top_k": None})
    yield Question("bert_classes", [TEXTS[0], pair(*PAIRS[0]), {"text": TEXTS[5]}], {"top_k": 2})
    for i, model in enumerate(["classes5", "bert_classes"]):
        yield Question(model, TOO_LONG, {"max_length": 64 - i})
        for length in (5, 6, 9, 12):
            yield Question(model, TEXTS[length + i], {"max_length": length})
            yield Question(model, pair(TEXTS[length], TEXTS[i]), {"max_length": length + 7})
            yield Question(model, pair(TEXTS[12 + i], TEXTS[0]), {"max_length": length})


def fill_mask() -> Iterator[Question]:
    model = "demo/fill-mask"
    for text in MASKED:
        yield Question(model, text)
    for k, text in zip([1, 2, 3, 7, 10, *[1] * 4, *[3] * 3], MASKED, strict=True):
        yield Question(model, text, {"top_k": k})
    for targets, text in zip(cycle(TARGETS), MASKED[:9], strict=False):
        yield Question(model, text, {"targets": targets})
    for k, targets, text in zip([1, 1, 3, 2], cycle(TARGETS), MASKED[3:], strict=False):
        yield Question(model, text, {"targets": targets, "top_k": k})
    yield Question(model, MASKED[:3])
    yield Question(model, MASKED[3:6], {"top_k": 2})
    yield Question(model, MASKED[6:8], {"targets": ["house", "day"]})
    yield Question(model, MASKED[0], {"targets": ["dog", "unbelievablest"]})  # several pieces
    words = "The old house was [MASK] after the rain."
    for text in (words, *[text for text in MASKED if text.isascii()][:7]):
        yield Question("bert_mlm", text)
    for targets in TARGETS[:2]:
        yield Question("bert_mlm", words, {"targets": targets})
    for model in TOKENIZERS:
        mask = "<mask>" if model in ("tokens_unigram", "tokens_bpe") else "[MASK]"
        for text in token_texts(mask):
            yield Question(model, text, {"top_k": 3})
    for length in (7, 8, 9, 10):
        yield Question("demo/fill-mask", MASKED[0] + " It was cold.", {"max_length": length})
        yield Question("bert_mlm", words, {"max_length": length, "targets": TARGETS[0]})


STRATEGIES = ["none", "simple", "first", "average", "max"]


def token_classification() -> Iterator[Question]:
    for text, model in zip(NAMED, cycle(["bio", "plain", "demo/ner"]), strict=False):
        yield Question(model, text)
    for text in WRONG_NAMED:
        yield Question("bio", text)
    for i, strategy in enumerate(STRATEGIES):
        for model, text in zip(["bio", "plain", "bio"], islice(cycle(NAMED), 2 * i, None)):  # noqa: B905
            yield Question(model, text, {"aggregation_strategy": strategy})
        yield Question("demo/ner", NAMED[i], {"aggregation_strategy": strategy})
        yield Question(
            "bio", {"words": SPLIT[i % 3]}, {"aggregation_strategy": strategy, "ignore_labels": []}
        )
    for text in NAMED[1:3]:
        yield Question("bio", text, {"ignore_labels": ["O", "PER"]})
        yield Question("bio", text, {"ignore_labels": [], "aggregation_strategy": "simple"})
        yield Question(
            "bio", text, {"ignore_labels": ["O", "B-LOC"], "aggregation_strategy": "none"}
        )
        yield Question("plain", text, {"ignore_labels": ["LOC"], "aggregation_strategy": "max"})
    yield Question("bio", NAMED[:4])
    yield Question("plain", NAMED[4:7], {"aggregation_strategy": "average"})
    yield Question("bio", NAMED[7:9], {"aggregation_strategy": "none"})
    yield Question("plain", [{"words": SPLIT[0]}, {"words": SPLIT[1]}])
    for strategy in ("none", "simple", "max"):
        yield Question("bio", {"words": SPLIT[3]}, {"aggregation_strategy": strategy})
    yield Question("demo/ner", NAMED[:3])
    for text, strategy in zip(NAMED, cycle(STRATEGIES), strict=False):
        yield Question("bert_bio", text, {"aggregation_strategy": strategy})
    yield Question("bert_bio", [{"words": SPLIT[0]}, {"words": SPLIT[1]}])
    for text, strategy in product(TOKENS_NAMED, ("none", "simple")):
        options = {"aggregation_strategy": strategy, "ignore_labels": []}
        yield Question(NAMES, text, options)


def ask(question: int, context: int) -> dict[str, str]:
    return {"question": QUESTIONS[question], "context": CONTEXTS[context]}


def question_answering() -> Iterator[Question]:
    for c in range(len(CONTEXTS)):
        for q in range(4):
            yield Question("qa", ask(q, c))
    for q, (length, stride) in enumerate([(24, 0), (32, 4), (40, 8), (20, 2), (48, 0), (64, 9)]):
        for c in (4, 5):
            window = {"max_length": length, "stride": stride}
            yield Question("qa", ask(q, c), window)
            yield Question("qa", ask(q, c), {**window, "align_to_words": False})
            yield Question("qa", ask(q, c), {**window, "max_answer_length": 4, "top_k": 1})
    for c in range(3):
        for k in (2, 3):
            yield Question("qa", ask(k + 2, c), {"top_k": k})
        yield Question("qa", ask(c, c), {"top_k": 2, "align_to_words": False})
        yield Question("qa", ask(c + 1, c), {"max_answer_length": c + 1})
    for c in range(3):
        for q in range(2):
            yield Question("qa", ask(q + 3, c), {"handle_impossible_answer": True})
            yield Question("qa", ask(q + 1, c), {"align_to_words": False})
            yield Question("qa", ask(q, c), {"handle_impossible_answer": True, "top_k": 2})
    for q in range(6):
        yield Question("qa", ask(q, 3), {"handle_impossible_answer": True, "top_k": 6 - q // 2})
    for length, stride in [(7, 0), (7, 1), (8, 0), (8, 1)]:  # "no answer" in several windows
        window = {"max_length": length, "stride": stride, "max_answer_length": 1}
        for context in ("Anna sings, and reads.", CONTEXTS[3]):
            short = {"question": "Who?", "context": context}
            yield Question("qa", short, {**window, "handle_impossible_answer": True, "top_k": 4})
    yield Question("qa", [ask(0, 0), ask(1, 1), ask(5, 2)])
    yield Question("qa", [ask(1, 0), ask(2, 2)], {"max_answer_length": 3})
    yield Question("qa", {"form": "keywords", **ask(4, 1)})
    asked = {"question": [QUESTIONS[i] for i in (0, 3)], "context": [CONTEXTS[i] for i in (2, 0)]}
    yield Question("qa", {"form": "keywords", **asked})
    for length in (36, 42):
        yield Question("qa", {"form": "keywords", **ask(5, 4)}, {"max_length": length, "stride": 3})
    for c in range(5):
        for q in range(3):
            yield Question("bert_qa", ask(q, c), {"top_k": 2} if q == 1 else {})
    for q, (length, stride) in enumerate([(24, 0), (32, 4), (40, 8)]):
        window = {"max_length": length, "stride": stride}
        yield Question("bert_qa", ask(q, 4), window)
        yield Question("bert_qa", ask(q, 5), {**window, "align_to_words": False})
        yield Question("bert_qa", ask(q, q), {"handle_impossible_answer": True})


LABELS = [["music", "food", "school"], "sea, city,  village", ["good news", "bad news"], ["rain"]]
LABELS += [["Anna", "John’s dog", "né", "a price (in euro)"]]  # noqa: RUF001
TEMPLATES = ["This text is about {}.", "{}!", "It is not {}"]


def zero_shot_classification() -> Iterator[Question]:
    for i, text in enumerate(TEXTS):
        options: Options = {"candidate_labels": LABELS[i % 5]}
        if i % 3 == 1:
            options["hypothesis_template"] = TEMPLATES[i % len(TEMPLATES)]
        yield Question("nli2" if i % 4 else "nli", text, options)
        if i % 2:
            yield Question("nli" if i % 4 == 1 else "nli2", text, {**options, "multi_label": True})
    yield Question("nli2", TEXTS[:3], {"candidate_labels": LABELS[0]})
    yield Question("nli", TEXTS[3:5], {"candidate_labels": LABELS[2], "multi_label": True})
    for i, text in enumerate(TEXTS[:9]):
        more: Options = {"multi_label": True} if i % 2 else {}
        yield Question("bert_nli", text, {"candidate_labels": LABELS[i % 5], **more})
    for i, length in enumerate((20, 22, 25)):
        options = {"candidate_labels": LABELS[0], "max_length": length}
        yield Question("nli2", TEXTS[i], options)
        yield Question("bert_nli", TEXTS[17], {**options, "multi_label": True})
    both = {"entailment": "yes", "contradiction": "no"}
    turned = {"entailment": "no", "contradiction": "yes"}
    for i, more in enumerate(({"entailment": "perhaps"}, both, turned)):
        options = {"candidate_labels": LABELS[i], **more}
        yield Question("cross3", TEXTS[i + 2], options)
        if "contradiction" in more:
            yield Question("cross3", TEXTS[i + 2], {**options, "multi_label": True})


def multiple_choice() -> Iterator[Question]:
    given = [{"prompt": prompt, "choices": choices} for prompt, choices in CHOICES]
    given += [{"prompt": text, "choices": CHOICES[i % 3][1]} for i, text in enumerate(TEXTS)]
    for each in given:
        yield Question("choice", each)
    yield Question("choice", given[:3])
    yield Question("choice", given[8:10])
    for each in given[:8]:
        yield Question("bert_choice", each)
    for i, length in enumerate((8, 11, 14)):
        yield Question("choice", given[i], {"max_length": length})
        yield Question("bert_choice", given[i + 5], {"max_length": length})


SENTENCE_MODELS = ["st_mean", "st_cls_norm", "st_max", "st_all", "st_dense", "st_dense_identity"]
SENTENCE_MODELS += ["st_layernorm", "st_prompts", "st_lower"]
RANGES = [[-1.5 - 0.01 * i for i in range(13)], [1.25 + 0.1 * i for i in range(13)]]


def sentence_embedding() -> Iterator[Question]:
    for i, model in enumerate(SENTENCE_MODELS):
        yield Question(model, TEXTS[2 * i])
        yield Question(model, [TEXTS[i], TEXTS[i + 9], TEXTS[6]])
        yield Question(model, TEXTS[i + 8], {"normalize": True, "truncate_dim": 5})
        a, b = TEXTS[i : i + 2], TEXTS[i + 5 : i + 8]
        function = ("cosine", "dot", "euclidean", "manhattan")[i % 4]
        yield Question(model, {"form": "similarity", "a": a, "b": b}, {"function": function})
    yield Question("demo/fill-mask", TEXTS[5])
    yield Question("demo/fill-mask", TEXTS[1], {"normalize": True, "truncate_dim": 24})
    for model in ("st_prompts", "st_mean"):  # dot is what st_prompts asks for, cosine the rule
        yield Question(model, {"form": "similarity", "a": TEXTS[:2], "b": TEXTS[3:5]})
    yield Question("st_mean", TEXTS[4], {"normalize": True})
    yield Question("st_max", TEXTS[9], {"truncate_dim": 7})
    for text in (TEXTS[0], TEXTS[12], TEXTS[17]):  # the last is longer than max_seq_length
        yield Question("st_prompts", text, {"prompt_name": "passage"})
        yield Question("st_prompts", text, {"prompt": "a letter: "})
    yield Question("st_mean", TEXTS[8], {"prompt": "who? "})
    yield Question("st_mean", TEXTS[12], {"prompt": "se"})  # "se" + "a" is one word
    for precision in ("int8", "uint8"):
        options = {"precision": precision, "ranges": RANGES}
        yield from (Question("st_dense", text, options) for text in (TEXTS[3], TEXTS[:2]))
    for precision in ("binary", "ubinary", "float32"):
        yield Question("st_layernorm", TEXTS[4], {"precision": precision})
        yield Question("st_layernorm", TEXTS[6:9], {"precision": precision, "truncate_dim": 13})
    for i, model in enumerate(["bert_st", "bert_st_cls"] * 3):
        yield Question(model, TEXTS[3 * i])
        yield Question(model, [TEXTS[i], TEXTS[i + 9], TEXTS[6]])
    yield Question("bert_st", {"form": "similarity", "a": TEXTS[:2], "b": TEXTS[3:5]})
    for i in range(4):
        yield Question("st_tokens", TEXTS[i + 4])
    yield Question("st_tokens", TEXTS[:3], {"normalize": True, "truncate_dim": 5})
    for length, model in zip((5, 9, 30), ["st_mean", "bert_st", "st_prompts"], strict=True):
        yield Question(model, TEXTS[17], {"max_length": length})  # st_prompts reads 20 by itself
        yield Question(model, TEXTS[:3], {"max_length": length})
    yield Question("demo/embedding", TEXTS[:6])
    yield Question("demo/embedding", TEXTS[17], {"truncate_dim": 24, "normalize": True})
    yield Question("demo/embedding", {"form": "similarity", "a": TEXTS[:3], "b": TEXTS[3:8]})


def sparse_embedding() -> Iterator[Question]:
    models = ["splade_max", "splade_sum", "bert_splade", "bert_mlm"]
    for i, text in enumerate(TEXTS):
        yield Question(models[i % 4], text, {"top_k": 3 + i} if i % 3 == 1 else {})
    for i, model in enumerate(models):
        yield Question(model, TEXTS[3:6], {"top_k": 12})
        yield Question(model, TEXTS[12 + i], {"top_k": 5})
        yield Question(model, TEXTS[7 - i], {"top_k": 8})
    for options in ({"prompt": "a letter: "}, {"prompt_name": "passage"}):
        yield Question("splade_sum", TEXTS[17], options)  # longer than max_seq_length
        yield Question("splade_sum", TEXTS[1], options)
    yield Question("splade_max", TEXTS[7], {"prompt": "who? ", "top_k": 9})
    for length, model in zip((5, 9, 30), models, strict=False):  # splade_sum reads 20 by itself
        yield Question(model, TEXTS[17], {"max_length": length, "top_k": 15})


def text_ranking() -> Iterator[Question]:
    for i, model in enumerate(["cross1", "cross1_identity"] * 4):
        asked = {"query": QUESTIONS[i % 6], "documents": TEXTS[2 * i : 2 * i + 5]}
        yield Question(model, asked)
        yield Question(model, asked, {"top_k": 2, "return_documents": i % 3 > 0})
    yield Question("cross1", asked, {"return_documents": True})
    yield Question("cross1", [asked, {"query": "Zoë?", "documents": TEXTS[5:8]}])
    for model in ("cross1", "cross1_identity", "cross3"):
        pairs = [list(each) for each in PAIRS]
        yield from (Question(model, pair(*each)) for each in pairs[:3])
        yield Question(model, [pair(*each) for each in pairs[1:4]])
        yield Question(model, {"form": "predict", "pairs": pairs[1:]})
    for function in ("softmax", "sigmoid", "none"):
        yield Question("cross3", pair(*PAIRS[1]), {"function_to_apply": function})
        if function != "softmax":
            yield Question("cross1", asked, {"function_to_apply": function})
    for options in ({"prompt": "the old house, "}, {"prompt_name": "short"}):
        yield Question("cross1", asked, options)
        yield Question("cross1", pair(*PAIRS[2]), options)
    for i in range(5):
        asked = {"query": QUESTIONS[i % 6], "documents": TEXTS[2 * i : 2 * i + 5]}
        yield Question("bert_cross", asked, {"top_k": 3} if i % 2 else {})
        yield Question("bert_cross", pair(*PAIRS[i % len(PAIRS)]))
    for length, model in zip((9, 12, 16), ["cross1", "cross3", "bert_cross"], strict=True):
        yield Question(model, pair(TEXTS[0], TEXTS[17]), {"max_length": length})
        yield Question(model, {"form": "predict", "pairs": pairs[1:]}, {"max_length": length})
    yield Question("cross1", {**asked, "documents": TEXTS[:4]}, {"max_length": 14})


def feature_extraction() -> Iterator[Question]:
    for text, model in zip(SHORT, cycle(["bio", "qa", "st_max"]), strict=False):
        yield Question(model, text)
        yield Question(model, text, {"offsets": True})
    for layer in (0, 1, 2, 3, -1, -2, -4):
        yield Question("bio", SHORT[layer], {"layer": layer})
    yield Question("bio", SHORT[1:3])
    yield Question("bio", SHORT[4:6], {"layer": 2, "offsets": True})
    for text, model in zip(SHORT[:4], cycle(["bert_bio", "bert_st"]), strict=False):
        yield Question(model, text, {"offsets": True})
    for length, model in zip((3, 5), ["bio", "bert_bio"], strict=True):
        yield Question(model, SHORT[0], {"max_length": length})
        yield Question(model, SHORT[1], {"max_length": length, "layer": 1, "offsets": True})


QUESTIONS_OF = {
    "text-classification": text_classification,
    "fill-mask": fill_mask,
    "token-classification": token_classification,
    "question-answering": question_answering,
    "zero-shot-classification": zero_shot_classification,
    "multiple-choice": multiple_choice,
    "sentence-embedding": sentence_embedding,
    "sparse-embedding": sparse_embedding,
    "text-ranking": text_ranking,
    "feature-extraction": feature_extraction,
}
