"""Where a run ran: versions, device, threads."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from peft_core.training.origins import code_origin

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "datasets",
    "pyarrow",
    "huggingface-hub",
    "pydantic",
    "numpy",
    "scipy",
    "scikit-learn",
    "gradio",
    "plotly",
)


def pick_device(wanted: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` stands for here."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    """The processor's or accelerator's own name for itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def product_settings(device: torch.device) -> dict[str, Any]:
    """How float32 products are rounded: `float32` as PyTorch names it (`highest`: no TF32), and on CUDA also whether
    convolutions may use TF32, the toolkit's version and the fused attentions that are allowed."""
    settings: dict[str, Any] = {"float32": torch.get_float32_matmul_precision()}
    if device.type == "cuda":
        cuda = torch.backends.cuda
        attentions = {"flash": cuda.flash_sdp_enabled(), "efficient": cuda.mem_efficient_sdp_enabled()}
        settings["convolutions_tf32"] = torch.backends.cudnn.allow_tf32
        settings["toolkit"] = torch.version.cuda
        settings["attention"] = sorted(name for name, allowed in attentions.items() if allowed)
    return settings


def environment(device: torch.device) -> dict[str, Any]:
    """What results.json and the page say of the machine and of the code."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": sys.version.split()[0],
        "platform": platform.platform(terse=True),
        "products": product_settings(device),
        "versions": versions,
        "code": code_origin(),
    }
