"""What a task is: one row each, from which everything else follows.

`npbert.pipeline`, the command line and its help, batch jobs, files on a cluster, data frames and
the README's table read these rows; nothing else compares a task's name with a string.  There is no
NumPy here, so that the command line can tell of tasks, and set up the process, before it loads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from npbert.tasks import options

RESULTS: Final = "results"  # where an answer stands beside what is passed through
ERROR: Final = "error"  # where the reason stands that there is none

# Types of columns: a list is [of what], an object {name: type}.
TEXT: Final = "text"
NUMBER: Final = "number"
WHOLE: Final = "whole number"


class Vector(NamedTuple):
    """The type of lists that all have one size."""

    of: str  # TEXT, NUMBER, WHOLE, or the name of a dtype
    size: int


Column = str | Vector | list[Any] | dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """What is known of a task before a model is loaded."""

    name: str
    implementation: str  # module and class, below npbert.tasks
    architecture: str
    fields: tuple[str, ...]  # of an input, given as a tuple or a dict
    required: int = 1  # how many of the fields an input cannot do without
    # Fields that stand for others: {"words": "text"}.
    alternatives: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None  # the field that a TEXT of the command line is; None: the first
    # Fields that can be given for all texts, and what they are.
    flags: Mapping[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] = ()  # of the fields, those that hold several texts
    needs_flag: bool = False  # one of the flags, where texts come plain
    gathers: bool = False  # all TEXTs together are one input
    array_suffix: str | None = None  # of a file that holds many answers as one array
    options: type[options.Options]
    built_in: str | None = None  # the model that ships with npbert
    aliases: tuple[str, ...] = ()  # what the task is called elsewhere
    summary: str  # in a sentence, for the command's help
    example: str  # a command
    answer: str  # one input and its answer, for the README
    columns: Callable[[Any], dict[str, Column]]  # of a task's answers in a table

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that an input may name, the one that a TEXT is first."""
        first = self.text or self.fields[0]
        others = [name for name in self.fields if name != first]
        return (first, *others, *self.alternatives)


def flag_of(name: str) -> str:
    """Return the flag for a name."""
    return f"--{name.replace('_', '-')}"


def classification_columns(task: Any) -> dict[str, Column]:
    """Return the columns of text-classification."""
    one: dict[str, Column] = {"label": TEXT, "score": NUMBER}
    return one if task.options.top_k == "best" else {RESULTS: [one]}


def entity_columns(task: Any) -> dict[str, Column]:
    """Return the column of token-classification."""
    span = {"word": TEXT, "start": WHOLE, "end": WHOLE}
    if task.options.aggregation_strategy == "none":
        return {RESULTS: [{"entity": TEXT, "score": NUMBER, "index": WHOLE, **span}]}
    return {RESULTS: [{"entity_group": TEXT, "score": NUMBER, **span}]}


def filling_columns(task: Any) -> dict[str, Column]:
    """Return the column of fill-mask: words for each mask, even if there is but one."""
    token = [WHOLE] if task.options.multi_piece == "joint" else WHOLE
    word = {"score": NUMBER, "token": token, "token_str": TEXT, "sequence": TEXT}
    return {RESULTS: [[word]]}


def answer_columns(task: Any) -> dict[str, Column]:
    """Return the column of question-answering."""
    one = {"score": NUMBER, "start": WHOLE, "end": WHOLE, "answer": TEXT}
    return {RESULTS: one if task.options.top_k == "best" else [one]}


def choice_columns(task: Any) -> dict[str, Column]:
    """Return the column of multiple-choice."""
    return {RESULTS: {"index": WHOLE, "choice": TEXT, "score": NUMBER, "scores": [NUMBER]}}


def candidate_columns(task: Any) -> dict[str, Column]:
    """Return the column of zero-shot-classification."""
    return {RESULTS: {"sequence": TEXT, "labels": [TEXT], "scores": [NUMBER]}}


def embedding_columns(task: Any) -> dict[str, Column]:
    """Return the column of sentence-embedding: lists of one size."""
    none = task.collect(iter(()), task.options)  # (0, dim)
    dtype = task.model.dtype if task.options.precision == "float32" else none.dtype
    return {"embedding": Vector(dtype.name, none.shape[1])}


def word_columns(task: Any) -> dict[str, Column]:
    """Return the columns of sparse-embedding."""
    return {"indices": [WHOLE], "values": [NUMBER], "tokens": [TEXT]}


def ranking_columns(task: Any) -> dict[str, Column]:
    """Return the column of text-ranking; a pair is a ranking of one document."""
    if task.model.config.num_labels > 1:
        return {RESULTS: {"scores": [NUMBER]}}
    text = {"text": TEXT} if task.options.return_documents else {}
    return {RESULTS: [{"corpus_id": WHOLE, "score": NUMBER, **text}]}


def feature_columns(task: Any) -> dict[str, Column]:
    """Return the column of feature-extraction."""
    vectors = [Vector(task.model.dtype.name, task.model.config.hidden_size)]
    if not task.options.offsets:
        return {RESULTS: vectors}
    return {RESULTS: {"features": vectors, "tokens": [TEXT], "offsets": [Vector(WHOLE, 2)]}}


TEXT_CLASSIFICATION: Final = TaskRow(
    name="text-classification",
    implementation="text_classification.TextClassification",
    architecture="for_sequence_classification",
    fields=("text", "text_pair"),
    flags={"text_pair": "a second text, to go with each"},
    options=options.ClassificationOptions,
    built_in="sentiment",
    aliases=("sentiment-analysis", "classification", "classify", "sentiment"),
    summary="Classify a text, or a pair of texts.",
    example='npbert text-classification "A gorgeous, witty, seductive movie."',
    answer='a text, or `{"text", "text_pair"}`: `{"label", "score"}`',
    columns=classification_columns,
)
TOKEN_CLASSIFICATION: Final = TaskRow(
    name="token-classification",
    implementation="token_classification.TokenClassification",
    architecture="for_token_classification",
    fields=("text",),
    alternatives={"words": "text"},
    options=options.TokenClassificationOptions,
    built_in="ner",
    aliases=("ner", "named-entity-recognition", "entities", "tag"),
    summary="Find the names of people, places and organisations in a text.",
    example='npbert token-classification "Ada Lovelace met Charles Babbage in London."',
    answer='a text, or `{"words"}`: a list of `{"entity_group", "score", "word", "start", "end"}`',
    columns=entity_columns,
)
FILL_MASK: Final = TaskRow(
    name="fill-mask",
    implementation="fill_mask.FillMask",
    architecture="for_masked_language_modeling",
    fields=("text", "text_pair"),
    options=options.FillMaskOptions,
    built_in="fill-mask",
    aliases=("mask-filling", "masked-lm", "masked-language-modeling", "mlm", "unmask"),
    summary="Predict the word where a text says [MASK].",
    example='npbert fill-mask "The ship sank in the [MASK]."',
    answer='a text with `[MASK]`: a list of `{"score", "token", "token_str", "sequence"}`, one '
    "for each mask",
    columns=filling_columns,
)
QUESTION_ANSWERING: Final = TaskRow(
    name="question-answering",
    implementation="question_answering.QuestionAnswering",
    architecture="for_question_answering",
    fields=("question", "context"),
    required=2,
    flags={"context": "the text that answers each question", "question": "what to ask each text"},
    needs_flag=True,
    options=options.QuestionAnsweringOptions,
    aliases=("qa", "extractive-qa", "answer", "ask", "squad"),
    summary="Find the words of a text that answer a question. TEXT is a question or, with "
    "--question, a text.",
    example='npbert question-answering -m FOLDER --context "The ship left Bristol in 1843." '
    '"When?"',
    answer='`{"question", "context"}`: `{"score", "start", "end", "answer"}`',
    columns=answer_columns,
)
MULTIPLE_CHOICE: Final = TaskRow(
    name="multiple-choice",
    implementation="multiple_choice.MultipleChoice",
    architecture="for_multiple_choice",
    fields=("prompt", "choices"),
    required=2,
    listed=("choices",),
    flags={"choices": "the endings, separated by commas; or given once each"},
    needs_flag=True,
    options=options.MultipleChoiceOptions,
    aliases=("choose", "swag"),
    summary="Choose the ending that goes with a beginning.",
    example='npbert multiple-choice -m FOLDER --choices "blue, made of cheese" "The sky is"',
    answer='`{"prompt", "choices"}`: `{"index", "choice", "score", "scores"}`',
    columns=choice_columns,
)
ZERO_SHOT_CLASSIFICATION: Final = TaskRow(
    name="zero-shot-classification",
    implementation="zero_shot.ZeroShotClassification",
    architecture="for_sequence_classification",
    fields=("text", "candidate_labels"),
    options=options.ZeroShotOptions,
    aliases=("zero-shot", "nli", "text-zero-shot-classification"),
    summary="Classify a text by labels of your own.",
    example='npbert zero-shot-classification -m FOLDER --candidate-labels "sport, politics" '
    '"A goal!"',
    answer='a text: `{"sequence", "labels", "scores"}`',
    columns=candidate_columns,
)
SENTENCE_EMBEDDING: Final = TaskRow(
    name="sentence-embedding",
    implementation="sentence_embedding.SentenceEmbedding",
    architecture="base",
    fields=("text",),
    options=options.EmbeddingOptions,
    array_suffix=".npy",
    built_in="embedding",
    aliases=(
        "sentence-similarity",
        "text-embedding",
        "embedding",
        "embeddings",
        "embed",
        "encode",
    ),
    summary="Embed a text: one vector, close to those of texts with the same meaning.",
    example="npbert sentence-embedding --output embeddings.npy < texts.txt",
    answer="a text: an array (dim,); a list: (n, dim)",
    columns=embedding_columns,
)
SPARSE_EMBEDDING: Final = TaskRow(
    name="sparse-embedding",
    implementation="sparse_embedding.SparseEmbedding",
    architecture="for_masked_language_modeling",
    fields=("text",),
    options=options.SparseOptions,
    array_suffix=".npz",
    aliases=("splade", "sparse-encoder"),
    summary="Embed a text sparsely: which words of the vocabulary it is about, and how much.",
    example="npbert sparse-embedding -m FOLDER --output embeddings.npz < texts.txt",
    answer='a text: `{"indices", "values", "tokens"}`',
    columns=word_columns,
)
TEXT_RANKING: Final = TaskRow(
    name="text-ranking",
    implementation="text_ranking.TextRanking",
    architecture="for_sequence_classification",
    fields=("query", "documents"),
    required=2,
    text="documents",
    listed=("documents",),
    flags={"query": "what the texts should answer"},
    needs_flag=True,
    gathers=True,
    options=options.RankingOptions,
    aliases=("cross-encoder", "cross-encoding", "rank", "rerank", "reranking", "text-reranking"),
    summary="Rank texts by how well they answer a query. All TEXTs are ranked together.",
    example='npbert text-ranking -m FOLDER --query "How deep is the sea?" "A cat." "Some 3,700 m."',
    answer='`{"query", "documents"}`: a list of `{"corpus_id", "score"}`; a pair: `{"score"}`',
    columns=ranking_columns,
)
FEATURE_EXTRACTION: Final = TaskRow(
    name="feature-extraction",
    implementation="feature_extraction.FeatureExtraction",
    architecture="base",
    fields=("text", "text_pair"),
    options=options.FeatureOptions,
    built_in="fill-mask",
    aliases=("features", "extract", "hidden-states"),
    summary="Return the model's hidden state: one vector for every token.",
    example='npbert feature-extraction --layer 0 --offsets "Hello."',
    answer="a text: a list of numbers for each token",
    columns=feature_columns,
)
TASKS: Final = {
    row.name: row
    for row in (
        TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, FILL_MASK, QUESTION_ANSWERING, MULTIPLE_CHOICE,
        ZERO_SHOT_CLASSIFICATION, SENTENCE_EMBEDDING, SPARSE_EMBEDDING, TEXT_RANKING,
        FEATURE_EXTRACTION,
    )
}  # fmt: skip
