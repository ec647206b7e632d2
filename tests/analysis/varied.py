"""Designs that a test of sweeps varies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


VARIED = {
    "npu.peak_flops": [2e14, 3e15],
    "network.0.bandwidth": [5e10, 1e12],
    "network.0.latency": [1e-7, 2e-5],
}
