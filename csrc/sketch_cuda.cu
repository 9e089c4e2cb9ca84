// The sketches on the GPU. block_sketch.h is what a block does.
#include <algorithm>
#include <cstdint>

#include "check.h"
#include "device_sketch.h"

namespace gradex {
namespace {

constexpr int kThreads = kWarps * kLanes;

// Two blocks share a multiprocessor: one reads tokens while the other makes P. From sm_100 on the compiler needs more
// registers, and two blocks of the largest kernels would spill.
template <class Number, class S>
constexpr int blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  if (S::kSamples > 32 || kParts<Number> * S::kRows > 32) return 1;
#endif
  return 2;
}

template <class Number, class S, class Sketch>
__global__ __launch_bounds__(kThreads, blocks<Number, S>()) void sketch_kernel(const __grid_constant__ Sketch sketch,
                                                                               int ahead) {
  extern __shared__ __align__(16) uint32_t memory[];
  SketchBlock<Number, S, Sketch>{sketch, blockIdx.x, ahead, memory}.run();
}

__global__ __launch_bounds__(kThreads) void add_chunks_kernel(SketchPlan plan, BlockTiling tiling) {
  __shared__ double memory[kThreads];
  add_chunks(plan, tiling, static_cast<int64_t>(blockIdx.x) * kLanes, memory);
}

// Shared memory that a block may have if two are to share a multiprocessor.
int64_t half_of_shared_memory(int device) {
  constexpr int64_t kReserved = 1024;  // bytes, of a block by the system
  int bytes = 0;
  GRADEX_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
  return bytes / 2 - kReserved;
}

template <class Number, class S, class Sketch>
void launch(const Sketch& sketch, int device, cudaStream_t queue) {
  const SketchPlan& plan = sketch.plan;
  const BlockTiling& t = sketch.tiling;
  const auto samples = static_cast<int>(std::min<int64_t>(plan.samples, S::kSamples));
  const int64_t gradients = Gradients(nullptr, samples, t.elements()).words() * sizeof(uint32_t);
  const int ahead = blocks_ahead<Sketch, S>(plan, t, half_of_shared_memory(device) - gradients);
  const auto bytes = static_cast<int>(gradients) + ahead * kWarps * KeptProjection::kWords * sizeof(uint32_t);
  const auto kernel = sketch_kernel<Number, S, Sketch>;
  GRADEX_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  kernel<<<static_cast<unsigned>(t.chunks), kThreads, bytes, queue>>>(sketch, ahead);
  GRADEX_CHECK(cudaGetLastError());
  const auto groups = static_cast<unsigned>(ratio_up(plan.samples * plan.dim, kLanes));
  add_chunks_kernel<<<groups, kThreads, 0, queue>>>(plan, t);
  GRADEX_CHECK(cudaGetLastError());
}

}  // namespace

void sketch_cuda(const SketchArguments& a, int device, void* stream) {
  const DeviceScope scope(device);
  dispatch_layer(a, [&](const auto& sketch, auto shape, auto number) {
    launch<decltype(number), decltype(shape)>(sketch, device, static_cast<cudaStream_t>(stream));
  });
}

void sketch_rows_cuda(const RowSketchArguments& a, int device, void* stream) {
  const DeviceScope scope(device);
  launch<float, Lines>(line_sketch(a), device, static_cast<cudaStream_t>(stream));
}

}  // namespace gradex
