"""Records what a PyTorch model computes in float32, by forward hooks, as a port's author would.

Called by golden/record/make.py, for ports/pytorch.safetensors and ports/bert_pytorch.safetensors,
on which npbert compare must find no difference, and by right_ports.py.  The first function is shown
in the README.
"""

import torch
from safetensors.torch import save_file
from transformers import BertForSequenceClassification, DistilBertForSequenceClassification


def record(model, path, **inputs):
    """Write every module's output, and the inputs, for npbert compare and diagnose."""
    kept = dict(inputs)

    def keep(name):
        def hook(module, args, output):
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                kept[name] = output.detach().clone()

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(keep(name))
    with torch.no_grad():
        model(**inputs)
    save_file(kept, path)


def record_pytorch(out):
    """Write what the classes' golden models compute, where golden/record/make.py wants it."""
    ids = torch.tensor([[5, 17, 3, 80, 2, 9], [7, 96, 3, 0, 0, 0]])
    (out / "ports").mkdir(exist_ok=True)
    for kind, name, more in (
        (DistilBertForSequenceClassification, "pytorch", {}),
        (BertForSequenceClassification, "bert_pytorch", {"token_type_ids": ids % 3}),
    ):
        model = kind.from_pretrained(out / kind.__name__, dtype=torch.float32).eval()
        path = out / "ports" / f"{name}.safetensors"
        record(model, path, input_ids=ids, attention_mask=(ids != 0).long(), **more)
        path.chmod(0o644)  # safetensors hides what it writes
