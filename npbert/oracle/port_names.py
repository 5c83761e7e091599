"""What ports call the steps of a model: one table a system, templates of theirs to canonical names.

Matching ignores case and separators: `encoder/layers_0/out` and `encoder.layer.0.out` are one name.
In a template {n} is the number of a block, and {an+b} a number that is a times it and b more, where
a number that is left out is 0; {aL+b} is so of the number of all blocks, and * stands for anything.
A target may name alternatives, `a | b`, of which the model has one; or several values that are
kept in one array, `a, b, c`, where {*} is every block.  An empty one is a value between steps.
"""

from collections.abc import Mapping
from typing import Final

from npbert.families import BLOCK_PREFIX

BLOCK_STEPS: Final = (
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.scores",
    "attention.masked_scores", "attention.weights", "attention.context", "attention.out_lin",
    "attention_residual", "sa_layer_norm", "ffn.lin1", "ffn.activation", "ffn.lin2",
    "ffn_residual", "output_layer_norm",
)  # fmt: skip
STEPS: Final = (  # canonical names, in the order of the pass
    "embeddings.word_embeddings", "embeddings.position_embeddings",
    "embeddings.token_type_embeddings", "embeddings.sum", "embeddings.LayerNorm",
    *(BLOCK_PREFIX + step for step in BLOCK_STEPS), "last_hidden_state",
    "pre_classifier", "pooled", "classifier", "qa_outputs", "seq_relationship", "vocab_transform",
    "vocab_activation", "vocab_layer_norm", "vocab_projector", "logits", "start_logits",
    "end_logits", "pooling", "sentence_embedding",
)  # fmt: skip
GIVEN: Final = (  # inputs, and how long the sequences are that lie one after the other
    "input_ids", "attention_mask", "position_ids", "token_type_ids", "attention_head_mask",
    "cumulative_lengths", "lengths",
)  # fmt: skip
EVERY_BLOCK: Final = BLOCK_PREFIX.replace("{n}", "{*}")
HIDDEN_STATES: Final = f"embeddings.LayerNorm, {EVERY_BLOCK}output_layer_norm"
QUERIES_KEYS_VALUES: Final = ", ".join(f"{BLOCK_PREFIX}attention.{x}_lin" for x in "qkv")

PYTORCH: Final = {
    # what forward hooks and outputs of the model are called
    "transformer.layer.{n}.attention": BLOCK_PREFIX + "attention.out_lin",
    "transformer.layer.{n}.ffn": BLOCK_PREFIX + "ffn.lin2",
    "transformer.layer.{n}": BLOCK_PREFIX + "output_layer_norm",
    "transformer": "last_hidden_state",
    "embeddings": "embeddings.LayerNorm",
    "hidden_states.0": "embeddings.LayerNorm",
    "hidden_states.{n+1}": BLOCK_PREFIX + "output_layer_norm",
    "attentions.{n}": BLOCK_PREFIX + "attention.weights",
    "hidden_states": HIDDEN_STATES,
    "all_hidden_states": HIDDEN_STATES,
    "all_encoder_layers": HIDDEN_STATES,
    "attentions": EVERY_BLOCK + "attention.weights",
    **{
        f"{block}.{word}": QUERIES_KEYS_VALUES
        for block in ("transformer.layer.{n}.attention", "encoder.layer.{n}.attention",
                      "encoder.layer.{n}.attention.self")
        for word in ("qkv", "qkv_lin", "qkv_proj", "Wqkv", "in_proj", "c_attn", "query_key_value")
    },
    "hidden_state": "last_hidden_state",
    "pooled_state": "pooled",
    "pooler_output": "pooled",
    "vocab_activation": "vocab_activation",
    "activation": "vocab_activation | pooled",  # modules of the heads of DistilBERT
    "prediction_logits": "logits",
    "token_ids": "input_ids",
    "tokens": "input_ids",
    "ids": "input_ids",
    "mask": "attention_mask",
    "positions": "position_ids",
    "segment_ids": "token_type_ids",
    "input_mask": "attention_mask",
    "head_mask": "attention_head_mask",
    "cu_seqlens": "cumulative_lengths",
    "cu_seq_lens": "cumulative_lengths",
    "seq_lens": "lengths",
    "seqlens": "lengths",
    "sequence_lengths": "lengths",
    "*dropout": "",
}  # fmt: skip
BUMBLEBEE: Final = {
    "embedder.token_embedding": "embeddings.word_embeddings",
    "embedder.position_embedding": "embeddings.position_embeddings",
    "embedder.token_type_embedding": "embeddings.token_type_embeddings",
    "embedder.norm": "embeddings.LayerNorm",
    "encoder.blocks.{n}.self_attention.query": BLOCK_PREFIX + "attention.q_lin",
    "encoder.blocks.{n}.self_attention.key": BLOCK_PREFIX + "attention.k_lin",
    "encoder.blocks.{n}.self_attention.value": BLOCK_PREFIX + "attention.v_lin",
    "encoder.blocks.{n}.self_attention.output": BLOCK_PREFIX + "attention.out_lin",
    "encoder.blocks.{n}.self_attention_norm": BLOCK_PREFIX + "sa_layer_norm",
    "encoder.blocks.{n}.ffn.intermediate": BLOCK_PREFIX + "ffn.lin1",
    "encoder.blocks.{n}.ffn.activation": BLOCK_PREFIX + "ffn.activation",
    "encoder.blocks.{n}.ffn.output": BLOCK_PREFIX + "ffn.lin2",
    "encoder.blocks.{n}.output_norm": BLOCK_PREFIX + "output_layer_norm",
    "pooler.output": "pre_classifier",
    "language_modeling_head.dense": "vocab_transform",
    "language_modeling_head.activation": "vocab_activation",
    "language_modeling_head.norm": "vocab_layer_norm",
    "language_modeling_head.bias": "vocab_projector",
    "sequence_classification_head.output": "classifier",
    "token_classification_head.output": "classifier",
    "multiple_choice_head.output": "classifier",
    "question_answering_head.output": "qa_outputs",
    "next_sentence_prediction_head.output": "seq_relationship",
}
# torch.onnx and those that keep its names call a value after the module and the operation that
# made it.  Operations of linear layers, norms and embeddings stand in OPERATIONS; these are others.
ONNX_ATTENTION: Final = "transformer/layer.{n}/attention/"
ONNX_SELF: Final = "encoder/layer.{n}/attention/self/"
ONNX: Final = {
    "embeddings/Add_1": "embeddings.sum",  # of a family that adds token types first
    "embeddings/aten::add_/Add": "embeddings.sum",
    "embeddings/Add": "embeddings.sum",
    ONNX_ATTENTION + "MatMul": BLOCK_PREFIX + "attention.scores",
    ONNX_ATTENTION + "Where": BLOCK_PREFIX + "attention.masked_scores",
    ONNX_ATTENTION + "Select": BLOCK_PREFIX + "attention.masked_scores",
    ONNX_ATTENTION + "Add": BLOCK_PREFIX + "attention.masked_scores",
    ONNX_ATTENTION + "Softmax": BLOCK_PREFIX + "attention.weights",
    ONNX_ATTENTION + "MatMul_1": BLOCK_PREFIX + "attention.context",
    "transformer/layer.{n}/Add": BLOCK_PREFIX + "attention_residual",
    "transformer/layer.{n}/Add_1": BLOCK_PREFIX + "ffn_residual",
    ONNX_SELF + "Divide": BLOCK_PREFIX + "attention.scores",
    ONNX_SELF + "Div": BLOCK_PREFIX + "attention.scores",
    ONNX_SELF + "MatMul": BLOCK_PREFIX + "attention.scores",
    ONNX_SELF + "Add": BLOCK_PREFIX + "attention.masked_scores",
    ONNX_SELF + "Softmax": BLOCK_PREFIX + "attention.weights",
    ONNX_SELF + "MatMul_1": BLOCK_PREFIX + "attention.context",
    "encoder/layer.{n}/attention/output/Add": BLOCK_PREFIX + "attention_residual",
    "encoder/layer.{n}/output/Add": BLOCK_PREFIX + "ffn_residual",
    "activation/Mul_1": "vocab_activation",
    "Relu": "pooled",
}
# The other exporter, torch.export, counts the operations of each kind from the first to the last.
# How many additions there are depends on the model, so that none is known by its number.
DYNAMO: Final = {
    "embedding": "embeddings.word_embeddings",
    "embedding_1": "embeddings.token_type_embeddings | embeddings.position_embeddings",
    "embedding_2": "embeddings.position_embeddings",
    "layer_norm": "embeddings.LayerNorm",
    "linear_{6n}": BLOCK_PREFIX + "attention.q_lin",
    "linear_{6n+1}": BLOCK_PREFIX + "attention.k_lin",
    "linear_{6n+2}": BLOCK_PREFIX + "attention.v_lin",
    "linear_{6n+3}": BLOCK_PREFIX + "attention.out_lin",
    "linear_{6n+4}": BLOCK_PREFIX + "ffn.lin1",
    "linear_{6n+5}": BLOCK_PREFIX + "ffn.lin2",
    "div_{1n}": "encoder.layer.{n}.attention.self.scores",  # DistilBERT's are queries
    "matmul_{2n}": BLOCK_PREFIX + "attention.scores",
    "masked_fill_{1n}": BLOCK_PREFIX + "attention.masked_scores",
    "softmax_{1n}": BLOCK_PREFIX + "attention.weights",
    "matmul_{2n+1}": BLOCK_PREFIX + "attention.context",
    "scaled_dot_product_attention_{1n}": BLOCK_PREFIX + "attention.context",
    "layer_norm_{2n+1}": BLOCK_PREFIX + "sa_layer_norm",
    "gelu_{1n}": BLOCK_PREFIX + "ffn.activation",
    "layer_norm_{2n+2}": BLOCK_PREFIX + "output_layer_norm",
    "linear_{6L}": "pre_classifier | vocab_transform | qa_outputs | classifier",
    "relu": "pooled",
    "tanh": "pooled",
    "linear_{6L+1}": "classifier | vocab_projector",
    "gelu_{1L}": "vocab_activation",
    "layer_norm_{2L+1}": "vocab_layer_norm",
}
KERAS_BLOCK: Final = "transformer_layer_{n}."
KERAS: Final = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "token_and_position_embedding": "embeddings.sum",
    "token_and_position_embedding.token_embedding": "embeddings.word_embeddings",
    "token_and_position_embedding.position_embedding": "embeddings.position_embeddings",
    "embeddings_add": "embeddings.sum",
    "embeddings_layer_norm": "embeddings.LayerNorm",
    KERAS_BLOCK + "self_attention_layer.query": BLOCK_PREFIX + "attention.q_lin",
    KERAS_BLOCK + "self_attention_layer.key": BLOCK_PREFIX + "attention.k_lin",
    KERAS_BLOCK + "self_attention_layer.value": BLOCK_PREFIX + "attention.v_lin",
    KERAS_BLOCK + "self_attention_layer.softmax": BLOCK_PREFIX + "attention.weights",
    KERAS_BLOCK + "self_attention_layer.attention_output": BLOCK_PREFIX + "attention.out_lin",
    KERAS_BLOCK + "self_attention_layer": BLOCK_PREFIX + "attention.out_lin",
    KERAS_BLOCK + "self_attention_layer_norm": BLOCK_PREFIX + "sa_layer_norm",
    # a Dense layer of Keras holds its activation
    KERAS_BLOCK + "feedforward_intermediate_dense": BLOCK_PREFIX + "ffn.activation",
    KERAS_BLOCK + "feedforward_output_dense": BLOCK_PREFIX + "ffn.lin2",
    KERAS_BLOCK + "feedforward_layer_norm": BLOCK_PREFIX + "output_layer_norm",
    "transformer_layer_{n}": BLOCK_PREFIX + "output_layer_norm",
    "sequence_output": "last_hidden_state",
    "pooled_dense": "pooled",
    "pooled_output": "pooled",
    "mlm_head": "logits",
    "padding_mask": "attention_mask",
}
CTRANSLATE2: Final = {
    "encoder/embeddings_0": "embeddings.word_embeddings",
    "encoder/embeddings_1": "embeddings.token_type_embeddings",
    "encoder/position_encodings": "embeddings.position_embeddings",
    "encoder/layernorm_embedding": "embeddings.LayerNorm",
    "encoder/layer_{n}/self_attention/linear_0": QUERIES_KEYS_VALUES,
    "encoder/layer_{n}/self_attention/linear_1": BLOCK_PREFIX + "attention.out_lin",
    "encoder/layer_{n}/self_attention/layer_norm": BLOCK_PREFIX + "sa_layer_norm",
    "encoder/layer_{n}/ffn/linear_0": BLOCK_PREFIX + "ffn.lin1",
    "encoder/layer_{n}/ffn/linear_1": BLOCK_PREFIX + "ffn.lin2",
    "encoder/layer_{n}/ffn/layer_norm": BLOCK_PREFIX + "output_layer_norm",
    "encoder/layer_{n}": BLOCK_PREFIX + "output_layer_norm",
    "pooler_dense": "pre_classifier",
    "pooler_activation": "pooled",
}
GGML: Final = {
    "inp_embd": "embeddings.sum",
    "inp_norm": "embeddings.LayerNorm",
    "Qcur-{n}": BLOCK_PREFIX + "attention.q_lin",
    "Kcur-{n}": BLOCK_PREFIX + "attention.k_lin",
    "Vcur-{n}": BLOCK_PREFIX + "attention.v_lin",
    "wqkv-{n}": QUERIES_KEYS_VALUES,
    "kq-{n}": BLOCK_PREFIX + "attention.scores",
    "kq_soft_max-{n}": BLOCK_PREFIX + "attention.weights",
    "kqv_merged-{n}": BLOCK_PREFIX + "attention.context",
    "kqv_out-{n}": BLOCK_PREFIX + "attention.out_lin",
    "ffn_inp-{n}": BLOCK_PREFIX + "attention_residual",
    "attn_out_norm-{n}": BLOCK_PREFIX + "sa_layer_norm",
    "ffn_up-{n}": BLOCK_PREFIX + "ffn.lin1",
    "ffn_gelu-{n}": BLOCK_PREFIX + "ffn.activation",
    "ffn_out-{n}": BLOCK_PREFIX + "ffn.lin2",
    "layer_out_norm-{n}": BLOCK_PREFIX + "output_layer_norm",
    "l_out-{n}": BLOCK_PREFIX + "output_layer_norm",
    "result_embd": "last_hidden_state",
}
MLX: Final = {
    "embeddings.norm": "embeddings.LayerNorm",
    "encoder.layers.{n}.attention.query_proj": BLOCK_PREFIX + "attention.q_lin",
    "encoder.layers.{n}.attention.key_proj": BLOCK_PREFIX + "attention.k_lin",
    "encoder.layers.{n}.attention.value_proj": BLOCK_PREFIX + "attention.v_lin",
    "encoder.layers.{n}.attention.out_proj": BLOCK_PREFIX + "attention.out_lin",
    "encoder.layers.{n}.attention": BLOCK_PREFIX + "attention.out_lin",
    "encoder.layers.{n}.ln1": BLOCK_PREFIX + "sa_layer_norm",
    "encoder.layers.{n}.linear1": BLOCK_PREFIX + "ffn.lin1",
    "encoder.layers.{n}.gelu": BLOCK_PREFIX + "ffn.activation",
    "encoder.layers.{n}.linear2": BLOCK_PREFIX + "ffn.lin2",
    "encoder.layers.{n}.ln2": BLOCK_PREFIX + "output_layer_norm",
    "encoder.layers.{n}": BLOCK_PREFIX + "output_layer_norm",
    "pooler": "pre_classifier",
}
MAPS: Final[Mapping[str, Mapping[str, str]]] = {
    "pytorch": PYTORCH, "bumblebee": BUMBLEBEE, "onnx": ONNX, "dynamo": DYNAMO, "keras": KERAS,
    "ctranslate2": CTRANSLATE2, "ggml": GGML, "mlx": MLX, "candle": PYTORCH,
}  # fmt: skip

# The last operation of a module makes its value; of several that may be so, the first here counts.
OPERATIONS: Final = (
    "layernormalization", "gemm", "biasadd", "fullyconnected", "mul_3", "gelu", "mul_1", "relu",
    "tanh", "add_1", "add", "gather", "gatherv2", "resourcegather",
)  # fmt: skip
# Other operations of a module, and what exporters call values that belong to none: regular
# expressions of names between steps, by the map.
BETWEEN: Final = {
    "pytorch": r".*/__call__/0/.*",  # Flax, once more inside
    "onnx": r"/.*|.*_output_\d+|.*aten::.*|__module\..*",
    "dynamo": r"(?:val|view|_to_copy|sub|transpose|select|unsqueeze|expand|slice|div|mul|permute|"
              r"reshape|clone|add|getitem|to|eq|ones|masked_fill|contiguous|scalar_tensor|where|"
              r"item)(?:_\d+)?",
}  # fmt: skip
