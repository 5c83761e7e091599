"""question-answering: which words of a text answer a question?

The algorithm of Devlin et al. 2019, section 4.2: an answer is a span of the text, and its score
the chance that it starts where it does times the chance that it ends where it does.  A text longer
than a window is read in windows that overlap; chances are those within a window, and a span that
several windows hold has the best of its scores.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.engine.spellings import explain_arguments
from npbert.errors import InputError
from npbert.tasks.containers import convert_inputs
from npbert.tasks.options import QuestionAnsweringOptions
from npbert.tasks.task import (
    Answer,
    Reading,
    Task,
    TokenList,
    probabilities,
    split_into_chunks,
    unit_offsets,
)
from npbert.text.encodings import Encoding, column_array
from npbert.textbook import Array

CharacterSpan = tuple[int, int]  # characters of the context


class Passage(NamedTuple):
    """The text that holds the answer, as the model reads it."""

    text: str
    windows: list[slice]  # tokens of the text
    starts: NDArray[np.int32]  # of every token, the character where an answer may start with it
    ends: NDArray[np.int32]


class QuestionAnswering(Task[QuestionAnsweringOptions, Passage]):
    """Answers {"score", "start", "end", "answer"}: the best, or with top_k a list, best first.

    `answer` is what stands in the context between start and end; the empty answer, where that is
    possible, has 0 for both.
    """

    @explain_arguments
    def __call__(
        self, inputs: Any = None, *more: Any, question: Any = None, context: Any = None,
        **changes: Any,
    ) -> Any:  # fmt: skip
        """Answer one question, or many.

        Parameters
        ----------
        inputs : dict or tuple of question and context; a list, or other iterable, of these
        question, context : str, or list of str
            In place of inputs.  Where one is a list, the other may be one str for all of it.
        **changes
            Options that hold for this call only.

        Raises
        ------
        InputError
        """
        if question is None and context is None:
            return super().__call__(inputs, *more, **changes)
        if inputs is not None:
            raise InputError(f"{self.row.name} takes inputs, or question= and context=, not both")
        return super().__call__(pair_inputs(question, context), **changes)

    def read(self, item: Any, options: QuestionAnsweringOptions) -> Reading[Passage]:
        """Turn a question and its context into windows of tokens.  Raises InputError."""
        question, context = self.parts(item)
        asked = self.tokenizer.tokenize(question, options.max_question_length)
        tokens = self.tokenizer.tokenize(context)
        for name, found in (("question", asked), ("context", tokens)):
            if not found.ids:
                raise InputError(f"the {name} is empty")
        cut = max(0, len(asked) + asked.unread - options.max_question_length)
        asked = asked[: options.max_question_length]
        limit = (
            min(384, self.tokenizer.max_length)
            if options.max_length is None
            else options.max_length
        )
        room = self.tokenizer.room(2, limit) - len(asked)
        if room < 1:
            raise InputError(
                f"max_length is {self.tokenizer.limit(limit)}, and the question with the special "
                f"tokens takes {self.tokenizer.limit(limit) - room}: there is no room for context"
            )
        # The last keeps a long question from making windows that move by a token or two.
        shared = min(128, self.tokenizer.limit(limit) // 2, room * 3 // 4)
        spans = split_into_chunks(
            len(tokens), room, shared if options.stride is None else options.stride
        )
        lists = (self.window(asked, tokens[span]) for span in spans)
        passage = Passage(context, spans, *answer_edges(tokens, words=options.align_to_words))
        return Reading(lists, passage, [cut] if cut else [])

    def window(self, question: Encoding, some: Encoding) -> TokenList:
        """Return a window's ids, and the positions of [CLS], "no answer", and of the context."""
        encoding = self.tokenizer.add_special_tokens([question, some])
        cls = self.tokenizer.id_of("cls_token")
        specials = [i for i, source in enumerate(encoding.sequence_ids) if source is None]
        null = [i for i in specials if encoding.ids[i] == cls][:1]
        if not null:
            raise InputError(
                "the model reads no [CLS], at which a question without an answer is told"
            )
        places = [i for i, source in enumerate(encoding.sequence_ids) if source == 1]
        return self.list_of(encoding, null + places)

    def answer(
        self, reading: Reading[Passage], values: list[Array], options: QuestionAnsweringOptions
    ) -> Answer | list[Answer]:
        """Turn start and end logits, (1 + tokens, 2) a window, into answers."""
        passage = reading.given
        most = 1 if options.top_k == "best" else options.top_k
        scores: dict[CharacterSpan, float] = {}
        null = 1.0
        for window, logits in zip(passage.windows, values, strict=True):
            start, end = probabilities(logits.T)
            null = min(null, float(start[0] * end[0]))
            places = passage.starts[window], passage.ends[window]
            for span, score in rank_spans(
                start[1:], end[1:], places, most, options.max_answer_length
            ):
                scores[span] = max(score, scores.get(span, 0.0))
        if options.handle_impossible_answer:
            scores[0, 0] = null
        units = unit_offsets(passage.text, options.offset_unit)
        answers = [
            {
                "score": score,
                "start": int(units[a]),
                "end": int(units[b]),
                "answer": passage.text[a:b],
            }
            for (a, b), score in sorted(scores.items(), key=lambda found: -found[1])
        ]
        return answers[0] if options.top_k == "best" else answers[:most]

    def truncation_notice(self, texts: int, tokens: int, options: QuestionAnsweringOptions) -> str:
        """Say how much was cut of questions; contexts are read to their ends."""
        return (
            f"{texts} of the questions {'was' if texts == 1 else 'were'} truncated to "
            f"{options.max_question_length} tokens (max_question_length), {tokens} tokens were not "
            "read"
        )


def pair_inputs(question: Any, context: Any) -> Any:
    """Return what question= and context= stand for: an input, or a list of them."""
    question, context = (
        convert_inputs(each, ("question", "context")) for each in (question, context)
    )
    many = [len(each) for each in (question, context) if isinstance(each, list)]
    if not many:
        return {"question": question, "context": context}
    if len(set(many)) > 1:
        raise InputError(f"there are {many[0]} questions and {many[1]} contexts")
    questions = question if isinstance(question, list) else [question] * many[0]
    contexts = context if isinstance(context, list) else [context] * many[0]
    return [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]


def answer_edges(tokens: Encoding, *, words: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return where each token starts and ends, or the word that it is a piece of."""
    starts, ends = column_array(tokens.offsets).T
    if not words:
        return starts, ends
    number = column_array(tokens.word_ids)
    first = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
    last = np.r_[first[1:] - 1, len(number) - 1]
    lengths = last - first + 1
    return np.repeat(starts[first], lengths), np.repeat(ends[last], lengths)


def rank_spans(
    start: Array,
    end: Array,
    edges: tuple[NDArray[np.int32], NDArray[np.int32]],
    most: int,
    longest: int,
) -> Iterator[tuple[CharacterSpan, float]]:
    """Yield the best different spans of at most `longest` tokens, best first.

    start, end : (tokens,), the chances that an answer starts, ends, with each token
    """
    longest = min(longest, len(end))
    padded = np.concatenate([end, np.full(longest - 1, -1.0)])  # beyond the last token
    ahead = np.lib.stride_tricks.sliding_window_view(padded, longest)
    scores = (start[:, None] * ahead).ravel()  # [i, n]: from token i to token i + n
    found: set[CharacterSpan] = set()
    for flat in np.argsort(-scores, kind="stable"):
        i, n = divmod(int(flat), longest)
        if i + n >= len(end):
            continue
        span = int(edges[0][i]), int(edges[1][i + n])
        if span not in found:
            found.add(span)
            yield span, float(scores[flat])
        if len(found) == most:
            return
