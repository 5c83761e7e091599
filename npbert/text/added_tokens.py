"""Added tokens, special ones among them: which a folder has, and how each is found in a text.

A token may take the space before it (lstrip) or behind it (rstrip), stand for a whole word only
(single_word), be looked for in the text as the normalizer leaves it (normalized), and be left out
of a decoded text (special).  As in transformers, what tokenizer_config.json says in
added_tokens_decoder holds; without that tokenizer.json, then added_tokens.json; and only of a token
that these do not have, what the settings say beside its role.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer

from npbert.checkpoint.reading import is_listed, read_json_object
from npbert.errors import CheckpointError, listing, quote, warn
from npbert.text.tokenizer_limits import check_added_limits

ADDED: Final = "added_tokens.json"
DECODER: Final = "added_tokens_decoder"  # of tokenizer_config.json
SPECIALS: Final = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
    "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
OTHER_ROLES: Final = ("bos_token", "eos_token")  # which no encoder asks for, special all the same
MORE_SPECIALS: Final = (
    "additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens",
)  # fmt: skip
FLAGS: Final = ("lstrip", "rstrip", "single_word", "normalized", "special")
VOCABULARY_LIMIT: Final = 64 << 20  # bytes; a file of 200,000 added tokens may have 40 million

Flags = dict[str, bool]


def token_content(token: Any, default: str) -> str:
    """Return a special token as settings spell it: a string, an object with content, or null."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else default


def add_tokens(
    pieces: Tokenizer, added: Mapping[str, Any], settings: Mapping[str, Any], path: Path
) -> None:
    """Give the tokenizer of `path` the added tokens that the files beside it tell of.

    Those that it has are `added`, as tokenizer.json lists them.  Raises CheckpointError where a
    token would get another id than its file says.
    """
    has = {text: {flag: token.get(flag) for flag in FLAGS} for text, token in added.items()}
    specials = list(list_specials(settings))
    numbers, listed = read_listed(settings, path.parent, {content for content, *_ in specials})
    # The settings are newer than a tokenizer.json, the file of a slow tokenizer is older.
    known = {**has, **listed} if settings.get(DECODER) else {**listed, **has}
    wanted = {content: known[content] for content in listed}
    for content, flags, beyond_roles in specials:
        if content in known:
            wanted[content] = {**known[content], "special": True}
        elif beyond_roles or pieces.token_to_id(content) is not None:
            wanted[content] = {**default_flags(special=True), **flags, "special": True}
    more = {content: flags for content, flags in wanted.items() if flags != has.get(content)}
    if more:  # all at once, and not for none: each time all added tokens are indexed anew
        check_added_limits(more, str(path))
        pieces.add_tokens([AddedToken(content, **flags) for content, flags in more.items()])
    check_numbers(pieces, numbers, path)


def read_listed(
    settings: Mapping[str, Any], folder: Path, specials: set[str]
) -> tuple[dict[str, int], dict[str, Flags]]:
    """Return the ids and the flags of the added tokens that are listed beside the tokenizer."""
    if decoder := settings.get(DECODER):
        some = [(int(number), token) for number, token in decoder.items() if token["content"]]
        listed = sorted(some, key=lambda pair: pair[0])
        return {token["content"]: number for number, token in listed}, {
            token["content"]: {
                **default_flags(special=token.get("special", False)), **read_flags(token)
            }
            for _, token in listed
        }  # fmt: skip
    if not is_listed(folder / ADDED):
        return {}, {}
    numbers = read_json_object(folder / ADDED, VOCABULARY_LIMIT)
    wrong = [f"{content!r}: {quote(n)}" for content, n in numbers.items() if type(n) is not int]
    if wrong:
        raise CheckpointError(f"{folder / ADDED}: has {listing(wrong)}, expected ids of tokens")
    in_order = sorted(filter(None, numbers), key=numbers.__getitem__)
    return numbers, {content: default_flags(special=content in specials) for content in in_order}


def list_specials(settings: Mapping[str, Any]) -> Iterator[tuple[str, Flags, bool]]:
    """Yield the special tokens of settings, their flags, and if they are more than a role's.

    A role may have a token that no vocabulary has, such as a mask where nothing is masked.
    """
    for role in (*SPECIALS, *OTHER_ROLES):
        if content := token_content(settings.get(role), SPECIALS.get(role, "")):
            yield content, read_flags(settings.get(role)), False
    for name in MORE_SPECIALS:
        given = settings.get(name) or []
        for token in given.values() if isinstance(given, dict) else given:
            if content := token_content(token, ""):
                yield content, read_flags(token), True


def default_flags(*, special: bool) -> Flags:
    """Return the flags of a token of which nothing else is said."""
    return {**dict.fromkeys(FLAGS, False), "normalized": not special, "special": special}


def read_flags(token: Any) -> Flags:
    """Return the flags that settings say of a token."""
    if not isinstance(token, dict):
        return {}
    return {flag: token[flag] for flag in FLAGS if isinstance(token.get(flag), bool)}


def check_added(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the added tokens of settings, a sentence each."""
    decoder = settings.get(DECODER)
    if not isinstance(decoder, dict | None):
        yield f"{DECODER} is {quote(decoder)}, expected an object of tokens by their ids"
        return
    for number, token in (decoder or {}).items():
        known = number.isdecimal() and number.isascii() and len(number) < 10
        if not (known and isinstance(token, dict) and isinstance(token.get("content"), str)):
            yield f"{DECODER} has {quote(number)}: {quote(token)}, expected an id and a token"
        elif odd := [flag for flag in FLAGS if not isinstance(token.get(flag, False), bool)]:
            yield (
                f"{DECODER} has {quote(number)} with {odd[0]} {quote(token[odd[0]])}, expected "
                "true or false"
            )
    for name in MORE_SPECIALS:
        also = settings.get(name)
        if not isinstance(also, list | dict | None):
            yield f"{name} is {quote(also)}, expected a list"
            continue
        tokens = also.values() if isinstance(also, dict) else also or ()
        if odd := [token for token in tokens if token and not token_content(token, "")]:
            yield f"{name} has {quote(odd[0])}, expected a token"


def check_numbers(pieces: Tokenizer, numbers: Mapping[str, int], path: Path) -> None:
    """Tell of tokens whose ids two files give differently; where one has none they are lost."""
    other = {
        content: (number, has)
        for content, number in numbers.items()
        if content and (has := pieces.token_to_id(content)) != number
    }
    if not other:
        return
    content, (number, has) = next(iter(other.items()))
    if path.suffix == ".json":
        warn(
            f"{path} gives {len(other)} added tokens other ids than the files beside it, "
            f"{content!r} {has} and not {number}; {path.name} holds"
        )
        return
    raise CheckpointError(
        f"{path}: the added token {content!r} has the id {number}, expected {has}: ids go on where "
        "the vocabulary ends, without a gap; are the files of one model?"
    )
