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
__global__ __launch_bounds__(kThreads, blocks<Number, S>()) void sketch_kernel(const __grid_constant__ Sketch sketch) {
  extern __shared__ __align__(16) uint32_t memory[];
  sketch_block<Number, S>(sketch, blockIdx.x, memory);
}

__global__ __launch_bounds__(kThreads) void add_chunks_kernel(SketchPlan plan, BlockTiling tiling) {
  __shared__ double memory[kThreads];
  add_chunks(plan, tiling, static_cast<int64_t>(blockIdx.x) * kLanes, memory);
}

template <class Number, class S, class Sketch>
void launch(const Sketch& sketch, cudaStream_t queue) {
  const SketchPlan& plan = sketch.plan;
  const BlockTiling& t = sketch.tiling;
  const auto samples = static_cast<int>(std::min<int64_t>(plan.samples, S::kSamples));
  const auto bytes = static_cast<int>(Gradients(nullptr, samples, t.elements()).words() * sizeof(uint32_t));
  const auto kernel = sketch_kernel<Number, S, Sketch>;
  GRADEX_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  GRADEX_CHECK(cudaMemsetAsync(plan.workspace, 0, static_cast<size_t>(t.workspace(plan)) * sizeof(float), queue));
  kernel<<<static_cast<unsigned>(t.chunks), kThreads, static_cast<size_t>(bytes), queue>>>(sketch);
  GRADEX_CHECK(cudaGetLastError());
  const auto groups = static_cast<unsigned>(ratio_up(plan.samples * plan.dim, kLanes));
  add_chunks_kernel<<<groups, kThreads, 0, queue>>>(plan, t);
  GRADEX_CHECK(cudaGetLastError());
}

}  // namespace

void sketch_cuda(const SketchArguments& a, int device, void* stream) {
  const DeviceScope scope(device);
  dispatch_layer(a, [&](const auto& sketch, auto shape, auto number) {
    launch<decltype(number), decltype(shape)>(sketch, static_cast<cudaStream_t>(stream));
  });
}

void sketch_rows_cuda(const RowSketchArguments& a, int device, void* stream) {
  const DeviceScope scope(device);
  launch<float, Lines>(line_sketch(a), static_cast<cudaStream_t>(stream));
}

}  // namespace gradex
