"""Why each step is there, in a sentence, and the words that the page uses."""

from typing import Final

from npbert.explaining.markup import escape

# By the last part of a step's name.
REASONS: Final = {
    "tokens": "a network computes with numbers, and a fixed list of pieces gives every text, even "
    "one with new words, a finite list of numbers.",
    "embeddings": "a number in a list says nothing of a word; as a vector, a word can lie near "
    "others that are used alike, and the place is added since attention by itself sees no order.",
    "qkv": "what a token looks for differs from what it offers: “the” looks for its noun, and no "
    "noun looks for “the”; with three vectors the two can differ.",
    "attention": "a score is a sum of products, and grows with the number of features: divided by "
    "the root of that number it stays in the range where softmax still weighs several tokens.",
    "heads": "a token has several questions at once, and one softmax can follow one of them only; "
    "several heads ask side by side, and the last layer brings their answers together.",
    "norm": "with the sum, a block only has to say what changes, and the signal finds its way "
    "through many blocks; the norm keeps the sums from growing block by block.",
    "ffn": "attention only mixes what tokens have; here every token computes something new, and "
    "the bend of the function lets two layers do more than one could.",
    "output": "once more the sum keeps what was there, and the norm hands every block numbers of "
    "the same size.",
    "head": "the blocks make vectors that are good for anything; one small layer, trained for the "
    "task, turns them into what was asked.",
    "answer": "scores can be of any size; as chances they are positive, have the sum 1, and can be "
    "compared between texts.",
    "vectors": "the same can be said in other words, and texts can hardly be compared word by "
    "word; two vectors can, by one number.",
    "similarity": "the direction of a vector carries the meaning; its length hardly does.",
}

GLOSSARY: Final = {
    "attention": "how a token takes up what other tokens say: a mean of their values, weighted by "
    "how well their keys match its query.",
    "bias": "a number added to each output of a linear layer.",
    "block": "attention, then feed forward, each followed by a sum and a norm; a model is a stack "
    "of equal blocks with weights of their own.",
    "embedding": "the vector that stands for a token, or for a whole text.",
    "feature": "one number of a vector.",
    "feed forward": "two linear layers with a function between them, for each token by itself.",
    "head": "one of several attentions side by side, with queries, keys and values of its own.",
    "hidden state": "the vectors of all tokens after a block.",
    "linear layer": "y = W x + b: each output is a weighted sum of all inputs, plus a bias.",
    "logit": "a score before softmax.",
    "logit lens": "the output layer, asked after an earlier block than it was trained for.",
    "mask": "[MASK] stands for a word that is not told; an attention mask says which tokens may be "
    "listened to.",
    "norm": "brings the features of a token to mean 0 and variance 1, then scales and shifts them.",
    "output layer": "what the architecture puts behind the last block to answer.",
    "parameter": "a number of the model that was learned.",
    "query, key, value": "what a token looks for, what it is found by, and what it says.",
    "residual connection": "adding what a step found to what went into it.",
    "similarity": "how far two vectors point the same way; as a cosine it is 1 where they do, and "
    "0 where they have nothing in common.",
    "softmax": "e to the power of each score, divided by the sum of them all: positive, sum 1.",
    "token": "a piece of text with a number: a word, a part of one, or a mark like [CLS].",
    "vector": "a list of numbers: in the pictures the line of a token, in the code a column.",
}


def explain_step(step: str) -> str:
    """Return why a step is there, if that is known."""
    reason = REASONS.get(step.rpartition("-")[2])
    return f'<p class="why"><b>Why?</b> Because {escape(reason)}</p>' if reason else ""


def page_glossary() -> str:
    """Return the words of the page, folded."""
    words = "".join(
        f"<dt>{escape(word)}</dt><dd>{escape(GLOSSARY[word])}</dd>" for word in GLOSSARY
    )
    return (
        '<details class="fold" id="glossary"><summary><h2>Glossary</h2><span>the words of this '
        f"page</span></summary><dl>{words}</dl></details>"
    )
