#!/usr/bin/env bash
# The GPU tests and the speed benchmarks on a machine with a GPU, from a checkout:
#
#     PYTHON=python3 [BUDGET_S=570] benchmarks/gpu_check.sh [--quick] [step ...]
#
# Steps, by default all of them in this order: tests updates ascent runs thompson large crossover
# numpyro one. With BUDGET_S all of it ends after so many seconds, a step after its share of them,
# and what was measured until then is kept.
#
# Needs Python >= 3.11 with torch, gpytorch and botorch, and no network. What else is installed is
# used: with pytest all tests that need a GPU run, with jax and numpyro BoTorch's NUTS is timed too.
# Every step runs whatever became of the ones before, with --quick on small cases; ends with 1 if a
# test failed, and with 2 if there is no GPU. Figures go to benchmarks/results/.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
quick=
[ "${1:-}" = "--quick" ] && { quick=yes; shift; }
steps=${*:-tests updates ascent runs thompson large crossover numpyro one}

has() { "$python" -c "import $1" 2>/dev/null; }

# Installed, this folder is the package gpbo_benchmarks; here a link is.
links=$(mktemp -d)
trap 'rm -r "$links"' EXIT
ln -s "$PWD/benchmarks" "$links/gpbo_benchmarks"
paths=$PWD:$links
has jaxtyping || paths=$PWD/benchmarks/bare:$paths
export PYTHONPATH=$paths${PYTHONPATH:+:$PYTHONPATH}
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# jax takes three quarters of a GPU's memory otherwise.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

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
run() { # run <name> <seconds of a budget at most> <command...>; the command's status
    local name=$1 most=$2 began=$SECONDS left ended how
    shift 2
    if [ -n "${BUDGET_S:-}" ]; then
        left=$((BUDGET_S - SECONDS))
        if [ "$left" -lt 10 ]; then
            summary+=("skipped $name: no time left")
            return 0
        fi
        set -- timeout --kill-after=5 $((most < left ? most : left)) "$@"
    fi
    printf '\n== %s\n' "$name"
    "$@"
    ended=$?
    case $ended in
        0) how=ok ;;
        124 | 137) how="CUT OFF" ;;
        *) how=FAILED ;;
    esac
    summary+=("$(printf '%-7s %s, %s s' "$how" "$name" $((SECONDS - began)))")
    return $ended
}
measure() { # measure <name> <seconds of a budget at most> <script> <arguments...>
    local name=$1 most=$2 script=$3
    shift 3
    run "$name" "$most" "$python" "benchmarks/$script.py" "$@"
}

for step in $steps; do
    case $step in
        tests)
            run "tests on the GPU" 300 "$python" -m unittest -v tests.test_gpu || status=1
            if has pytest && has hypothesis && has beartype && has arviz_stats; then
                run "tests marked gpu" 300 \
                    "$python" -m pytest -m gpu -p no:cacheprovider || status=1
            else
                summary+=("skipped tests marked gpu: pytest, hypothesis, beartype or arviz-stats is missing")
            fi
            ;;
        updates)
            # BoTorch samples one run, which takes seconds on the processor: jax would take the GPU.
            JAX_PLATFORMS=cpu measure updates 300 speed updates --device cuda \
                ${quick:+--case 8,20,6 --repeats 1}
            ;;
        ascent)
            measure ascent 200 speed ascent --device cuda \
                ${quick:+--case 4,20,6 --repeats 1 --peer-runs 1}
            ;;
        runs)
            size="--problem hartmann6 --runs 64 --budget 100"
            [ "$quick" ] && size="--runs 4 --budget 9"
            # shellcheck disable=SC2086  # the size is several arguments
            measure "many runs" 500 replications --device cuda --peer-runs 1 $size
            ;;
        thompson) [ "$quick" ] || measure thompson 400 speed thompson --device cuda ;;
        large) [ "$quick" ] || measure "many functions" 200 speed large --device cuda ;;
        crossover)
            measure crossover 300 crossover ${quick:+--results 32 --most 2 --repeats 1}
            ;;
        numpyro)
            # All chains wait for the longest trajectory of any, so fewer runs come first.
            [ "$quick" ] || measure numpyro 560 speed numpyro --device cuda \
                --case 16,50,6 --case 128,50,6
            ;;
        one)
            if [ "$quick" ]; then
                continue
            elif has numpyro; then
                JAX_PLATFORMS=cpu measure "one run" 400 speed
            else
                summary+=("skipped one run: numpyro, which BoTorch samples with, is missing")
            fi
            ;;
        *) summary+=("skipped $step: there is no such step") ;;
    esac
done

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit $status
