"""Writes docs/proofs.md from what the proofs print: python benchmarks/proofs.py"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PAGE = """# Proofs

Proofs of claims that stand elsewhere. Every table names the command that repeats it, and `make proofs`
writes this page. Speed and scores are in [performance.md](performance.md).

## A stop and a resume change no bit

200 updates, against about 100 updates, a SIGTERM, and `--resume` to 200: the first digits of the SHA-256 of
`weights.safetensors` after update 200. Two layers of 96 units, dropout 0.2, 16 lanes.

{resume}
## The gradient

The hand-derived backward pass against central finite differences in float64, against TensorFlow's own differentiation
of the loop written out, with the gradient cut at the window's first symbol, with respect to the state at every step,
and against PyTorch's gradients; the forward pass against NumPy, Keras' layer and PyTorch's layer with the same weights.
`make test` ends with this table; here are the largest relative errors of one run:

```
{gradient}
```
"""


def printed(*command: str) -> str:
    return subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pydocs = str(Path(folder, "pydocs.txt"))
        subprocess.run([Path(sys.executable).with_name("charlm"), "corpus", "pydocs", pydocs], check=True)
        resume = printed(str(HERE / "resume_proof.py"), pydocs)
    tests = printed("-m", "pytest", "tests/test_recurrence.py")
    gradient = "\n".join(re.findall(r"^.*layers \d .*$", tests, re.M))
    (HERE.parent / "docs/proofs.md").write_text(PAGE.format(resume=resume, gradient=gradient), "utf-8")


if __name__ == "__main__":
    main()
