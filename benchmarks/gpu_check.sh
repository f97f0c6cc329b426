#!/usr/bin/env bash
# The GPU tests and the speed benchmarks on a machine with a GPU, from a checkout:
#
#     PYTHON=python3 benchmarks/gpu_check.sh [--quick]
#
# Needs Python >= 3.11 with torch, gpytorch and botorch, and no network. What else is installed is
# used: with pytest all tests that need a GPU run, with jax and numpyro BoTorch's NUTS is timed too.
# Every step runs whatever became of the ones before; ends with 1 if a test failed, and with 2 if
# there is no GPU. Figures go to benchmarks/results/.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
quick=${1:-}

has() { "$python" -c "import $1" 2>/dev/null; }

# Installed, this folder is the package gpbo_benchmarks; here a link is.
links=$(mktemp -d)
trap 'rm -r "$links"' EXIT
ln -s "$PWD/benchmarks" "$links/gpbo_benchmarks"
paths=$PWD:$links
has jaxtyping || paths=$PWD/benchmarks/bare:$paths
export PYTHONPATH=$paths${PYTHONPATH:+:$PYTHONPATH}
export PYTHONDONTWRITEBYTECODE=1

"$python" - <<'EOF' || exit 2
import sys
import torch, gpytorch, botorch, gpbo
print(f"gpbo {gpbo.__version__}, torch {torch.__version__}, gpytorch {gpytorch.__version__}, "
      f"botorch {botorch.__version__}, Python {sys.version.split()[0]}")
if not torch.cuda.is_available():
    sys.exit("no CUDA device here: nothing to check")
print(torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}")
EOF

summary=()
status=0
step() { # step <may fail | must pass> <name> <command...>
    local need=$1 name=$2 began=$SECONDS
    shift 2
    printf '\n== %s\n' "$name"
    if "$@"; then
        summary+=("ok      $name, $((SECONDS - began)) s")
    else
        summary+=("FAILED  $name, $((SECONDS - began)) s")
        [ "$need" = "may fail" ] || status=1
    fi
}

step "must pass" "tests on the GPU" "$python" -m unittest -v tests.test_gpu
if has pytest && has hypothesis && has beartype && has arviz_stats; then
    step "must pass" "tests marked gpu" "$python" -m pytest -m gpu -p no:cacheprovider
else
    summary+=("skipped tests marked gpu: pytest, hypothesis, beartype or arviz-stats is missing")
fi

if [ "$quick" = "--quick" ]; then
    step "may fail" "crossover" "$python" benchmarks/crossover.py --results 32 --most 2 --repeats 1
    step "may fail" "many runs" "$python" benchmarks/replications.py --runs 4 --budget 9 \
        --peer-runs 1 --device cuda
    step "may fail" "updates" "$python" benchmarks/speed.py updates --case 8,20,6 --repeats 1 \
        --device cuda
else
    step "may fail" "crossover" "$python" benchmarks/crossover.py
    step "may fail" "many runs" "$python" benchmarks/replications.py --problem hartmann6 \
        --runs 64 --budget 100 --peer-runs 1 --device cuda
    for work in updates ascent numpyro thompson; do
        step "may fail" "speed of $work" "$python" benchmarks/speed.py $work --device cuda
    done
    if has numpyro; then
        step "may fail" "speed of one run" "$python" benchmarks/speed.py
    else
        summary+=("skipped speed of one run: numpyro is missing, which BoTorch samples with")
    fi
fi

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit $status
