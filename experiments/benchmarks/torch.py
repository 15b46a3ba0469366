"""The same steps with Hugging Face transformers on torch, for comparison."""

import importlib
import importlib.util
import itertools
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from albert_jax.config import AlbertConfig, HiddenAct, ParameterSharing
from albert_jax.tasks.config import TokenLoss
from data_pipeline.errors import InputError
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.timing import Candidate, StepKind
from experiments.run.config import ComputeDtype, ExperimentConfig

Tensors = dict[str, Any]


class TorchVariant(StrEnum):
    """A way to run transformers."""

    EAGER = "eager"  # out of the box: logits over the vocabulary at every position
    GATHERED = "gathered"  # logits at the masked positions only
    FUSED = "fused"  # the same with torch's fused GELU instead of transformers' own
    COMPILED = "compiled"  # `eager` under torch.compile
    COMPILED_GATHERED = "compiled_gathered"


_GATHERING = (TorchVariant.GATHERED, TorchVariant.FUSED, TorchVariant.COMPILED_GATHERED)
_COMPILING = (TorchVariant.COMPILED, TorchVariant.COMPILED_GATHERED)
_ACTIVATIONS = {HiddenAct.GELU: "gelu_new", HiddenAct.GELU_ERF: "gelu"}


def load_triton() -> None:
    """Load the Triton that comes with torch for CUDA, if there is one.

    Call it before TensorFlow is imported: loading Triton after TensorFlow ends the process.
    """
    if importlib.util.find_spec("triton"):
        importlib.import_module("triton")


def import_torch() -> tuple[Any, Any]:
    """Import torch and transformers, which are optional.

    Raises:
        InputError: one of them is not installed.
    """
    try:
        return importlib.import_module("torch"), importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            f"--against=torch needs torch and transformers (make test-interop): {error}"
        ) from error


def torch_candidates(
    config: ExperimentConfig,
    batches: Batches,
    variants: Sequence[TorchVariant],
    kinds: Sequence[StepKind],
) -> list[Candidate]:
    """Return transformers' `AlbertForPreTraining` with torch's AdamW, on torch's GPU if it has one.

    Model, dropout, clipping, compute type (bfloat16 by autocast) and batches are the experiment's.
    Packed rows have an attention mask with four axes, derived from their sequence ids. Out of the
    box, transformers predicts the order of only the first pair of a row.

    Raises:
        InputError: torch or transformers is not installed, or transformers has no such model.
    """
    if config.generator is not None:
        raise InputError(
            f"--against=torch needs --config.objective.token_loss={TokenLoss.MASKED_LM}; "
            "transformers has no ALBERT that detects replaced tokens"
        )
    torch, transformers = import_torch()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tensors = [to_tensors(batch, packed=batches.is_packed, device=device) for batch in batches[0]]
    candidates = []
    for variant in variants:
        theirs = transformers_config(config.model, fused=variant is TorchVariant.FUSED)
        torch.manual_seed(config.seed)
        model: Any = transformers.AlbertForPreTraining(theirs)
        model.to(device)
        for kind in kinds:
            run, seconds = make_run(config, model, tensors, variant, kind)
            name = f"transformers {transformers.__version__} {variant.replace('_', ' ')}"
            candidates.append(Candidate(name, kind, run, seconds, _memory_reader(torch, device)))
    return candidates


def transformers_config(config: AlbertConfig, *, fused: bool = False) -> Any:
    """Return transformers' configuration of the same model.

    Args:
        config: our configuration.
        fused: use torch's own tanh GELU, which computes the same numbers.

    Raises:
        InputError: transformers has no such model.
    """
    _, transformers = import_torch()
    if config.parameter_sharing is not ParameterSharing.ALL or not config.has_embedding_mapping:
        raise InputError(
            "--against=torch needs --config.model.parameter_sharing=all and a mapping from the "
            "embeddings to the layers; transformers has no other ALBERT"
        )
    values = {k: v for k, v in config.to_dict().items() if k not in config.extra}
    values.pop("embedding_mapping", None)
    values["hidden_act"] = _ACTIVATIONS.get(config.hidden_act, str(config.hidden_act))
    if fused and config.hidden_act is HiddenAct.GELU:
        values["hidden_act"] = "gelu_pytorch_tanh"
    values["classifier_dropout_prob"] = config.hidden_dropout_prob
    return transformers.AlbertConfig(**values)


def to_tensors(batch: dict[str, np.ndarray], *, packed: bool, device: Any) -> Tensors:
    """Convert a batch to transformers' arguments and those of `gathered_loss`."""
    torch, _ = import_torch()
    ids, weights = batch["sequence_ids"], batch["masked_lm_weights"]
    rows, slots = np.nonzero(weights)
    labels = np.full(ids.shape, -100)
    labels[rows, batch["masked_lm_positions"][rows, slots]] = batch["masked_lm_ids"][rows, slots]
    same = (ids[:, None, :, None] == ids[:, None, None, :]) if packed else ids > 0
    arrays = {
        "input_ids": batch["input_ids"],
        "token_type_ids": batch["token_type_ids"],
        "position_ids": batch["position_ids"] if packed else None,
        "labels": labels,
        "masked_lm_positions": batch["masked_lm_positions"],
        "masked_lm_labels": np.where(weights > 0, batch["masked_lm_ids"], -100),
        "order_positions": batch["sentence_order_positions"],
        "order_labels": np.where(
            batch["sentence_order_weights"] > 0, batch["sentence_order_labels"], -100
        ),
    }
    tensors = {
        name: None if array is None else torch.tensor(array, dtype=torch.long, device=device)
        for name, array in arrays.items()
    }
    return tensors | {"attention_mask": torch.tensor(same, device=device)}


def plain_loss(model: Any, batch: Tensors) -> Any:
    """Compute transformers' loss out of the box."""
    return model(
        batch["input_ids"],
        attention_mask=batch["attention_mask"],
        token_type_ids=batch["token_type_ids"],
        position_ids=batch["position_ids"],
        labels=batch["labels"],
        sentence_order_label=batch["order_labels"][:, 0],
    ).loss


def gathered_loss(model: Any, batch: Tensors) -> Any:
    """Compute the loss with logits at masked positions only, and the order of every pair."""
    torch, _ = import_torch()
    hidden = model.albert(
        batch["input_ids"],
        attention_mask=batch["attention_mask"],
        token_type_ids=batch["token_type_ids"],
        position_ids=batch["position_ids"],
    ).last_hidden_state

    def gather(positions: Any) -> Any:
        return torch.take_along_dim(hidden, positions[:, :, None], dim=1)

    logits = model.predictions(gather(batch["masked_lm_positions"]))
    pooled = model.albert.pooler_activation(model.albert.pooler(gather(batch["order_positions"])))
    order = model.sop_classifier(pooled)
    cross_entropy = torch.nn.functional.cross_entropy
    return cross_entropy(logits.flatten(0, 1), batch["masked_lm_labels"].flatten()) + cross_entropy(
        order.flatten(0, 1), batch["order_labels"].flatten()
    )


def make_run(
    config: ExperimentConfig,
    model: Any,
    tensors: list[Tensors],
    variant: TorchVariant,
    kind: StepKind,
) -> tuple[Callable[[int], None], float | None]:
    """Return a candidate's steps, with the first already taken, and any seconds of compilation.

    Optimizer, clipping and compute type are those of `config`; the steps cycle through `tensors`.
    """
    torch, _ = import_torch()
    loss_fn = gathered_loss if variant in _GATHERING else plain_loss
    if variant in _COMPILING:
        loss_fn = torch.compile(loss_fn, dynamic=False)
    device = next(model.parameters()).device
    cycle = itertools.cycle(tensors)
    optimizer = _make_optimizer(torch, config, model)
    half = config.run.dtype is ComputeDtype.BFLOAT16

    def loss() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return loss_fn(model, next(cycle))

    def train_step() -> None:
        model.train()
        loss().backward()
        if config.optimizer.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def forward_step() -> None:
        model.eval()
        with torch.no_grad():
            loss()

    step = train_step if kind is StepKind.TRAIN else forward_step

    def run(steps: int) -> None:
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    run(1)
    seconds = time.perf_counter() - started
    return run, seconds if variant in _COMPILING else None


def _make_optimizer(torch: Any, config: ExperimentConfig, model: Any) -> Any:
    optimizer = config.optimizer
    return torch.optim.AdamW(
        model.parameters(),
        lr=optimizer.learning_rate,
        betas=(optimizer.beta_1, optimizer.beta_2),
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay,
        fused=True,
    )


def _memory_reader(torch: Any, device: Any) -> Callable[[], int | None]:
    """Return a reader of torch's peak memory, which torch does not count on a CPU."""
    return lambda: torch.cuda.max_memory_allocated() if device.type == "cuda" else None
