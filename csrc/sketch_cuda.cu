// The sketch on the GPU, the first rung: simple and right. A block owns a chunk of tiles and a block of columns; thread
// j makes element j of each sample's gradient tile, then the threads share out the columns of the product with P.
#include "check.h"
#include "distribution.h"
#include "sketch.h"

namespace gradex {
namespace {

constexpr int kTileElements = 256;
constexpr int kThreads = kTileElements;  // one thread for one element of a tile
constexpr int kColumnBlock = 32;         // columns of P in shared memory: 256 x 32 floats, 32 KiB

struct Position {
  int64_t row, column;
  bool inside;
};

__device__ Position position(const SketchArguments& a, const Tiling& t, int64_t tile, int element) {
  const int64_t row = tile / t.tiles_across * t.rows + element / t.columns;
  const int64_t column = tile % t.tiles_across * t.columns + element % t.columns;
  return {row, column, element < t.rows * t.columns && row < a.out_features && column < a.in_features};
}

// G_i[row, column]
template <class Input, class Grad>
__device__ float gradient(const SketchArguments& a, int64_t sample, Position at) {
  const int64_t tokens = a.lengths ? a.lengths[sample] : a.tokens;
  const auto* x = static_cast<const Input*>(a.inputs) + sample * a.tokens * a.in_features + at.column;
  const auto* d = static_cast<const Grad*>(a.grads) + sample * a.tokens * a.out_features + at.row;
  float sum = 0.0f;
  for (int64_t t = 0; t < tokens; ++t)
    sum = fused(to_float(d[t * a.out_features]), to_float(x[t * a.in_features]), sum);
  return sum;
}

// workspace[chunk, sample, k] = the chunk's share of G_i P. blockIdx: (chunk, block of columns).
template <class Input, class Grad>
__global__ void partial_kernel(SketchArguments a, Tiling t) {
  __shared__ float projection[kColumnBlock][kTileElements];
  __shared__ float gradients[kTileElements];
  const int element = threadIdx.x;
  const int64_t chunk = blockIdx.x, first = static_cast<int64_t>(blockIdx.y) * kColumnBlock;
  const int64_t tiles = t.tiles_down * t.tiles_across;
  float* partial = a.plan.workspace + chunk * a.plan.samples * a.plan.dim;
  if (element < kColumnBlock && first + element < a.plan.dim)
    for (int64_t s = 0; s < a.plan.samples; ++s) partial[s * a.plan.dim + first + element] = 0.0f;
  for (int64_t tile = chunk * tiles / t.chunks; tile < (chunk + 1) * tiles / t.chunks; ++tile) {
    const Position at = position(a, t, tile, element);
    const uint64_t j = a.offset + static_cast<uint64_t>(at.row * a.in_features + at.column);
    for (int quad = 0; quad < kColumnBlock / 4; ++quad) {
      const Normals normals = entries(a.plan.distribution, j, static_cast<uint32_t>(first / 4) + quad, a.plan.key);
      for (int i = 0; i < 4; ++i) projection[4 * quad + i][element] = normals.z[i];
    }
    for (int64_t s = 0; s < a.plan.samples; ++s) {
      gradients[element] = at.inside ? gradient<Input, Grad>(a, s, at) : 0.0f;
      __syncthreads();  // the tile of P (first sample) and the gradient are complete
      // A warp sums one column: lanes stride over the elements, then a butterfly in fixed order.
      const int warp = element / 32, lane = element % 32;
      for (int k = warp; k < kColumnBlock; k += kThreads / 32) {
        float sum = 0.0f;
        for (int e = lane; e < kTileElements; e += 32) sum = fused(gradients[e], projection[k][e], sum);
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
        if (lane == 0 && first + k < a.plan.dim) partial[s * a.plan.dim + first + k] += sum;
      }
      __syncthreads();  // every warp has read the gradient (and, after the last sample, P)
    }
  }
}

// out[i] += scale * sum over chunks, in order.
__global__ void reduce_kernel(SketchArguments a, int64_t chunks) {
  const int64_t count = a.plan.samples * a.plan.dim;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  double total = 0.0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) total += a.plan.workspace[chunk * count + i];
  a.plan.out[i] += static_cast<float>(a.plan.scale * total);
}

}  // namespace

int64_t sketch_cuda_workspace(const SketchPlan& plan, int64_t out_features, int64_t in_features) {
  return tiling(out_features, in_features, kTileElements).chunks * plan.samples * plan.dim;
}

void sketch_cuda(const SketchArguments& a, int device, void* stream) {
  const DeviceScope scope(device);
  const auto queue = static_cast<cudaStream_t>(stream);
  const Tiling t = tiling(a.out_features, a.in_features, kTileElements);
  const dim3 grid(static_cast<unsigned>(t.chunks),
                  static_cast<unsigned>((a.plan.dim + kColumnBlock - 1) / kColumnBlock));
  dispatch(a.inputs_type, [&](auto input) {
    dispatch(a.grads_type,
             [&](auto grad) { partial_kernel<decltype(input), decltype(grad)><<<grid, kThreads, 0, queue>>>(a, t); });
  });
  GRADEX_CHECK(cudaGetLastError());
  const auto blocks = static_cast<unsigned>((a.plan.samples * a.plan.dim + kThreads - 1) / kThreads);
  reduce_kernel<<<blocks, kThreads, 0, queue>>>(a, t.chunks);
  GRADEX_CHECK(cudaGetLastError());
}

}  // namespace gradex
