"""CapaBoost's Table 1, all 12 cells: ranks of the trained update on a random one-layer RoBERTa of hidden size 768."""

from __future__ import annotations

import pytest

from peft_core.records import RankRecord
from peft_core.training.loop import train
from tests.conftest import miniature
from tests.miniatures import MINIATURES
from tests.training.test_loop import make_run

TABLE = {1: (8, 16, 32, 64), 2: (16, 32, 64, 128), 4: (32, 64, 128, 256)}
"""By d, the ranks that the paper prints for r = 8, 16, 32, 64; d = 1 is LoRA."""
CELLS = [(d, r, rank) for d, ranks in TABLE.items() for r, rank in zip((8, 16, 32, 64), ranks, strict=True)]


@pytest.fixture(scope="module")
def backbone():
    wide = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 256}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MINIATURES, "roberta-768", MINIATURES["roberta"] | wide)
        yield miniature("roberta-768")


@pytest.mark.parametrize(("d", "r", "printed"), CELLS)
def test_thirty_steps_of_adamw_reach_the_printed_rank(backbone, d, r, printed):
    method = f"lora:rank={r}" if d == 1 else f"capaboost_lora:rank={r},d={d},sparsity=0.5"
    run = make_run(method, backbone, steps=30, batch_size=4, eval_every=30, learning_rate=5e-4, weight_decay=0.1)
    ranks = [record for record in train(run) if isinstance(record, RankRecord)]
    assert [record.step for record in ranks] == [0, 30]
    assert [layer.role for layer in ranks[1].layers] == ["q", "v"]
    assert [layer.numerical for layer in ranks[0].layers] == [0, 0]
    assert [layer.numerical for layer in ranks[1].layers] == [printed, printed]
