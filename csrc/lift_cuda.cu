// The adjoint of the sketch on the GPU, the first rung: one thread makes row j of P and multiplies every vector by it.
#include "check.h"
#include "distribution.h"
#include "lift.h"

namespace gradex {
namespace {

constexpr int kThreads = 256;

__global__ void lift_kernel(LiftArguments a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= a.size) return;
  const uint64_t j = a.offset + static_cast<uint64_t>(index);
  for (int64_t m = 0; m < a.vectors; ++m) {
    float sum = 0.0f;
    for (int64_t k = 0; k < a.dim; k += 4) {
      const Normals normals = entries(a.distribution, j, static_cast<uint32_t>(k / 4), a.key);
      for (int i = 0; i < 4; ++i)
        if (k + i < a.dim) sum = fused(a.weights[m * a.dim + k + i], normals.z[i], sum);
    }
    a.out[m * a.size + index] = a.scale * sum;
  }
}

}  // namespace

void lift_cuda(const LiftArguments& a, int device, void* stream) {
  const DeviceScope scope(device);
  const auto blocks = static_cast<unsigned>((a.size + kThreads - 1) / kThreads);
  lift_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  GRADEX_CHECK(cudaGetLastError());
}

}  // namespace gradex
