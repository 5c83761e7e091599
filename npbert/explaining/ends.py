"""The last steps of a pass: what each architecture makes of the hidden state."""

from collections.abc import Callable, Mapping
from typing import Final

from npbert import heads, textbook
from npbert.engine.activations import sigmoid
from npbert.explaining.figures import Map, Sheet, activation_curve, bars, heat_map
from npbert.explaining.markup import escape, token
from npbert.explaining.passes import MOST, Pass, Question, result
from npbert.explaining.steps import NORMED, Functions, activation_source, step, whole
from npbert.tasks import sentence_transformers as sentences
from npbert.tasks.task import best, softmax

MASKS: Final = 4  # of a text, of which the best words are told


def end(run: Pass, sheet: Sheet, asked: Question) -> str:
    """Return the steps behind the last block, down to the answer."""
    made = ENDS[heads.HEADS[run.model.row.head]](run, sheet)
    return made if asked.compares else made + answer(run, asked)


def answer(run: Pass, asked: Question) -> str:
    """Return the last step: what the numbers of the head mean."""
    found = asked.read(result(run))
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
        says += f" The answer: <strong>{token(found.best)}</strong>"
    return step("answer", "The answer", says, functions, f"{figures}{more_masks(run)}</figure>")


def more_masks(run: Pass) -> str:
    """Return the best words for the masks after the first."""
    mask, ids = run.tokenizer.id_of("mask_token"), run.encoding.ids
    if heads.HEADS[run.model.row.head] is not heads.masked_lm or mask not in ids:
        return ""
    made = ""
    for place in [i for i, each in enumerate(ids) if each == mask][1:MASKS]:
        chances = softmax(result(run)[place])
        known = run.tokenizer.known[run.tokenizer.known < len(chances)]
        order = known[best(chances[known], MOST)]
        names = [run.tokenizer.decode([int(i)], skip_special=False) for i in order]
        made += (
            f"<p>token {place}, {token(run.tokens[place])}:</p>{bars(names, list(chances[order]))}"
        )
    return made


def masked_lm(run: Pass, sheet: Sheet) -> str:
    """From a vector to a chance for every word of the vocabulary."""
    name, config = run.model.config.activation, run.model.config
    figures = whole(run, sheet, "vocab_transform", "transformed", "h = W x + b")
    figures += activation_curve(name, run.rows("vocab_transform"), "activation function")
    figures += whole(run, sheet, "vocab_activation", "activated", f"h = {escape(name)}(h)")
    figures += whole(run, sheet, "vocab_layer_norm", "normed", NORMED)
    says = (
        "One more layer, a norm, and a product with the vector of every word in the vocabulary, "
        f"{config.vocab_size:,} of them: the greater the product, the better the word fits."
    )
    functions: Functions = [
        (
            heads.masked_lm,
            ("vocab_transform", "vocab_activation", "vocab_layer_norm", "vocab_projector"),
        ),
        *activation_source(name),
    ]
    return step("head", "Vectors become words", says, functions, figures)


def per_sequence(run: Pass, sheet: Sheet) -> str:
    """From the first token's vector to the classes of a sequence."""
    figures = whole(run, sheet, "pre_classifier", "pre-classifier", "h = W x<sub>[CLS]</sub> + b")
    figures += activation_curve("relu", run.rows("pre_classifier"), "activation function")
    figures += whole(run, sheet, "pooled", "pooled", "h = relu(h)")
    figures += labelled(run, sheet, "classifier", "logits", run.tokens[:1])
    says = (
        "The first token, which belongs to no word, has listened to all others in every block. Its "
        "vector stands for the whole text: one layer, relu, and one number for every class."
    )
    functions: Functions = [
        (heads.pooled, ("pre_classifier", "pooled")), (heads.per_sequence, ("classifier",)),
    ]  # fmt: skip
    return step("head", "One vector becomes classes", says, functions, figures)


def per_token(run: Pass, sheet: Sheet) -> str:
    """From every token's vector to its classes."""
    says = "A linear layer gives every token one number for every class; the greatest names it."
    figures = labelled(run, sheet, "classifier", "logits", sheet.tokens)
    functions: Functions = [(heads.per_token, ("classifier",))]
    return step("head", "Vectors become labels", says, functions, figures)


def question_answering(run: Pass, sheet: Sheet) -> str:
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
    functions: Functions = [
        (heads.question_answering, ("qa_outputs", "start_logits", "end_logits"))
    ]
    return step("head", "Vectors become a span", says, functions, figures)


def base(run: Pass, sheet: Sheet) -> str:
    """The hidden state itself, and what a sentence-transformer makes of it."""
    last = f"transformer.layer.{run.model.config.num_blocks - 1}.output_layer_norm"
    names = list(run.trace)
    after = names[names.index(last) + 1 :]
    figures = "".join(whole(run, sheet, name, escape(name), "", after=True) for name in after)
    functions: Functions = [(heads.base, ())]
    says = "A base model answers with the last hidden state: a vector for every token, shown above."
    if "sentence_embedding" in after:
        says += " This one comes with a recipe that makes one vector of them, for the whole text."
        recipe = (sentences.Recipe.embed, ("pooling", "sentence_embedding"))
        functions = [*functions, recipe, (sentences.pool, ())]
    elif "pooled" in after:
        says += " Its file also has the layer that pools the first token."
        functions = [*functions, (heads.pooled, ("pre_classifier", "pooled"))]
    return step("head", "The hidden state", says, functions, figures)


def labelled(run: Pass, sheet: Sheet, name: str, title: str, rows: list[str]) -> str:
    """Return the map of a classifier's results, its columns named after the classes."""
    x, config = sheet.add(name, run.rows(name)), run.model.config
    named = [config.label(i) for i in range(x.shape[-1])]
    shown = Map(name, title, "W x + b", x, rows, named, total=config.num_labels, among="classes")
    return heat_map(shown)


ENDS: Final[Mapping[heads.Head, Callable[[Pass, Sheet], str]]] = {
    heads.base: base,
    heads.masked_lm: masked_lm,
    heads.per_sequence: per_sequence,
    heads.per_token: per_token,
    heads.question_answering: question_answering,
}
