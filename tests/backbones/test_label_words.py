"""T5 has no head: it trains on label words."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from peft_core.methods import get_method


def test_t5_answers_with_label_words_and_learns_them(build, batch_for):
    backbone = build("t5")
    batch = {name: value for name, value in batch_for(backbone, rows=8).items() if name != "decoder_input_ids"}
    start = torch.full((8, 1), backbone.config.pad_token_id)
    whole = backbone.logits(batch | {"decoder_input_ids": start})[:, 0]
    assert torch.equal(backbone.logits(batch), whole[:, list(backbone.label_tokens)])
    method = get_method("lora")
    attached = method.attach(backbone, method.Config(rank=4), torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1] * 4)
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=2e-2)
    losses = []
    for _ in range(30):
        with attached.active():
            loss = F.cross_entropy(backbone.logits(batch), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
