"""Measures npbert serve under load, beside a naive server and the same work in process.

    apt-get install wrk
    python golden/measure/serving.py [--size base] [--callers 64] [--seconds 30] [--turns 3]

wrk sends texts of 8 to 300 tokens from one thread; it and the server share the cores.  Turns
alternate between `npbert serve`, a naive server (the same HTTP, one pipeline call for each request,
in a pool of threads) and `npbert TASK -i` on the same texts.  Prints texts a second, the 50th and
99th percentile, and ratios; and the time of one caller beside a call in process.  `--size built-in`
takes the built-in classifier and its short texts.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import npbert

NAIVE = """
import asyncio, json, sys
from concurrent.futures import ThreadPoolExecutor
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
import npbert
task, pool = npbert.pipeline("text-classification", sys.argv[1] or None), ThreadPoolExecutor()
async def answer(request):
    given = json.loads(await request.body())
    made = await asyncio.get_running_loop().run_in_executor(pool, task, given["inputs"])
    return JSONResponse(made)
app = Starlette(routes=[Route("/v1/text-classification", answer, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="critical")
"""
SCRIPT = """
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local i = 0
request = function()
  i = i % #bodies + 1
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, bodies[i])
end
done = function(summary, latency)
  io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.timeout + summary.errors.read,
    latency:percentile(50), latency:percentile(99)))
end
"""
PATH = "/v1/text-classification"
SIZES = {
    "base": {"num_blocks": 6, "hidden_size": 768, "intermediate_size": 3072,
             "num_attention_heads": 12},
    "small": {"num_blocks": 6, "hidden_size": 384, "intermediate_size": 1536,
              "num_attention_heads": 12},
}  # fmt: skip


def make_model(folder: Path, size: str) -> None:
    """Write a classifier with random weights, and the built-in one's tokenizer."""
    own = npbert.load("builtin:sentiment")
    config = npbert.Config(vocab_size=own.config.vocab_size, num_labels=2, **SIZES[size])
    model = npbert.init(config, "for_sequence_classification")
    model.tokenizer = own.tokenizer
    model.save(folder)


def wait_for(port: int) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/"])
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise SystemExit("the server does not answer")


def load(port: int, callers: int, seconds: int, folder: Path) -> tuple[float, float, float, int]:
    """Return requests a second, both percentiles in ms, and errors."""
    command = ["wrk", "-t1", f"-c{callers}", f"-d{seconds}s", "--timeout", "60s", "-s",
               str(folder / "load.lua"), f"http://127.0.0.1:{port}{PATH}"]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=True,
        env={"BODIES": str(folder / "bodies.jsonl"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    found = re.search(r"RESULT (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)", done.stdout)
    assert found, done.stdout
    count, microseconds, errors, p50, p99 = map(float, found.groups())
    return 1e6 * count / microseconds, p50 / 1000, p99 / 1000, int(errors)


def measure_batch(model: str, folder: Path) -> float:
    """Return texts a second of npbert TASK -i, from its own summary's seconds."""
    command = [sys.executable, "-m", "npbert", "text-classification", "-i",
               str(folder / "texts.txt"), "-o", str(folder / "out.jsonl")]  # fmt: skip
    done = subprocess.run(command + ["-m", model] * bool(model), capture_output=True, text=True)
    found = re.search(r"([\d,]+) inputs.*?; ([\d.]+) s,", done.stderr)
    assert found, done.stderr
    return int(found[1].replace(",", "")) / max(float(found[2]), 0.05)


def measure_calls(model: str, texts: list[str]) -> float:
    """Return the median milliseconds of a call in process, of a quarter of a minute at most."""
    task, taken = npbert.pipeline("text-classification", model or None), []
    task(texts[0])
    end = time.perf_counter() + 15
    for text in texts:
        began = time.perf_counter()
        task(text)
        taken.append(1000 * (time.perf_counter() - began))
        if time.perf_counter() > end:
            break
    return statistics.median(taken)


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=[*SIZES, "built-in"], default="base")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--port", type=int, default=8123)
    args = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = "" if args.size == "built-in" else str(folder / "model")
        if model:
            make_model(Path(model), args.size)
        most = 40 if args.size == "built-in" else 254
        texts = [" ".join(rng.choices(["cat", "film", "old", "dull"], k=rng.randint(6, most)))
                 for _ in range(200)]  # fmt: skip
        (folder / "texts.txt").write_text("\n".join(texts), "utf-8")
        lines = [json.dumps({"inputs": text}) for text in texts]
        (folder / "bodies.jsonl").write_text("\n".join(lines), "utf-8")
        (folder / "load.lua").write_text(SCRIPT)
        served = f"text-classification={model}" if model else "text-classification"
        servers = {
            "npbert serve": [sys.executable, "-m", "npbert", "serve", served],
            "naive": [sys.executable, "-c", NAIVE, model],
        }
        rates: dict[str, list[float]] = {"npbert TASK -i": [], **{each: [] for each in servers}}
        for turn in range(args.turns):
            rates["npbert TASK -i"].append(measure_batch(model, folder))
            print(f"{turn} npbert TASK -i: {rates['npbert TASK -i'][-1]:.1f} texts/s", flush=True)
            for what, command in servers.items():
                port = ["--port"] * (what != "naive") + [str(args.port)]
                with subprocess.Popen([*command, *port], stderr=subprocess.DEVNULL) as process:
                    wait_for(args.port)
                    load(args.port, 1, 2, folder)
                    rate, p50, p99, errors = load(args.port, args.callers, args.seconds, folder)
                    one = load(args.port, 1, max(5, args.seconds // 3), folder)[1]
                    process.terminate()
                rates[what].append(rate)
                print(
                    f"{turn} {what}: {rate:.1f} texts/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, "
                    f"{errors} errors; one caller p50 {one:.1f} ms", flush=True,
                )  # fmt: skip
            print(f"{turn} in process: p50 {measure_calls(model, texts):.1f} ms", flush=True)
        batch = rates["npbert TASK -i"]
        for what in servers:
            ratios = [a / b for a, b in zip(rates[what], batch, strict=True)]
            low, high = min(ratios), max(ratios)
            middle = statistics.median(ratios)
            print(f"{what} / npbert TASK -i: {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
