"""What this machine has: versions, cores, number formats, GPU, memory, disk, caches, data; and what it lacks."""

import os
import platform
import shutil
from importlib.metadata import version

import torch

from llama4rec_core import paths
from llama4rec_core.llm.cost import machine_rate
from llama4rec_core.llm.model import SMOLLM2, number_format
from llama4rec_core.run import PACKAGES

GIB = 2**30
MEMORY, DISK = 8, 5  # GiB that preset `quick` needs


def examine() -> tuple[dict[str, str], list[str]]:
    """What there is, by name, and a sentence for each thing that is missing."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    found = {
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "processor": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "memory": f"{memory:.0f} GiB",
        "GPU": ", ".join(
            f"{torch.cuda.get_device_name(n)} ({torch.cuda.get_device_properties(n).total_memory / GIB:.0f} GiB)"
            for n in range(torch.cuda.device_count())
        ) or "none: the LLM computes on the processor",
        "number format": f"{str(number_format()).removeprefix('torch.')}, {machine_rate() / 1e9:.0f} billion "
        "operations a second in matrix products",
    }  # fmt: skip
    missing = [f"{memory:.0f} GiB of memory: preset `quick` needs {MEMORY}"] if memory < MEMORY else []
    for name, folder in (("cache", paths.cache()), ("results", paths.results())):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free / GIB
        found[name] = f"{folder}, {free:.0f} GiB free"
        if not os.access(there, os.W_OK):
            missing.append(f"{there} cannot be written to: set LLAMA4REC_{name.upper()} to a folder that can")
        if free < DISK:
            missing.append(f"{free:.1f} GiB of disk are free for {name}: a run needs {DISK}")
    converted = (paths.cache() / SMOLLM2).exists()
    found[SMOLLM2] = (
        "in the cache" if converted else "not in the cache: it is fetched from the package index when needed"
    )
    data = sorted(path.name for path in paths.cache().glob("*") if path.name.startswith(("ml-", "recbole")))
    found["data in the cache"] = ", ".join(data) or "none: MovieLens-100K is fetched when needed"
    return found, missing


def report() -> tuple[str, bool]:
    """What is printed, and whether all is there."""
    found, missing = examine()
    width = max(map(len, found))
    lines = [f"{name:<{width}}  {said}" for name, said in found.items()]
    lines += ["", *(f"- {each}" for each in missing)] if missing else ["", "Nothing is missing."]
    return "\n".join(lines), not missing
