"""The conditional span head in operations of ONNX: starts, ends for each, and answerability."""

from albert_jax.exporting.onnx_graph import OnnxGraph
from albert_jax.tasks.models import AlbertForConditionalSpan
from albert_jax.tasks.span_head import MASKED_LOGIT

_BOOL = 9  # TensorProto.BOOL


def add_conditional_span(graph: OnnxGraph, model: AlbertForConditionalSpan, hidden: str) -> None:
    """Add the outputs of `AlbertForConditionalSpan`, found by a beam search.

    Args:
        graph: a graph with the input ``p_mask``.
        model: gives the sizes of the beam, and the configuration.
        hidden: the encoder's output, [batch, length, hidden].
    """
    one, last = graph.constant("axis_1", [1]), graph.constant("axis_last", [-1])
    masked = graph.op("Cast", "p_mask", to=_BOOL)
    lowest = graph.constant("masked_logit", MASKED_LOGIT)

    def normalize(scores: str, where: str) -> str:
        """Add the log-probabilities of scores [..., 1] over the positions that are not masked."""
        logits = graph.op("Squeeze", scores, last)
        return graph.op("LogSoftmax", graph.op("Where", where, lowest, logits), axis=-1)

    starts = normalize(graph.dense(hidden, "start_logits/dense"), masked)
    weights = graph.op("Unsqueeze", graph.op("Exp", starts), one)
    expected = graph.op("Squeeze", graph.op("MatMul", weights, hidden), one)
    first = graph.op("Gather", hidden, graph.constant("first_row", 0), axis=1)
    both = graph.op("Concat", expected, first, axis=-1)
    both = graph.op("Tanh", graph.dense(both, "answer_class/dense_0"))
    answer = graph.dense(both, "answer_class/dense_1", bias=False)
    graph.op("Squeeze", answer, last, name="answer_logits")

    graph.top_k(starts, model.start_n_top, "start_log_probs", "start_indices")
    places = graph.op("Unsqueeze", "start_indices", last)
    chosen = graph.op("GatherND", hidden, places, batch_dims=1)  # [batch, starts, hidden]
    batch, rest = graph.op("Shape", hidden, end=1), graph.op("Shape", hidden, start=1)
    beam = graph.constant("beam", [model.start_n_top])
    shape = graph.op("Concat", batch, beam, rest, axis=0)  # [batch, starts, length, hidden]
    everywhere = graph.op("Expand", graph.op("Unsqueeze", hidden, one), shape)
    chosen = graph.op("Unsqueeze", chosen, graph.constant("axis_2", [2]))
    pairs = graph.op("Concat", everywhere, graph.op("Expand", chosen, shape), axis=-1)
    x = graph.op("Tanh", graph.dense(pairs, "end_logits/dense_0"))
    x = graph.layer_norm(x, "end_logits/layer_norm", model.config.layer_norm_eps)
    ends = normalize(graph.dense(x, "end_logits/dense_1"), graph.op("Unsqueeze", masked, one))
    graph.top_k(ends, model.end_n_top, "end_log_probs", "end_indices")
