"""The last steps of a pass: what each architecture makes of the hidden state."""

from collections.abc import Callable, Mapping
from typing import Final

from npbert import heads, textbook
from npbert.engine.activations import sigmoid
from npbert.explaining.figures import Map, Sheet, activation_curve, answer_html, bars, heat_map
from npbert.explaining.markup import escape, token_html
from npbert.explaining.passes import (
    NAMES_SHOWN,
    NEXT_SENTENCE_ANSWERS,
    Pass,
    Question,
    head_rows,
)
from npbert.explaining.steps import NORMED, Functions, activation_source, step_section, token_map
from npbert.families import FAMILIES, own_module
from npbert.tasks import modules, sentence_transformers
from npbert.tasks.task import best_indices, probabilities

MASKS: Final = 4  # of a text, of which the best words are told


def end_steps(run: Pass, sheet: Sheet, asked: Question) -> str:
    """Return the steps behind the last block, down to the answer."""
    made = END_SECTIONS[heads.HEADS[run.model.row.head]](run, sheet)
    return made if asked.compares else made + answer_step(run, asked)


def answer_step(run: Pass, asked: Question) -> str:
    """Return the last step: what the numbers of the head mean."""
    found = asked.read(head_rows(run))
    about = escape(asked.about)
    functions: Functions = [(textbook.softmax, ())]
    if "by itself" in asked.about:
        functions = [(sigmoid, ())]
    elif "value" in asked.about:
        functions = []
    figures = f"<figure class=wide><figcaption><b>{about}</b></figcaption>" + bars(
        asked.names, found.values, answer=True
    )
    says = f"{about[0].upper()}{about[1:]}."
    if found.best:
        says += f" The answer: {answer_html(found.best)}"
    return step_section(
        "answer", "The answer", says, functions, f"{figures}{describe_masks(run)}</figure>"
    )


def describe_masks(run: Pass) -> str:
    """Return the best words for the masks after the first."""
    mask, ids = run.tokenizer.id_of("mask_token"), run.encoding.ids
    if heads.HEADS[run.model.row.head] is not heads.predict_words or mask not in ids:
        return ""
    made = ""
    for place in [i for i, each in enumerate(ids) if each == mask][1:MASKS]:
        chances = probabilities(head_rows(run)[place])
        known = run.tokenizer.known_ids[run.tokenizer.known_ids < len(chances)]
        order = known[best_indices(chances[known], NAMES_SHOWN)]
        names = [run.tokenizer.decode([int(i)], skip_special=False) for i in order]
        figure = bars(names, list(chances[order]))
        made += f"<p>token {place}, {token_html(run.tokens[place])}:</p>{figure}"
    return made


def masked_lm_section(run: Pass, sheet: Sheet) -> str:
    """From a vector to a chance for every word of the vocabulary."""
    name, config = run.model.config.activation, run.model.config
    figures = token_map(run, sheet, "vocab_transform", "transformed", "h = W x + b")
    figures += activation_curve(name, run.rows("vocab_transform"), "activation function")
    figures += token_map(run, sheet, "vocab_activation", "activated", f"h = {escape(name)}(h)")
    figures += token_map(run, sheet, "vocab_layer_norm", "normed", NORMED)
    says = (
        "One more layer, a norm, and a product with the vector of every word in the vocabulary, "
        f"{config.vocab_size:,} of them: the greater the product, the better the word fits."
    )
    functions: Functions = [
        (
            heads.predict_words,
            ("vocab_transform", "vocab_activation", "vocab_layer_norm", "vocab_projector"),
        ),
        *activation_source(name),
    ]
    return step_section("head", "Vectors become words", says, functions, figures)


def per_sequence_section(run: Pass, sheet: Sheet) -> str:
    """From the first token's vector to the classes of a sequence."""
    title = "One vector becomes classes"
    figures = pooler_maps(run, sheet) + label_map(
        run, sheet, "classifier", "logits", run.tokens[:1]
    )
    says = f"{pooler_summary(run)}, and one number for every class."
    functions: Functions = [
        (heads.pool_first, ("pre_classifier", "pooled")),
        (heads.classify_sequences, ("classifier",)),
    ]  # fmt: skip
    return step_section("head", title, says, functions, figures)


def sentence_section(run: Pass, sheet: Sheet) -> str:
    """From the first token's vector to whether the second text follows the first."""
    name = "seq_relationship"
    x = sheet.add(name, run.rows(name))
    shown = Map(
        name, "logits", "W x + b", x, run.tokens[:1], NEXT_SENTENCE_ANSWERS, among="answers"
    )
    says = f"{pooler_summary(run)}, and two numbers: does the second text follow the first, or not?"
    functions: Functions = [
        (heads.pool_first, ("pre_classifier", "pooled")),
        (heads.predict_next_sentence, (name,)),
    ]  # fmt: skip
    figures = pooler_maps(run, sheet) + heat_map(shown)
    return step_section("head", "One vector becomes an answer", says, functions, figures)


def pooler_summary(run: Pass) -> str:
    """Return in words what is pooled."""
    return (
        "The first token, which belongs to no word, has listened to all others in every block. Its "
        f"vector stands for the whole text: one layer, {FAMILIES[run.model.family].pooler}"
    )


def pooler_maps(run: Pass, sheet: Sheet) -> str:
    """Return the maps of the layer that pools the first token, and of its function."""
    function = FAMILIES[run.model.family].pooler
    title = own_module(run.model.family, "pre_classifier").replace("_", "-")
    return (
        token_map(run, sheet, "pre_classifier", title, "h = W x<sub>[CLS]</sub> + b")
        + activation_curve(function, run.rows("pre_classifier"), "activation function")
        + token_map(run, sheet, "pooled", "pooled", f"h = {function}(h)")
    )


def per_token_section(run: Pass, sheet: Sheet) -> str:
    """From every token's vector to its classes."""
    says = "A linear layer gives every token one number for every class; the greatest names it."
    figures = label_map(run, sheet, "classifier", "logits", sheet.tokens)
    functions: Functions = [(heads.classify_tokens, ("classifier",))]
    return step_section("head", "Vectors become labels", says, functions, figures)


def question_answering_section(run: Pass, sheet: Sheet) -> str:
    """From every token's vector to where the answer starts and ends."""
    x = sheet.add("qa_outputs", run.rows("qa_outputs"))
    figures = heat_map(
        Map("qa_outputs", "start and end", "W x + b", x, sheet.tokens, ("start", "end"),
            among="numbers")
    )  # fmt: skip
    says = (
        "A linear layer gives every token two numbers: does the answer start here, does it end "
        "here? The best span of the text multiplies the two chances."
    )
    functions: Functions = [(heads.find_spans, ("qa_outputs", "start_logits", "end_logits"))]
    return step_section("head", "Vectors become a span", says, functions, figures)


def base_section(run: Pass, sheet: Sheet) -> str:
    """The hidden state itself, and what a sentence-transformer makes of it."""
    last = f"transformer.layer.{run.model.config.num_blocks - 1}.output_layer_norm"
    names = list(run.trace)
    after = names[names.index(own_module(run.model.family, last)) + 1 :]
    figures = "".join(token_map(run, sheet, name, escape(name), "", after=True) for name in after)
    functions: Functions = [(heads.return_states, ())]
    says = "A base model answers with the last hidden state: a vector for every token, shown above."
    if "sentence_embedding" in after:
        says += " This one comes with a recipe that makes one vector of them, for the whole text."
        recipe = (sentence_transformers.Recipe.embed, ("pooling", "sentence_embedding"))
        functions = [*functions, recipe, (modules.pool, ())]
    elif own_module(run.model.family, "pooled") in after:
        says += " Its file also has the layer that pools the first token."
        functions = [*functions, (heads.pool_first, ("pre_classifier", "pooled"))]
    return step_section("head", "The hidden state", says, functions, figures)


def label_map(run: Pass, sheet: Sheet, name: str, title: str, rows: list[str]) -> str:
    """Return the map of a classifier's results, its columns named after the classes."""
    x, config = sheet.add(name, run.rows(name)), run.model.config
    named = [config.label(i) for i in range(x.shape[-1])]
    shown = Map(name, title, "W x + b", x, rows, named, total=config.num_labels, among="classes")
    return heat_map(shown)


END_SECTIONS: Final[Mapping[heads.Head, Callable[[Pass, Sheet], str]]] = {
    heads.return_states: base_section,
    heads.predict_words: masked_lm_section,
    heads.classify_sequences: per_sequence_section,
    heads.predict_next_sentence: sentence_section,
    heads.classify_tokens: per_token_section,
    heads.find_spans: question_answering_section,
}
