"""The processes of one `accelerate launch` or `torchrun`: each does its share of the work, and they leave together."""

import os
from datetime import timedelta
from typing import TypeVar

Value = TypeVar("Value")


def join() -> tuple[int, int]:
    """Meet the other processes, if there are any.

    Returns:
        rank of this process, and how many there are.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world_size > 1:
        import torch.distributed

        torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))
    return rank, world_size


def gather(value: Value, world_size: int) -> list[Value]:
    """The values of all processes, in order of rank, as soon as the last one is here.

    A process that left earlier, with an error, would make the launcher end the others.
    """
    if world_size == 1:
        return [value]
    import torch.distributed

    values: list = [None] * world_size
    torch.distributed.all_gather_object(values, value)
    return values
