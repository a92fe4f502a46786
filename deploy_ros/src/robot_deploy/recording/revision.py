"""What a recording says about the software and the policy; cheap, and without torch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from robot_policies.spec import PolicySpec


def git_revision() -> str:
    """Git commit of this source, with ``+dirty`` if files were changed; "" outside a repository."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        return f"{head}+dirty" if git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return ""


def checkpoint_spec(path: str) -> tuple[PolicySpec | None, str]:
    """Spec and hash of the weights of a checkpoint or run directory; (None, "") if there is none.

    Only the two JSON files are read. A recording must not fail for want of a policy.
    """
    if not path:
        return None, ""
    for folder in (Path(path), Path(path) / "checkpoints" / "best", Path(path) / "checkpoints" / "last"):
        try:
            spec = PolicySpec.from_dict(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return spec, str(manifest["files"]["policy.safetensors"]["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None, ""
