#!/usr/bin/env bash
# A virtual environment with the real lerobot package, in which it opens what we export.
#
#   scripts/lerobot_venv.sh                              .venv-lerobot with 0.4.4, which reads v3.0
#   scripts/lerobot_venv.sh .venv-lerobot-03 0.3.3       0.3.3, which reads v2.1
#   scripts/lerobot_venv.sh .venv-lerobot 0.4.4 FOLDER   then open the export in FOLDER instead of running the tests
#
# Needs Python 3.11 or later (PYTHON=...), a package index and some 2 GB. Words for pip, such as those for a CPU-only
# torch, go into PIP_ARGS. lerobot is installed without its requirements: it pins versions of torch and torchvision
# that exclude newer ones and that reading a dataset does not need; scripts/lerobot_shims stands in for torchvision.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
venv=${1:-$here/.venv-lerobot}
version=${2:-0.4.4}
export_folder=${3:-}
case $version in
  0.4.*) hf_datasets="datasets>=4,<4.2" ;;
  0.3.*) hf_datasets="datasets==3.6.0" ;; # 0.3 breaks with datasets 4
  *) echo "lerobot $version is not known here; choose 0.4.4 (reads v3.0) or 0.3.3 (reads v2.1)" >&2; exit 2 ;;
esac

if [ ! -x "$venv/bin/python" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
# shellcheck disable=SC2086
pip ${PIP_ARGS:-} torch
# What reading needs of lerobot's requirements, then what our own reader and the tests need.
pip "$hf_datasets" "huggingface-hub<1" "av>=15,<16" "packaging<26" "accelerate>=1.10,<2" "draccus==0.10.0" \
  pyarrow pandas jsonlines einops pillow imageio deepdiff termcolor safetensors numpy
pip "zarr>=3.0.8,<4" simplejpeg pyspng h5py pyyaml scipy pytest pytest-timeout hypothesis
pip --no-deps "lerobot==$version"
"$venv/bin/python" - "$here" <<'PYTHON'
import sysconfig
import sys
from pathlib import Path

lines = [f"{sys.argv[1]}/scripts/lerobot_shims", f"{sys.argv[1]}/datasets"]
Path(sysconfig.get_path("purelib"), "robot_policies_checkout.pth").write_text("\n".join(lines) + "\n")
PYTHON

export HF_HUB_OFFLINE=1
if [ -n "$export_folder" ]; then
  exec "$venv/bin/python" "$here/scripts/check_lerobot_export.py" "$export_folder"
fi
cd "$here"
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/datasets/test_lerobot_export.py -k lerobot_itself
