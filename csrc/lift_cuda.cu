// The adjoint of the sketch on the GPU: a thread for every element of P.
#include "check.h"
#include "lane_lift.h"

namespace gradex {
namespace {

constexpr int kThreads = 256;

__global__ void lift_kernel(const __grid_constant__ LiftArguments a, const __grid_constant__ RoundKeys keys) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < a.size) lift_elements(a, keys, index);
}

}  // namespace

void lift_cuda(const LiftArguments& a, int device, void* stream) {
  const DeviceScope scope(device);
  const auto blocks = static_cast<unsigned>((a.size + kThreads - 1) / kThreads);
  lift_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, RoundKeys(a.key));
  GRADEX_CHECK(cudaGetLastError());
}

}  // namespace gradex
