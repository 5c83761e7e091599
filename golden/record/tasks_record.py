"""Records what transformers' pipelines and sentence-transformers answer, where they are right."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import tasks_encoders
import tasks_pipelines
from tasks_cases import QUESTIONS_OF, Question
from tasks_models import save_models
from tasks_pipelines import Unfit
from tasks_tokens import record_tokens, save_token_models

LEAST = {"task": 20, "all": 240}
NOTE = (
    "What {} answers, computed in float64, floats rounded to nine digits. An input is what npbert "
    'takes in a call, but {{"form": "pair", "texts": [a, b]}} is (a, b), and three forms are other '
    'calls: "keywords" task(question=..., context=...), "predict" task.predict(pairs), '
    '"similarity" task.similarity(task(a), task(b), function). Options are named as in npbert.'
)
ENCODERS = {"sentence-embedding", "sparse-embedding", "text-ranking"}


def rounded(value: Any) -> Any:
    """Nine digits of every float: more than float32 has, fewer than another processor changes."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def name_of(number: int, asked: Question) -> str:
    """Number, model, form and options; `number` counts what was left out too."""
    form = asked.input.get("form", "") if isinstance(asked.input, dict) else ""
    form = form or ("list" if isinstance(asked.input, list) else "")
    said = [each if value is True else f"{each}={value}" for each, value in asked.options.items()
            if not isinstance(value, list)]  # fmt: skip
    said += [each for each, value in asked.options.items() if isinstance(value, list)]
    return " ".join([f"{number:02d}", asked.model, form, *said]).replace("  ", " ").strip()


def record_tasks(demo: Path, out: Path) -> None:
    """Write the models, and the answers to all questions that are fit to be asked."""
    save_models(out)
    save_token_models(out)
    record_tokens(out)
    total = 0
    for task, questions in QUESTIONS_OF.items():
        cases, skipped = [], Counter[str]()
        asker = tasks_encoders if task in ENCODERS else tasks_pipelines
        answer = getattr(asker, task.replace("-", "_"))
        for number, asked in enumerate(questions()):
            is_demo = asked.model.startswith("demo/")
            folder = demo.parent / asked.model if is_demo else out / asked.model
            if not (folder / "model.safetensors").exists():
                skipped["no demo model"] += 1
                continue
            case = {"name": name_of(number, asked), "input": asked.input, "options": asked.options}
            case["model"] = f"npbert/{asked.model}" if is_demo else f"golden/tasks/{asked.model}"
            try:
                cases.append(case | {"answer": rounded(answer(folder, asked))})
            except Unfit as why:
                skipped[str(why)] += 1
        print(f"{task}: {len(cases)} cases, left out: {dict(skipped) or 'none'}")
        assert len(cases) >= LEAST["task"], task
        total += len(cases)
        original = "sentence-transformers" if task in ENCODERS else "transformers"
        lines = [json.dumps(case, ensure_ascii=False, sort_keys=True) for case in cases]
        head = json.dumps(NOTE.format(original), ensure_ascii=False)
        body = ",\n".join(lines)
        (out / f"{task}.json").write_text(f'{{"note": {head}, "cases": [\n{body}\n]}}\n', "utf-8")
    assert total >= LEAST["all"], total
