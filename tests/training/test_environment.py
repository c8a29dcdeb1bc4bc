"""What a run says of where it ran: how products were rounded, and that attention is fused wherever it can be."""

from __future__ import annotations

import torch
import transformers

from peft_core.backbones._family import families
from peft_core.training.environment import environment, product_settings


def test_the_rounding_of_products_is_stated():
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            assert environment(torch.device("cpu"))["products"] == {"float32": precision}
    finally:
        torch.set_float32_matmul_precision(before)
    on_cuda = product_settings(torch.device("cuda"))
    assert on_cuda["convolutions_tf32"] == torch.backends.cudnn.allow_tf32 and "flash" in on_cuda["attention"]


def test_attention_is_fused_wherever_the_architecture_can():
    for family in families():
        for kind in family.model_types:
            config = transformers.AutoConfig.for_model(kind)
            found = getattr(transformers, family.auto_model)._model_mapping[type(config)]
            model = found[0] if isinstance(found, tuple) else found
            assert family.attention == ("sdpa" if model._supports_sdpa else "eager"), kind
