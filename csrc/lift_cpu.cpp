// The adjoint of the sketch on the CPU; compiled once per instruction set.
#include "lift.h"
#include "parallel.h"
#include "tile.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

constexpr int64_t kBlock = 256;       // elements of the parameter lifted together
constexpr int64_t kColumnBlock = 32;  // columns of P in one tile: 256 x 32 floats, 32 KiB

void lift_block(const LiftArguments& a, int64_t first) {
  const int64_t size = kBlock < a.size - first ? kBlock : a.size - first;
  const int64_t lanes = round_up(size, kLanes);
  float projection[kColumnBlock * kBlock];
  uint64_t j[kBlock];
  for (int64_t lane = 0; lane < lanes; ++lane) j[lane] = a.offset + static_cast<uint64_t>(first + lane);
  for (int64_t m = 0; m < a.vectors; ++m)
    for (int64_t i = 0; i < size; ++i) a.out[m * a.size + first + i] = 0.0f;
  for (int64_t block = 0; block < a.dim; block += kColumnBlock) {
    const int64_t columns = kColumnBlock < a.dim - block ? kColumnBlock : a.dim - block;
    gaussian_tile(projection, kBlock, j, lanes, static_cast<uint32_t>(block / 4), (columns + 3) / 4, a.key);
    for (int64_t m = 0; m < a.vectors; ++m) {
      float* __restrict out = a.out + m * a.size + first;
      for (int64_t k = 0; k < columns; ++k) {
        const float weight = a.scale * a.weights[m * a.dim + block + k];
        for (int64_t i = 0; i < size; ++i) out[i] += weight * projection[k * kBlock + i];
      }
    }
  }
}

}  // namespace

void lift_cpu(const LiftArguments& a, int workers) {
  parallel_for((a.size + kBlock - 1) / kBlock, workers, [&](int64_t block) { lift_block(a, block * kBlock); });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
