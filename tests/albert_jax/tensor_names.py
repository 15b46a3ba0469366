"""Names of tensors in the files of others."""

HUGGINGFACE_LAYER = [
    *("attention.query.weight", "attention.query.bias"),
    *("attention.key.weight", "attention.key.bias"),
    *("attention.value.weight", "attention.value.bias"),
    *("attention.dense.weight", "attention.dense.bias"),
    *("attention.LayerNorm.weight", "attention.LayerNorm.bias"),
    *("ffn.weight", "ffn.bias", "ffn_output.weight", "ffn_output.bias"),
    *("full_layer_layer_norm.weight", "full_layer_layer_norm.bias"),
]
HUGGINGFACE_PRETRAINING = [
    "albert.embeddings.word_embeddings.weight",
    "albert.embeddings.position_embeddings.weight",
    "albert.embeddings.token_type_embeddings.weight",
    *("albert.embeddings.LayerNorm.weight", "albert.embeddings.LayerNorm.bias"),
    "albert.encoder.embedding_hidden_mapping_in.weight",
    "albert.encoder.embedding_hidden_mapping_in.bias",
    *(f"albert.encoder.albert_layer_groups.0.albert_layers.0.{x}" for x in HUGGINGFACE_LAYER),
    *("albert.pooler.weight", "albert.pooler.bias"),
    *("predictions.dense.weight", "predictions.dense.bias"),
    *("predictions.LayerNorm.weight", "predictions.LayerNorm.bias"),
    "predictions.bias",
    *("sop_classifier.classifier.weight", "sop_classifier.classifier.bias"),
]
TENSORFLOW_LAYER = [
    *("attention_1/self/query/kernel", "attention_1/self/query/bias"),
    *("attention_1/self/key/kernel", "attention_1/self/key/bias"),
    *("attention_1/self/value/kernel", "attention_1/self/value/bias"),
    *("attention_1/output/dense/kernel", "attention_1/output/dense/bias"),
    *("LayerNorm/gamma", "LayerNorm/beta"),
    *("ffn_1/intermediate/dense/kernel", "ffn_1/intermediate/dense/bias"),
    *("ffn_1/intermediate/output/dense/kernel", "ffn_1/intermediate/output/dense/bias"),
    *("LayerNorm_1/gamma", "LayerNorm_1/beta"),
]
TENSORFLOW_PRETRAINING = [
    "bert/embeddings/word_embeddings",
    "bert/embeddings/position_embeddings",
    "bert/embeddings/token_type_embeddings",
    *("bert/embeddings/LayerNorm/gamma", "bert/embeddings/LayerNorm/beta"),
    "bert/encoder/embedding_hidden_mapping_in/kernel",
    "bert/encoder/embedding_hidden_mapping_in/bias",
    *(f"bert/encoder/transformer/group_0/inner_group_0/{name}" for name in TENSORFLOW_LAYER),
    *("bert/pooler/dense/kernel", "bert/pooler/dense/bias"),
    *("cls/predictions/transform/dense/kernel", "cls/predictions/transform/dense/bias"),
    *("cls/predictions/transform/LayerNorm/gamma", "cls/predictions/transform/LayerNorm/beta"),
    "cls/predictions/output_bias",
    *("cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias"),
]
HEADS = {
    "classes": (
        ["classifier.weight", "classifier.bias"],
        ["output_weights", "output_bias"],
    ),
    "spans": (
        ["qa_outputs.weight", "qa_outputs.bias"],
        ["cls/squad/output_weights", "cls/squad/output_bias"],
    ),
}
