#!/usr/bin/env bash
# Make a folder in which Ansor (auto_scheduler of TVM 0.17.dev0) tunes for the processor. Usage: setup.sh FOLDER
# TVM dropped Ansor; a wheel of BitBLAS still holds a whole TVM that has it (LLVM 10, x86-64 Linux). It wants three CUDA
# libraries to start: two are on PyPI, the driver is a stub that is never called.
set -euo pipefail
folder=$(realpath -m "$1")
mkdir -p "$folder/stub"
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 'numpy<2' scipy decorator attrs psutil \
  cloudpickle tornado typing_extensions 'xgboost-cpu<2.2' ml_dtypes pandas
venv/bin/pip download -q --no-deps --only-binary=:all: -d wheel bitblas==0.1.0.post1
python3 -m zipfile -e wheel/bitblas-*.whl unpacked
root=$folder/unpacked/bitblas/3rdparty/tvm
nm -D --undefined-only "$root/build/libtvm.so" | awk '$2 ~ /^cu[A-Z]/ {print "int " $2 "(void) { return 100; }"}' | sort -u \
  > stub/cuda.c
gcc -shared -fPIC -o stub/libcuda.so.1 stub/cuda.c
site=$(venv/bin/python -c 'import site; print(site.getsitepackages()[0])')
cat > env.sh <<ENV
export LD_LIBRARY_PATH=$folder/stub:$site/nvidia/cuda_nvrtc/lib:$site/nvidia/cuda_runtime/lib
export PYTHONPATH=$root/python TVM_LIBRARY_PATH=$root/build PATH=$folder/venv/bin:\$PATH
ENV
(
  . ./env.sh
  python -c 'import tvm; from tvm import auto_scheduler; print("Ansor of TVM", tvm.__version__, "is ready")'
)
