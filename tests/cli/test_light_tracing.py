"""What `analyze` imports of torch and transformers, in processes of its own: a module is imported once."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch._dynamo.eval_frame", "sympy.core", "torch.distributed.tensor", "accelerate", "torchao")


def printed(code: str) -> str:
    """What a Python process prints that runs this."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


ANALYZE = (
    "import sys\n"
    "sys.argv = ['roofleet', 'analyze', 'Qwen3-0.6B', '--prompt-tokens', '64', '--json']\n"
    "from roofleet.main import app\n"
    "try:\n"
    "    app()\n"
    "except SystemExit:\n"
    "    pass\n"
    f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
)


def test_an_analysis_loads_no_compiler_and_finds_what_one_with_everything_loaded_finds() -> None:
    """Figures and words are the same to the digit."""
    light, loaded = printed(ANALYZE).splitlines()
    whole, all_loaded = printed("import torch._dynamo, transformers.modeling_layers\n" + ANALYZE).splitlines()
    assert loaded == "[]"
    assert "torch._dynamo.eval_frame" in all_loaded
    assert json.loads(light) == json.loads(whole)


def test_a_module_that_was_stood_in_for_is_there_as_soon_as_more_is_asked_of_it() -> None:
    """What is imported and compiled while only tracing is expected works, and so does everything after."""
    said = printed(
        "from roofleet.analyzing.importing import tracing_alone\n"
        "with tracing_alone():\n"
        "    import sympy, torch, torch._dynamo\n"
        "    before = 'sympy.core' in __import__('sys').modules\n"
        "    half = str(sympy.Rational(1, 2))\n"
        "    double = torch.compile(lambda x: 2 * x, backend='eager')(torch.ones(2)).tolist()\n"
        "import accelerate\n"
        "after = torch.compile(lambda x: 3 * x, backend='eager')(torch.ones(2)).tolist()\n"
        "print(before, half, double, after)\n"
    )
    assert said.split(maxsplit=2) == ["False", "1/2", "[2.0, 2.0] [3.0, 3.0]\n"]
