"""Drivers' names of accelerators, as traces have them, and this package's.

Collected from `deviceProperties` of public traces and from the vendors' product names. The board PG509 is that of the
A100 SXM4 (with 40 GB where the trace says 42 GB of memory).
"""

from __future__ import annotations

NAMES = {
    "A100-SXM4-80GB": "a100-sxm-80",
    "A100-SXM4-40GB": "a100-sxm-40",
    "A100-PG509-200": "a100-sxm-40",
    "A100-PCIE-40GB": "a100-pcie-40",
    "A100 80GB PCIe": "a100-pcie-80",
    "V100-SXM2-16GB": "v100-sxm-16",
    "V100-SXM2-32GB": "v100-sxm-32",
    "V100-SXM3-32GB": "v100-sxm-32",
    "H100 80GB HBM3": "h100-sxm",
    "H100 PCIe": "h100-pcie",
    "H200": "h200-sxm",
    "GH200 120GB": "gh200-96",
    "GH200 480GB": "gh200-96",
    "GH200 144G HBM3e": "gh200-141",
    "B200": "b200-sxm",
    "B300": "b300-sxm",
    "B300 SXM6 AC": "b300-sxm",
    "GB200": "gb200",
    "GB300": "gb300",
    "L40S": "l40s",
    "Instinct MI250X": "mi250x",
    "Instinct MI300X": "mi300x",
    "Instinct MI325X": "mi325x",
    "Instinct MI355X": "mi355x",
}
"""The driver's name, without the vendor's, and the accelerator's name in hwdb."""


def accelerator(name: str) -> str:
    """The accelerator that a driver's name means, "" for one that is not known.

    >>> accelerator("NVIDIA A100-SXM4-80GB"), accelerator("Tesla V100-SXM2-32GB"), accelerator("AMD Radeon Graphics")
    ('a100-sxm-80', 'v100-sxm-32', '')
    """
    for vendor in ("NVIDIA ", "Tesla ", "AMD "):
        name = name.removeprefix(vendor)
    return NAMES.get(name.strip(), "")
