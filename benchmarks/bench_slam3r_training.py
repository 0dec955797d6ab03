# SPDX-License-Identifier: Apache-2.0
"""What a short training of the small networks gives, in rooms that they were never shown.

    make bench NAME=slam3r_training                   the run whose card is in training/smallest
    CARD=runs/tiny/card.json make bench NAME=slam3r_training        another run

The figures are those that `training/train.py` wrote when it had trained: judging them again needs
the weights. Every error stands over the best of what must be beaten, so that 1 is no better than no
network at all.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from harness import Benchmark

CARD = Path(__file__).parents[1] / "training" / "smallest" / "card.json"
_TO_BEAT = {
    "i2p": ("i2p_untrained", "i2p_constant_depth"),
    "l2w": ("l2w_untrained", "l2w_unmoved", "l2w_first_reference"),
}


def main() -> None:
    """Read the card, write `results/slam3r_training.json`."""
    card = json.loads(Path(os.environ.get("CARD", CARD)).read_text())
    held_out, spent = card["held_out"], card["spent"]
    bench = Benchmark("slam3r_training", id_prefix="slam3r")
    trained = f"{spent['training_processor_s'] / 60:.0f} min of one core, never shown rooms"
    for net, figure in (("i2p", "tiny_heldout_ratio"), ("l2w", "tiny_l2w_heldout_ratio")):
        best = min(_TO_BEAT[net], key=lambda name: held_out[name])
        bench.add(figure, held_out[net] / held_out[best], "x", note=f"{trained}; over {best}")
        bench.add(f"tiny_{net}_error", held_out[net], "mean distances", note=trained)
        bench.add(f"tiny_{net}_to_beat", held_out[best], "mean distances", note=best)
        bench.add(f"tiny_{net}_confidence_rank", held_out[f"{net}_confidence_rank"], "Spearman")
    bench.add("tiny_retrieval_rank", held_out["retrieval_rank"], "Spearman", note=trained)
    bench.add("tiny_tracked_share", card["followed"]["tracked_share"], "of frames", note=trained)
    bench.add("tiny_training_processor", spent["training_processor_s"], "s")
    bench.write()


if __name__ == "__main__":
    main()
