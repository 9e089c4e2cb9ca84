// From a sketch's arguments to what blocks of threads work on: sketch_cuda.cu launches them, sketch_lanes.cpp is their
// host twin.
#pragma once
#include <cstdint>

#include "block_sketch.h"
#include "layer_sketch.h"
#include "line_sketch.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int64_t kNumberBytes[] = {4, 2, 2};  // of a DType

// Whether every run of `count` neighbours begins at a multiple of its size, and 32 bits hold a token's bytes.
inline bool aligned(const Factor& f, int64_t tokens, int64_t count) {
  const auto bytes = static_cast<uintptr_t>(count * kNumberBytes[static_cast<int>(f.type)]);
  const bool short_tokens = tokens == 1 || f.features < int64_t{1} << 28;
  return short_tokens && f.features % count == 0 && reinterpret_cast<uintptr_t>(f.data) % bytes == 0;
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
    const bool narrow = left.type == DType::kBFloat16 && right.type == DType::kBFloat16;
    const bool own = narrow || (left.type == DType::kFloat32 && right.type == DType::kFloat32);
    left.aligned = own && aligned(left, a.tokens, 2) && (tiling.rows % 2 == 0 || tiling.down == 1);
    right.aligned = own && aligned(right, a.tokens, S::kColumns / 8);
    const LayerSketch sketch{a.plan, RoundKeys(a.plan.key), tiling, left, right, a.lengths, a.tokens, a.offset};
    if (a.tokens == 1 && left.features == 1) {  // of which dispatch_shape makes no wider pieces
      if constexpr (S::kColumns == 16) body(DenseSketch{sketch}, shape, float{});
    } else if (narrow)
      body(sketch, shape, BFloat16{});
    else
      body(sketch, shape, float{});
  });
}

inline LineSketch line_sketch(const RowSketchArguments& a) {
  return {a.plan, RoundKeys(a.plan.key), BlockTiling::of(Lines{}, a.rows, a.width, a.plan.dim, 1), a};
}

// Blocks of P that every warp makes ahead in so much shared memory. Signs cost less than keeping them.
template <class Sketch, class S>
int blocks_ahead(const SketchPlan& plan, const BlockTiling& t, int64_t bytes) {
  if (plan.distribution == Distribution::kRademacher || !Sketch::kWaits || !S::kMakesAhead || bytes <= 0) return 0;
  const int64_t room = bytes / (kWarps * KeptProjection::kWords * static_cast<int64_t>(sizeof(uint32_t)));
  const int64_t most = ratio_up(t.column_blocks, kWarps) * ratio_up(t.elements() / kElementBlock, t.shares);
  return static_cast<int>(room < most ? room : most);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
