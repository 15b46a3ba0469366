"""Local copies of the shards that a run reads from a store: those of a window and the next."""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.corpus.splits import SENTENCE_OFFSETS_FILE, TOKENS_FILE, TRAIN, shard_name
from data_pipeline.corpus.staging import FileStage
from data_pipeline.planning.row_order import RowOrder
from data_pipeline.planning.shard_pairs import variant_files
from data_pipeline.verification import Files

_READ_FILES = (TOKENS_FILE, SENTENCE_OFFSETS_FILE)  # the others are needed only for planning


class WindowStage:
    """Requests copies of the files of windows before they are read.

    Args:
        text: the stage of the training text; None for other splits, which are local.
        plan: the stage of the plan's files; None for a local plan.
        num_variants: number of variants of the plan, which epochs use in turn.
    """

    def __init__(
        self, text: FileStage | None, plan: FileStage | None, *, num_variants: int
    ) -> None:
        self._text, self.plan, self._num_variants = text, plan, num_variants
        self._held: list[tuple[int, int]] = []  # epochs and windows, the most recent first

    def follow(self, order: RowOrder, number: int) -> None:
        """Copy the files of the window of a row, and then those of the next window."""
        window = order.window_of(number)
        # Batches are read two at a time, so the previous window may be requested once more.
        if window in self._held:
            return
        self._held = [window, *self._held[:1]]
        windows = (window, order.window_after(window))
        shards = [order.windows(epoch).shards_of(place).tolist() for epoch, place in windows]
        if self._text:
            now, later = (
                [f"{TRAIN}/{shard_name(shard)}/{name}" for shard in some for name in _READ_FILES]
                for some in shards
            )
            self._text.hold(now, later)
        if self.plan:
            now, later = (
                [
                    f"{shard_name(shard)}/{name}"
                    for shard in some
                    for name in variant_files(epoch % self._num_variants)
                ]
                for some, (epoch, _) in zip(shards, windows, strict=True)
            )
            self.plan.hold(now, later)


def stage_of_plan(url: str, local: Path, files: Sequence[Files]) -> FileStage:
    """Return the stage of a plan on a store.

    Args:
        url: the directory of the plan.
        local: the directory of its copy.
        files: the files of each shard.
    """
    named = {
        f"{shard_name(number)}/{name}": record
        for number, of_shard in enumerate(files)
        for name, record in of_shard.items()
    }
    return FileStage(url, local, named)
