"""What every table of measurements begins with: where, with what, and by which command."""

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("tensorflow", "keras", "numpy", "torch")


def heading(command: str, *packages: str) -> str:
    """A Markdown line with the processor, the versions, of more packages too, and the command that measures again."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    features = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in (*PACKAGES, *packages) if _installed(name)]
    machine = f"{os.cpu_count()} cores of {model} ({', '.join(features)})"
    return f"Measured with `{command}` on {machine}; Python {platform.python_version()}, {', '.join(versions)}.\n"


def _installed(name: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=name))
