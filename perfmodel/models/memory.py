"""Time of loads and stores: bandwidth and latency."""

from typing import Any

from jax import Array

from perfmodel.machine.system import NPU, RemoteMemory
from perfmodel.pytree import number, record


@record
class Bandwidth:
    """A load or store takes a latency and its bytes at a bandwidth: t = l + Q / (e B).

    The coefficients e [1] and l [s] are the local memory's; remote memory brings a latency of its
    own, and all of its bandwidth is reached.
    """

    efficiency: Any = number("1", most=1.0, default=1.0)
    latency: Any = number("s", default=0.0)

    def local(self, bytes: Array, npu: NPU) -> Array:
        """[rows] seconds to move `bytes` [rows] B between an NPU and its own memory.

        >>> Bandwidth(latency=1e-3).local(1e9, NPU(peak_flops=1.0, memory_bandwidth=1e12))
        0.002
        """
        seconds: Array = self.latency + bytes / (npu.memory_bandwidth * self.efficiency)
        return seconds

    def remote(self, bytes: Array, remote_memory: RemoteMemory) -> Array:
        """[rows] seconds to move `bytes` [rows] B between an NPU and remote memory.

        >>> Bandwidth().remote(1e9, RemoteMemory(bandwidth=1e12, latency=1e-3))
        0.002
        """
        seconds: Array = remote_memory.latency + bytes / remote_memory.bandwidth
        return seconds
