"""Processor time and peak memory to compile and prove Llama 405B plans: `python benchmarks/compile_405b.py`. No data are read.

Each case runs in a process of its own: from a config alone, from sparse HuggingFace shards, and back from rank files. The middle of TURNS runs is shown.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = ("config", "hf", "nxdt")
TURNS = 3


def measure(case: str, folder: Path) -> dict[str, float]:
    """Runs in the child. Making the fake checkpoint is not counted."""
    sys.path.insert(0, str(ROOT))
    import ckptc
    from ckptc.runtime.plan.plan_file import dump_plan
    from tests.plans import large

    config = large.write_config(folder / "config")
    source = large.write_sparse(folder / "hf") if case == "hf" else large.rank_checkpoint(folder / "ranks") if case == "nxdt" else None
    began = time.process_time()
    if case == "config":
        plan = ckptc.compile("llama", from_="hf", to="nxdt", config=config, settings=large.SETTINGS)
    elif case == "hf":
        plan = ckptc.plan(source, to="nxdt", settings=large.SETTINGS)
    else:
        plan = ckptc.plan(source, to="hf", config=config, from_settings={"hw": "trn1"})
    compiled = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.process_time()
    if source is not None:
        plan.totals()
    bound = time.process_time() - began
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = len(dump_plan(plan.data))
    return {"compile_s": compiled, "compile_mib": peak, "bind_s": bound, "bind_mib": whole, "steps": len(plan.data.steps), "plan_bytes": size}


def main() -> None:
    for case in CASES:
        turns = []
        for _ in range(TURNS):
            with tempfile.TemporaryDirectory() as folder:
                turns.append(json.loads(subprocess.run([sys.executable, __file__, case, folder], capture_output=True, text=True, check=True).stdout))
        r = sorted(turns, key=lambda turn: turn["compile_s"] + turn["bind_s"])[TURNS // 2]
        print(
            f"{case:8} compiled and proved in {r['compile_s']:.2f} s, peak {r['compile_mib']:.0f} MiB; "
            f"bound and scheduled in {r['bind_s']:.2f} s, peak {r['bind_mib']:.0f} MiB; "
            f"{r['steps']} steps, plan file {r['plan_bytes']:,} bytes"
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
