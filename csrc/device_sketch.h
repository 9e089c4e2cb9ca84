// From a sketch's arguments to what blocks of threads work on: sketch_cuda.cu launches them, sketch_lanes.cpp is their
// host twin.
#pragma once
#include <cstdint>

#include "block_sketch.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int64_t kNumberBytes[] = {4, 2, 2};  // of a DType

// Whether every piece of `count` neighbours begins at a multiple of its size.
inline bool aligned(const Factor& f, int64_t count) {
  const auto bytes = static_cast<uintptr_t>(count * kNumberBytes[static_cast<int>(f.type)]);
  return f.features % count == 0 && reinterpret_cast<uintptr_t>(f.data) % bytes == 0;
}

// body(sketch, shape, number): a LayerSketch; number is BFloat16 where both factors are, else float.
template <class Body>
void dispatch_layer(const SketchArguments& a, const Body& body) {
  Factor left{a.grads, a.out_features, static_cast<uint64_t>(a.in_features), a.grads_type, false};
  Factor right{a.inputs, a.in_features, 1, a.inputs_type, false};
  if (left.features > right.features) std::swap(left, right);
  dispatch_shape(a.plan, left.features, right.features, [&](auto shape) {
    using S = decltype(shape);
    const auto tiling = BlockTiling::of(shape, left.features, right.features, a.plan.dim);
    left.aligned = aligned(left, 2) && (tiling.rows % 2 == 0 || tiling.down == 1);
    right.aligned = aligned(right, S::kColumns / 8);
    const LayerSketch sketch{a.plan, tiling, left, right, a.lengths, a.tokens, a.offset};
    if (left.type == DType::kBFloat16 && right.type == DType::kBFloat16)
      body(sketch, shape, BFloat16{});
    else
      body(sketch, shape, float{});
  });
}

inline LineSketch line_sketch(const RowSketchArguments& a) {
  return {a.plan, BlockTiling::of(Lines{}, a.rows, a.width, a.plan.dim, 1), a};
}

}  // namespace GRADEX_ISA
}  // namespace gradex
