// The GPU's kernels on the host, a lane after another: their own source, tilings and indices, for machines without a
// GPU to test. Slow.
#define GRADEX_HOST_TWIN  // it is to be compiled fast, not to be fast
#include <algorithm>
#include <cstdint>
#include <vector>

#include "device_sketch.h"
#include "lane_lift.h"

namespace gradex {
namespace {

// So little that most shapes make a part of P ahead and the rest when it is needed.
constexpr int64_t kAheadBytes = 3 * kWarps * KeptProjection::kWords * static_cast<int64_t>(sizeof(uint32_t));

template <class Number, class S, class Sketch>
void run_blocks(const Sketch& sketch) {
  const SketchPlan& plan = sketch.plan;
  const auto samples = static_cast<int>(std::min<int64_t>(plan.samples, S::kSamples));
  const Gradients shape(nullptr, samples, sketch.tiling.elements());
  const int ahead = blocks_ahead<Sketch, S>(plan, sketch.tiling, kAheadBytes),
            kept = ahead * kWarps * KeptProjection::kWords;
  std::vector<uint32_t> memory(static_cast<size_t>(shape.words() + kept), ~0u);  // NaN until written
  for (int64_t chunk = 0; chunk < sketch.tiling.chunks; ++chunk)
    SketchBlock<Number, S, Sketch>{sketch, chunk, ahead, memory.data()}.run();
  double sums[kWarps * kLanes];
  for (int64_t i = 0; i < plan.samples * plan.dim; i += kLanes) add_chunks(plan, sketch.tiling, i, sums);
}

}  // namespace

int64_t sketch_device_workspace(const SketchPlan& plan, int64_t out_features, int64_t in_features) {
  int64_t floats = 0;
  const int64_t left = std::min(out_features, in_features), right = std::max(out_features, in_features);
  dispatch_shape(plan, left, right,
                 [&](auto shape) { floats = BlockTiling::of(shape, left, right, plan.dim).workspace(plan); });
  return floats;
}

int64_t sketch_rows_device_workspace(const SketchPlan& plan, int64_t rows, int64_t width) {
  return BlockTiling::of(Lines{}, rows, width, plan.dim, 1).workspace(plan);
}

void sketch_lanes(const SketchArguments& a) {
  dispatch_layer(
      a, [](const auto& sketch, auto shape, auto number) { run_blocks<decltype(number), decltype(shape)>(sketch); });
}

void sketch_rows_lanes(const RowSketchArguments& a) { run_blocks<float, Lines>(line_sketch(a)); }

void lift_lanes(const LiftArguments& a) {
  const RoundKeys keys(a.key);
  for (int64_t index = 0; index < a.size; ++index) lift_elements(a, keys, index);
}

}  // namespace gradex
