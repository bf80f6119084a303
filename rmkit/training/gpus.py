"""What makers publish of their GPUs: memory, and the rate of dense bfloat16 matrix products."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its data sheet has it.

    Args:
        name: What it is called in full.
        memory: Bytes of memory: the data sheet's GB, of 1e9 bytes.
        rate: Floating-point operations a second: bfloat16, dense (half of what is printed "with sparsity"), summed in
            float32.
        source: The data sheet.
    """

    name: str
    memory: float
    rate: float
    source: str


_HOPPER = "nvidia.com/en-us/data-center/h100"
_AMPERE = (
    "nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
GPUS = {
    "a100": Gpu("NVIDIA A100 80GB", 80e9, 312e12, _AMPERE),
    "a100-40gb": Gpu("NVIDIA A100 40GB", 40e9, 312e12, _AMPERE),
    "b200": Gpu("NVIDIA B200 (HGX)", 180e9, 2250e12, "nvidia.com/en-us/data-center/hgx"),
    "h100": Gpu("NVIDIA H100 SXM", 80e9, 989e12, _HOPPER),
    "h100-nvl": Gpu("NVIDIA H100 NVL", 94e9, 835e12, _HOPPER),
    "h100-pcie": Gpu("NVIDIA H100 PCIe", 80e9, 756e12, _HOPPER),
    "h200": Gpu("NVIDIA H200 SXM", 141e9, 989e12, "nvidia.com/en-us/data-center/h200"),
    "l4": Gpu("NVIDIA L4", 24e9, 121e12, "nvidia.com/en-us/data-center/l4"),
    "l40s": Gpu("NVIDIA L40S", 48e9, 362e12, "nvidia.com/en-us/data-center/l40s"),
    "mi300x": Gpu(
        "AMD Instinct MI300X", 192e9, 1307e12, "amd.com/en/products/accelerators/instinct/mi300/mi300x.html"
    ),
}
"""GPUs by the name that `--gpu` takes."""
