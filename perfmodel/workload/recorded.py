"""What a graph that was recorded on hardware knows of its recording."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """Where and how a graph was recorded.

    Attributes:
        device: accelerator or system of the recording, as hwdb calls it; "" unknown: recorded times stay on any
        hardware.
        name: what the driver calls the device, "" unknown.
        ranks: the ranks' numbers in the run.
        step: which part of it.
        operators_linked: per rank, share of operators found in host and device trace.
        time_attributed: per rank, share of the GPU's time whose launch lies in a known operator.
        time_by_source: {where a kernel's work is known from: share of all ranks' GPU time}.
        collectives_matched: share of collectives that meet those of the other members.
    """

    device: str = ""
    name: str = ""
    ranks: tuple[int, ...] = ()
    step: str = ""
    operators_linked: tuple[float, ...] = ()
    time_attributed: tuple[float, ...] = ()
    time_by_source: Mapping[str, float] = field(default_factory=dict)
    collectives_matched: float = 1.0

    def text(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def of_text(text: str) -> Recorded:
        """Back from `text`."""
        found: dict[str, Any] = json.loads(text)
        for name in ("ranks", "operators_linked", "time_attributed"):
            found[name] = tuple(found[name])
        return Recorded(**found)
