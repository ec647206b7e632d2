"""Records a few steps of distributed data-parallel training on CPUs: run by the test as one process per rank.

python record_ddp.py RANK WORLD PORT FOLDER
"""

from __future__ import annotations

import os
import sys


def main(rank: int, world: int, port: str, folder: str) -> None:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.profiler import ExecutionTraceObserver, ProfilerActivity, profile, schedule

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    layers = [nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 16)]
    model = nn.parallel.DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    observer = ExecutionTraceObserver().register_callback(f"{folder}/host_{rank}.json")
    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=1, warmup=2, active=1),
        record_shapes=True,
        execution_trace_observer=observer,
        on_trace_ready=lambda p: p.export_chrome_trace(f"{folder}/device_{rank}.json"),
    ) as profiler:
        for _ in range(4):
            x = torch.randn(32 * (1 + rank), 256)
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            profiler.step()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
