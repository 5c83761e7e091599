"""How large things in a tokenizer.json may be, checked before the tokenizers package obeys them.

It does as it is told: a template of 80 million tokens ends the process, words without limit take
the square of their length.  The files of BERT and its like stay far below each limit.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, NamedTuple

from npbert.errors import CheckpointError
from npbert.text.growth import SEARCH_TREE, TokenizerStep, list_steps, text_growth, value_at

Data = dict[str, Any]

TOKEN_LIMIT: Final = 1_000  # characters
ADDED_LIMIT: Final = 4 << 20  # characters of all added tokens


class Limit(NamedTuple):
    """How large something may be."""

    what: str
    size: Callable[[Data], float]
    most: int


def text_steps(data: Data) -> list[TokenizerStep]:
    """Return what a text goes through before its pieces are looked up."""
    return [
        *list_steps(data.get("normalizer"), "normalizers"),
        *list_steps(data.get("pre_tokenizer"), "pretokenizers"),
    ]


def decoder_steps(data: Data) -> list[TokenizerStep]:
    """Return what pieces go through to become a text again."""
    return list(list_steps(data.get("decoder"), "decoders"))


def template_steps(data: Data) -> list[TokenizerStep]:
    """Return what puts special tokens around a text."""
    return list(list_steps(data.get("post_processor"), "processors"))


def template_slots(data: Data, kind: str) -> Iterator[tuple[TokenizerStep, list[str]]]:
    """Yield every template with the names of its slots of one kind, SpecialToken or Sequence."""
    for step in template_steps(data):
        for form in ("single", "pair"):
            slots = step.get(form)
            names = (
                [value_at(slot, kind, "id") for slot in slots] if isinstance(slots, list) else []
            )
            yield step, [name for name in names if isinstance(name, str)]


def template_specials(data: Data) -> float:
    """Return how many special tokens the templates add, the one for a text or that for two."""
    most = 0
    for step, names in template_slots(data, "SpecialToken"):
        ids = [value_at(step, "special_tokens", name, "ids") for name in names]
        most = max(most, sum(len(each) for each in ids if isinstance(each, list)))
    return most * len(template_steps(data))


def template_repeats(data: Data) -> float:
    """Return how often a template says the same text."""
    return max(
        (names.count(name) for _, names in template_slots(data, "Sequence") for name in names),
        default=0,
    )


def list_added_tokens(data: Data) -> dict[str, Data]:
    """Return the added tokens, by how they are written."""
    added = data.get("added_tokens")
    return {
        text: each
        for each in (added if isinstance(added, list) else ())
        if isinstance(each, dict) and isinstance(text := each.get("content"), str)
    }


def longest_piece(data: Data) -> float:
    """Return how many characters the longest token has."""
    pieces = value_at(data, "model", "vocab")
    if isinstance(pieces, list):  # pairs with a score
        pieces = [each[0] for each in pieces if isinstance(each, list) and each]
    return max((len(each) for each in pieces or () if isinstance(each, str)), default=0)


def longest_string(data: Data) -> float:
    """Return how many characters the longest string has that a step looks for or writes."""
    found = [
        text
        for step in [*text_steps(data), *decoder_steps(data)]
        for name, value in step.items()
        if name != SEARCH_TREE
        for text in (value, value_at(value, "String"))
    ]
    return max((len(text) for text in found if isinstance(text, str)), default=0)


def longest_regex(data: Data) -> float:
    """Return how many characters the longest regular expression of a step has."""
    found = [value_at(step, "pattern", "Regex") for step in text_steps(data) + decoder_steps(data)]
    return max((len(text) for text in found if isinstance(text, str)), default=0)


def model_number(name: str) -> Callable[[Data], float]:
    """Return what reads a number of the model, 0 for what is none."""

    def number(data: Data) -> float:
        value = value_at(data, "model", name)
        return value if isinstance(value, int) else 0

    return number


def model_string(name: str) -> Callable[[Data], float]:
    """Return what reads how long a string of the model is."""

    def length(data: Data) -> float:
        value = value_at(data, "model", name)
        return len(value) if isinstance(value, str) else 0

    return length


TOKENIZER_LIMITS: Final = (
    Limit("steps in normalizer, pre_tokenizer, post_processor and decoder", lambda data: len(
        [*text_steps(data), *template_steps(data), *decoder_steps(data)]), 300),
    Limit("characters in a string of normalizer, pre_tokenizer or decoder", longest_string, 256),
    Limit("characters in a regular expression", longest_regex, 4_096),
    Limit("characters that normalizer and pre_tokenizer may make of one", lambda data:
        text_growth(text_steps(data)), 100),
    Limit("characters that decoder may make of one", lambda data:
        text_growth(decoder_steps(data)), 100),
    Limit("special tokens that post_processor adds to a text", template_specials, 64),
    Limit("times the same text in a template of post_processor", template_repeats, 1),
    Limit("characters in a token", longest_piece, TOKEN_LIMIT),
    Limit("for max_input_chars_per_word", model_number("max_input_chars_per_word"), 256),
    Limit("characters in continuing_subword_prefix",
        model_string("continuing_subword_prefix"), 16),
    Limit("characters in end_of_word_suffix", model_string("end_of_word_suffix"), 16),
)  # fmt: skip


def check_limits(data: Data, added: Collection[str], where: str) -> None:
    """Refuse a tokenizer.json with something beyond its limit.  Raises CheckpointError."""
    for what, size, most in TOKENIZER_LIMITS:
        refuse_beyond(most, size(data), what, where)
    check_added_limits(added, where)


def check_added_limits(added: Collection[str], where: str) -> None:
    """Refuse added tokens that no tokenizer needs.  Raises CheckpointError."""
    refuse_beyond(TOKEN_LIMIT, max(map(len, added), default=0), "characters in a token", where)
    refuse_beyond(ADDED_LIMIT, sum(map(len, added)), "characters in added_tokens", where)


def refuse_beyond(most: int, has: float, what: str, where: str) -> None:
    """Refuse a number that is greater than its limit.  Raises CheckpointError."""
    if not has <= most:
        told = f"{has:,.0f}" if has < 1e15 else "over 1e15"
        raise CheckpointError(
            f"{where}: has {told} {what}, expected at most {most:,}; a tokenizer of a BERT "
            "needs no more, and the file may be damaged, or made to fill the memory"
        )
